"""What is, and what is not, in the built light images."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.containers.recipes import CONTAINERS, LIGHT, ROOT, locked
from tests.images.conftest import REGISTRY, VERSION, make
from tests.images.engine import Engine


@pytest.mark.parametrize("name", LIGHT)
def test_image_says_what_it_is_and_runs_as_an_ordinary_user(name: str, engine: Engine, images: dict[str, str]):
    (image,) = json.loads(engine("image", "inspect", images[name]).stdout)
    settings = image["Config"]
    assert settings["User"] == "1000:1000"
    assert not settings.get("Entrypoint")
    revision = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    labels = {label.removeprefix("org.opencontainers.image."): text for label, text in settings["Labels"].items()}
    assert labels["title"] == f"Textual Inversion: {name}"
    assert f"# {labels['description']}\n" in (CONTAINERS / name / "requirements.in").read_text(encoding="utf-8")
    assert labels["version"] == VERSION
    assert labels["revision"].removesuffix("-dirty") == revision.stdout.strip()
    assert labels["licenses"] == "Apache-2.0"


@pytest.mark.parametrize("name", LIGHT)
def test_image_has_exactly_its_locked_packages(name: str, engine: Engine, images: dict[str, str]):
    code = (
        "import importlib.metadata as m, json; "
        "print(json.dumps({p.name.lower().replace('_', '-').replace('.', '-'): p.version for p in m.distributions()}))"
    )
    found = json.loads(engine.run(images[name], "python", "-I", "-c", code).stdout)
    assert found == {project: package.version for project, package in locked(name).items()}


@pytest.mark.parametrize("name", LIGHT)
def test_image_has_nothing_of_the_machine_that_built_it(name: str, engine: Engine, images: dict[str, str]):
    script = "test ! -e /etc/pip.conf && test ! -e /wheels && find / -xdev -name pip.conf 2>/dev/null | wc -l"
    done = engine.run(images[name], "sh", "-c", script)
    assert (done.returncode, done.stdout.strip()) == (0, "0"), done.stderr


@pytest.mark.usefixtures("images")
def test_bill_of_materials_names_python_and_debian_packages(engine: Engine):
    given = (f"REGISTRY={REGISTRY}", f"VERSION={VERSION}", f"CONTAINER_ENGINE={engine.name}")
    done = make("sboms", "NAMES=publish", *given)
    assert done.returncode == 0, done.stdout + done.stderr
    bill = json.loads((ROOT / "build/sboms/publish.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    packages = {(component["name"], component.get("version")) for component in bill["components"]}
    assert ("kfp", locked("publish")["kfp"].version) in packages
    assert any(name == "libc6" for name, _ in packages)
