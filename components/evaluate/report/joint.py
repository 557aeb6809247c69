"""The report of several words: an index on top, then each word's own report."""

from __future__ import annotations

import html
from collections.abc import Sequence

from components.common.artifacts import Evaluation
from components.common.errors import TextualInversionError
from components.common.printable import masked, visible

_INDEX = '<main><nav><p class="eyebrow">Words of this run</p><ol>{entries}</ol></nav></main>'
_ENTRY = '<li><a class="token" href="#word-{number}">{token}</a> {verdict}</li>'


def joint_report(evaluations: Sequence[Evaluation]) -> str:
    """One page as HTML that shows every word: of one word its own report, of several all of them below an index.

    Raises:
        TextualInversionError: when a report is no page of this project.
    """
    if len(evaluations) == 1:
        return evaluations[0].report_html
    entries = "".join(
        _ENTRY.format(
            number=number,
            token=_shown(each.placeholder_token),
            verdict="passed" if each.passed else "did not pass",
        )
        for number, each in enumerate(evaluations)
    )
    title = _shown(", ".join(each.placeholder_token for each in evaluations))
    head = _between(evaluations[0].report_html, "", "<body>")
    own_title = _between(head, "<title>", "</title>")
    head = head.replace(f"<title>{own_title}</title>", f"<title>{title}</title>", 1)
    articles = "".join(
        f'<article id="word-{number}">{_between(each.report_html, "<body>", "</body>")}</article>'
        for number, each in enumerate(evaluations)
    )
    return f"{head}<body>{_INDEX.format(entries=entries)}{articles}</body></html>\n"


def _between(page: str, begin: str, end: str) -> str:
    """What stands between the first `begin` and the last `end` of a page."""
    start, stop = page.find(begin), page.rfind(end)
    if start < 0 or stop < 0:
        raise TextualInversionError(f"found a report without {begin or end}, expected a page of this project")
    return page[start + len(begin) : stop]


def _shown(text: str) -> str:
    return html.escape(visible(masked(text)))
