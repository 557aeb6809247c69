"""Pushing to a real registry on loopback."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.images.conftest import make
from tests.images.engine import Engine
from tests.servers import ServerProcess, free_ports


class Registry(ServerProcess):
    """The registry of the Docker project."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (self.port,) = free_ports(1)
        self.address = f"127.0.0.1:{self.port}"
        settings = {
            "version": "0.1",
            "storage": {"filesystem": {"rootdirectory": str(folder / "images")}},
            "http": {"addr": self.address},
        }
        (folder / "registry.yml").write_text(json.dumps(settings))

    def command(self) -> list[str]:
        program = shutil.which("docker-registry")
        assert program, "docker-registry is not installed: see tests/images/install_engine.sh"
        return [program, "serve", str(self.folder / "registry.yml")]

    def check(self) -> None:
        urllib.request.urlopen(f"http://{self.address}/v2/", timeout=5).close()

    def digest(self, name: str, tag: str) -> str:
        """The digest of the image that a tag stands for."""
        request = urllib.request.Request(f"http://{self.address}/v2/{name}/manifests/{tag}", method="HEAD")
        kinds = ("vnd.oci.image.manifest.v1", "vnd.docker.distribution.manifest.v2")
        request.add_header("Accept", ", ".join(f"application/{kind}+json" for kind in kinds))
        with urllib.request.urlopen(request, timeout=5) as answer:
            return str(answer.headers["Docker-Content-Digest"])


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """A registry without TLS, to which podman and docker may push."""
    server = Registry(tmp_path)
    settings = tmp_path / "registries.conf"
    settings.write_text(f'[[registry]]\nlocation = "{server.address}"\ninsecure = true\n')
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(settings))
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def make_image(engine: Engine, registry: Registry, tmp_path: Path) -> Iterator[Callable[[str, str], str]]:
    """Makes a local image of one file, for pushing does not depend on what is in it, and gives its reference."""
    made: set[str] = set()

    def make_one(name: str, text: str) -> str:
        (tmp_path / "file.txt").write_text(text)
        with tarfile.open(tmp_path / "image.tar", "w") as archive:
            archive.add(tmp_path / "file.txt", arcname="file.txt")
        reference = f"{registry.address}/team/{name}:1.0"
        engine("import", str(tmp_path / "image.tar"), reference)
        made.add(reference)
        return reference

    yield make_one
    engine("image", "rm", "--force", *made)


def push(engine: Engine, registry: Registry, *names: str) -> subprocess.CompletedProcess[str]:
    """`make push` of version 1.0."""
    given = (f"CONTAINER_ENGINE={engine.name}", f"REGISTRY={registry.address}/team", "VERSION=1.0")
    return make("push", f"NAMES={' '.join(names)}", *given)


def test_push_never_replaces_a_tag(engine: Engine, registry: Registry, make_image: Callable[[str, str], str]):
    reference = make_image("publish", "first")
    first = push(engine, registry, "publish")
    assert first.returncode == 0, first.stderr
    digest = registry.digest("team/publish", "1.0")

    make_image("publish", "second")
    again = push(engine, registry, "publish")
    assert again.returncode != 0
    assert f"found in the registry: {reference}" in again.stderr
    assert registry.digest("team/publish", "1.0") == digest


def test_push_pushes_nothing_when_one_of_the_tags_is_there(
    engine: Engine, registry: Registry, make_image: Callable[[str, str], str]
):
    for name in ("publish", "dataset"):
        make_image(name, name)
    assert push(engine, registry, "publish").returncode == 0
    assert push(engine, registry, "dataset", "publish").returncode != 0
    with pytest.raises(urllib.error.HTTPError, match="404"):
        registry.digest("team/dataset", "1.0")


def test_push_pushes_nothing_when_the_registry_does_not_answer(
    engine: Engine, registry: Registry, make_image: Callable[[str, str], str]
):
    make_image("publish", "first")
    registry.stop()
    refused = push(engine, registry, "publish")
    assert refused.returncode != 0
    assert "does not tell whether it has" in refused.stderr
