"""What an image holds, laid out without building it: its locked packages and the steps' code, nothing else."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.containers.recipes import ACCELERATOR_ONLY, ROOT, locked


class ImageEnvironment:
    """A folder with links to the installed files of an image's locked packages, and the steps' code.

    Python runs there without its own site-packages, so that a package that the lock does not name cannot be imported,
    found or asked for its version.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self._packages, self._source, self._home = folder / "packages", folder / "app", folder / "home"
        for project in locked(name):
            self._link(project)
        shutil.copytree(ROOT / "components", self._source / "components", ignore=shutil.ignore_patterns("__pycache__"))
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
