"""Which modules run in an image, and what they import, as their source says."""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.containers.recipes import ROOT, RUNS

COMPONENTS = ROOT / "components"
ROOMS = {part for parts in RUNS.values() for part in parts if "/" in part}
"""The parts of a step that runs in several images: each image has rooms of its own."""


def running(name: str) -> dict[str, set[str]]:
    """Every module that may be loaded in the image `name`, with the imports in it, those in functions included.

    It begins with the modules of the image's parts and goes on with what they import. A step with rooms enters, from
    the modules beside the rooms, those of the image alone.
    """
    parts = [COMPONENTS / part for part in RUNS[name]]
    todo = [file for part in parts for file in part.rglob("*.py")]
    todo += [file for part in parts if part.parent != COMPONENTS for file in part.parent.glob("*.py")]
    closed = [COMPONENTS / room for room in ROOMS if room not in RUNS[name]]
    found: dict[str, set[str]] = {}
    while todo:
        file = todo.pop()
        if module_name(file) not in found:
            found[module_name(file)] = set(imports(file))
            ours = [sources()[module] for module in found[module_name(file)] if module in sources()]
            todo += [other for other in ours if not any(enters(file, room, other) for room in closed)]
    return found


def enters(file: Path, room: Path, other: Path) -> bool:
    """Whether `file`, beside `room`, imports by `other` what happens in the room: more than its configuration."""
    return file.parent == room.parent and other.is_relative_to(room) and other.name != "config.py"


def packages(modules: dict[str, set[str]]) -> set[str]:
    """The modules of other packages that these modules import."""
    imported = set().union(*modules.values())
    return {name for name in imported - set(sources()) if name.partition(".")[0] not in sys.stdlib_module_names}


def imports(file: Path) -> Iterator[str]:
    """The modules that a file imports, at its top or in a function."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, f"{file}: relative import"
            yield node.module
            yield from (name for alias in node.names if (name := f"{node.module}.{alias.name}") in sources())


@functools.cache
def sources() -> dict[str, Path]:
    """The files of `components`, by module name."""
    return {module_name(file): file for file in COMPONENTS.rglob("*.py")}


def module_name(file: Path) -> str:
    """The name by which Python imports a file of ours."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
