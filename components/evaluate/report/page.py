"""The report: one page that needs nothing else, for the people who ordered the concept.

It runs no script and asks no network for anything, which its content security policy enforces; so what a prompt or
a placeholder holds can only be text, and shows all that is in it.
"""

from __future__ import annotations

import functools
from pathlib import Path

from components.common.errors import TextualInversionError
from components.common.pages.page import page_template
from components.common.pages.pictures import LADDER, embed_picture
from components.evaluate.report.view import ReportContent, report_view

MAX_BYTES = 5_000_000
"""A page that mail and chat programs still take."""


def render_report(content: ReportContent, *, max_bytes: int = MAX_BYTES) -> str:
    """The page as HTML of at most `max_bytes`: pictures are made smaller until it fits.

    Raises:
        TextualInversionError: when it does not fit even with the smallest pictures.
    """
    template, size = page_template(Path(__file__).parent), 0
    for rung in LADDER:
        page = template.render(report_view(content, functools.partial(embed_picture, rung=rung)))
        size = len(page.encode())
        if size <= max_bytes:
            return page
    raise TextualInversionError(
        f"the report has {size} bytes even with pictures of {LADDER[-1].edge} pixels, expected at most {max_bytes}: "
        "evaluate with fewer prompts"
    )
