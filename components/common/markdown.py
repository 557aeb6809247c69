"""Pieces of Markdown that show a text as it is, whatever characters a prompt or a path holds."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from components.common.printable import printable


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def picture(file: str, alternative: str, *, width: int) -> str:
    """A picture in a table, shown `width` pixels wide; HTML, since Markdown knows no sizes."""
    source, shown = (html.escape(printable(text)).replace("|", "&#124;") for text in (file, alternative))
    return f'<img src="{source}" alt="{shown}" width="{width}">'


def code(text: str) -> str:
    """A code span: `<cat-toy>` outside of one is an HTML tag, which nobody sees."""
    text = printable(text) or " "
    longest = max((len(ticks) for ticks in re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {text} {fence}" if longest else f"{fence}{text}{fence}"


def cell(text: str) -> str:
    """A code span in a table."""
    return code(" ".join(text.split())).replace("|", "\\|")


def escaped(text: str) -> str:
    """Plain text on one line."""
    return re.sub(r"([\\`*_~\[\]|])", r"\\\1", html.escape(" ".join(printable(text).split()), quote=False))
