"""What an image holds, laid out without building it: its locked packages and its part of the source, nothing else."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

from tests.containers.recipes import ACCELERATOR_ONLY, copy_source, locked


class ImageEnvironment:
    """A folder with links to the installed files of an image's locked packages, and the source that it copies.

    Python runs there without its own site-packages, so that a package that the lock does not name cannot be imported,
    found or asked for its version.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self._packages, self._source, self._home = folder / "packages", folder / "app", folder / "home"
        for project in locked(name):
            self._link(project)
        copy_source(name, self._source)
        self._home.mkdir()

    def _link(self, project: str) -> None:
        try:
            package = importlib.metadata.distribution(project)
        except importlib.metadata.PackageNotFoundError:
            assert ACCELERATOR_ONLY.fullmatch(project), f"{project} is locked but not installed"
            return
        for file in package.files or ():
            if ".." not in file.parts:
                link = self._packages / file
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(package.locate_file(file))

    def modules(self) -> list[str]:
        """Every module of ours that the image has."""
        files = (file.relative_to(self._source).with_suffix("") for file in self._source.rglob("*.py"))
        return sorted(".".join(file.parts).removesuffix(".__init__") for file in files)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs Python in the image's environment, as a step: its home is a folder of its own."""
        environment = {
            "PATH": os.defpath,
            "PYTHONPATH": f"{self._packages}{os.pathsep}{self._source}",
            "HOME": str(self._home),
            "OMP_NUM_THREADS": "1",
        }
        return subprocess.run(
            [sys.executable, "-S", *arguments],
            cwd=self._source,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
