"""The pages for readers as a test reads them: their links and headings, their blocks, and the commands in these."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "manifests" / "README.md", *sorted(DOCS.glob("*.md"))]

_BLOCK = re.compile(r"^```(.*)\n((?:.*\n)*?)^```$", re.M)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_RECORDER = """#!/bin/sh
{ printf '%s\\0' "${0##*/}" "$@"; printf '\\036\\0'; } >> "$RECORD"
"""
"""A program that only writes down how it was called."""
_END = "\x1e"


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block: what stands behind the fence, and its lines."""

    info: str
    text: str


def name_of(page: Path) -> str:
    """The page's path below the repository."""
    return str(page.relative_to(ROOT))


def prose_of(page: Path) -> str:
    """The page without its blocks."""
    return _BLOCK.sub("", page.read_text("utf-8"))


def blocks_of(page: Path) -> list[Block]:
    """The page's blocks."""
    return [Block(info, text) for info, text in _BLOCK.findall(page.read_text("utf-8"))]


def links_of(page: Path) -> list[str]:
    """Where the page's links and pictures lead."""
    return _LINK.findall(prose_of(page))


def anchors_of(page: Path) -> set[str]:
    """The anchors that GitHub makes of the page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose_of(page), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def write_files(page: Path, folder: Path) -> None:
    """Writes the page's YAML files, whose first line is their name, to a folder."""
    for block in blocks_of(page):
        if block.info == "yaml":
            name = block.text.partition("\n")[0].removeprefix("# ")
            (folder / name).write_text(block.text, encoding="utf-8")


def calls_of(page: Path, folder: Path, programs: set[str]) -> list[list[str]]:
    """How the page's `sh` blocks call these programs: the shell runs them all, in order, but for the programs.

    Args:
        page: the page.
        folder: where the shell is.
        programs: those that are only written down; no other may be called but what every shell has.
    """
    script = "set -eu\n" + "".join(block.text for block in blocks_of(page) if block.info == "sh")
    for where in (folder / "recorders", folder / ".venv" / "bin"):
        where.mkdir(parents=True)
        for program in programs:
            (where / program).write_text(_RECORDER)
            (where / program).chmod(0o755)
    record = folder / "record"
    record.touch()
    environment = {**os.environ, "PATH": f"{folder / 'recorders'}:{os.environ['PATH']}", "RECORD": str(record)}
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    calls: list[list[str]] = [[]]
    for word in record.read_text("utf-8").split("\0")[:-1]:
        if word == _END:
            calls.append([])
        else:
            calls[-1].append(word)
    return calls[:-1]
