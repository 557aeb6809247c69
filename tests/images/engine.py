"""podman or docker, the base image, and containers as locked up as a cluster may have them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OFFICIAL_BASE = "python:3.11-slim"
DEBIAN_BASE = "localhost/debian-python:3.11"
LOCKED_UP = (
    "--read-only",
    "--tmpfs=/tmp",
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
    "--user=1000",
    "--network=none",
)


class CannotRunError(Exception):
    """This machine cannot build or run containers; the message says what is missing."""


class Engine:
    """A container engine that works on this machine."""

    def __init__(self) -> None:
        """Finds the engine that CONTAINER_ENGINE names, else podman or docker.

        Raises:
            CannotRunError: when there is none, or it does not work.
        """
        self.name = os.environ.get("CONTAINER_ENGINE") or next(filter(shutil.which, ("podman", "docker")), "")
        if not self.name:
            raise CannotRunError("neither podman nor docker is installed: see tests/images/install_engine.sh")
        os.environ.setdefault("CONTAINERS_CONF", str(ROOT / "tests/images/containers.conf"))
        answer = self("info", check=False)
        if answer.returncode != 0:
            raise CannotRunError(f"{self.name} does not work: {answer.stderr.strip()}")

    def __call__(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs the engine with arguments."""
        done = subprocess.run([self.name, *arguments], capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"{self.name} {' '.join(arguments)}\n{done.stdout}{done.stderr}"
        return done

    def run(
        self, image: str, *command: str, folders: Mapping[str, Path] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command in a container without a network, rights or a disk to write to, but for /tmp and `folders`."""
        mounts = [f"--volume={there}:{inside}" for inside, there in (folders or {}).items()]
        return self("run", "--rm", *LOCKED_UP, *mounts, image, *command, check=False)

    def base_image(self) -> str:
        """An image with Python 3.11: what BASE names, the official one, or one made of Debian packages.

        Raises:
            CannotRunError: when there is no way to get one.
        """
        if os.environ.get("BASE"):
            return os.environ["BASE"]
        for image in (OFFICIAL_BASE, DEBIAN_BASE):
            if self("image", "inspect", image, check=False).returncode == 0:
                return image
        pulled = self("pull", "--quiet", OFFICIAL_BASE, check=False)
        if pulled.returncode == 0:
            return OFFICIAL_BASE
        return self._made_of_debian_packages(pulled.stderr.strip())

    def _made_of_debian_packages(self, why: str) -> str:
        if shutil.which("mmdebstrap") is None:
            raise CannotRunError(
                f"{OFFICIAL_BASE} cannot be pulled ({why}) and mmdebstrap, which makes an image of Debian packages, is "
                "not installed: see tests/images/install_engine.sh, or name an image with Python 3.11 by BASE"
            )
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(folder) / "base.tar"
            options = ("--quiet", "--variant=minbase", "--include=python3,python3-pip,ca-certificates")
            made = subprocess.run(
                ["mmdebstrap", *options, "bookworm", str(archive)], capture_output=True, text=True, check=False
            )
            if made.returncode != 0:
                raise CannotRunError(f"{OFFICIAL_BASE} cannot be pulled ({why}); mmdebstrap: {made.stderr.strip()}")
            path = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
            self("import", "--change", path, str(archive), DEBIAN_BASE)
        return DEBIAN_BASE
