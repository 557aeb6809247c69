"""Web pages from templates: whatever a placeholder, a prompt or a document holds can only be text in them."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import jinja2

from components.common.printable import masked, visible

_SHARED = Path(__file__).parent


def page_template(folder: Path) -> jinja2.Template:
    """The template `template.html` of a folder; it may include the shared `style.css`."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, _SHARED]),
        autoescape=True,
        finalize=_shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("template.html")


def policy_hash(content: str) -> str:
    """What a content security policy calls an inline script or style sheet, `sha256-...`."""
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def shared_style() -> str:
    """The style sheet that the pages share."""
    return (_SHARED / "style.css").read_text(encoding="utf-8")


def _shown(value: Any) -> Any:
    """A text, or markup made of one, without secrets and with nothing hidden; any other value as it is."""
    return type(value)(visible(masked(value))) if isinstance(value, str) else value
