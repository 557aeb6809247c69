"""Pushes built images to their registry; a tag that the registry has is never replaced.

    python -m containers.push --engine podman dataset publish

Caches of Kubeflow Pipelines and running clusters take a tag for the same code for ever. Between two that push at the
same moment only the registry itself can decide: make its tags immutable where it can do that.
"""

from __future__ import annotations

import argparse
import subprocess

from components.common.cli import step_boundary
from components.common.errors import ConfigError, StorageError
from components.common.images import IMAGE_NAMES, image

_ABSENT = ("manifest unknown", "name unknown", "no such manifest", "not found")
_PRESENT = "single images"
"""Part of what podman before 5 says of a manifest that is no list."""


def main() -> None:
    """Parses the arguments and pushes."""
    parser = argparse.ArgumentParser(
        prog="python -m containers.push", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", default="podman", help="podman or docker (default: %(default)s)")
    parser.add_argument("names", nargs="*", default=IMAGE_NAMES, help="images to push (default: all)")
    arguments = parser.parse_args()
    with step_boundary("push"):
        push(arguments.engine, [image(name) for name in arguments.names])


def push(engine: str, references: list[str]) -> None:
    """Pushes all of `references`, or none when the registry has one of them.

    Raises:
        ConfigError: when the registry has one of the tags.
        StorageError: when the registry does not tell, or does not take an image.
    """
    present = [reference for reference in references if is_in_registry(engine, reference)]
    if present:
        raise ConfigError(
            f"found in the registry: {', '.join(present)}; a tag is pushed once and stays what it is: "
            "choose another VERSION"
        )
    for reference in references:
        pushed = subprocess.run([engine, "push", reference], check=False)
        if pushed.returncode != 0:
            raise StorageError(f"{engine} push {reference} ended with exit code {pushed.returncode}: see above")


def is_in_registry(engine: str, reference: str) -> bool:
    """Whether the registry has an image of this name and tag.

    Raises:
        StorageError: when the registry does not tell.
    """
    asked = subprocess.run([engine, "manifest", "inspect", reference], capture_output=True, text=True, check=False)
    if asked.returncode == 0 or _PRESENT in asked.stderr:
        return True
    if any(words in asked.stderr.lower() for words in _ABSENT):
        return False
    raise StorageError(f"the registry does not tell whether it has {reference}: {asked.stderr.strip()}")


if __name__ == "__main__":
    main()
