"""What kustomize makes of a folder, and what is found in it."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.servers import which

Object = dict[str, Any]

MANIFESTS = Path(__file__).resolve().parents[2] / "manifests"
OVERLAYS = sorted(folder.name for folder in (MANIFESTS / "overlays").iterdir() if folder.is_dir())
COMPONENTS = sorted(folder.name for folder in (MANIFESTS / "components").iterdir() if folder.is_dir())


class _Loader(yaml.CSafeLoader):
    """Reads numbers as Kubernetes does: PyYAML by itself takes 1e-08 for a text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+"), list("-+0123456789")
)


def read_objects(text: str) -> list[Object]:
    """The documents of a YAML file."""
    return list(yaml.load_all(text, Loader=_Loader))


def render(folder: Path) -> list[Object]:
    """The objects that `kubectl kustomize` makes of a folder with a kustomization."""
    done = subprocess.run([which("kubectl"), "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr, done.stderr
    return read_objects(done.stdout)


def render_with(folder: Path, base: str, components: list[str]) -> list[Object]:
    """The objects of `base` with `components`, both named as below `manifests`.

    Args:
        folder: beside the manifests' own, to write a kustomization to.
        base: such as `overlays/gke`.
        components: such as `kueue`.
    """
    folder.mkdir(exist_ok=True)
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [f"../{base}"],
        "components": [f"../components/{name}" for name in components],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return render(folder)


def title(thing: Object) -> str:
    """How messages name an object."""
    return f"{thing.get('kind')}/{thing.get('metadata', {}).get('name')}"


def find(objects: list[Object], kind: str, name: str | None = None) -> list[Object]:
    """The objects of a kind, or the one of a name."""
    return [each for each in objects if each["kind"] == kind and name in (None, each["metadata"]["name"])]


def walk(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value within a value, itself first, with the path to it."""
    yield path, value
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from walk(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from walk(inner, f"{path}[{index}]")


def pod_templates(thing: Object) -> list[tuple[str, Object]]:
    """Every pod template within an object, of whatever kind that is, with the path to it."""
    return [
        (path, value)
        for path, value in walk(thing)
        if isinstance(value, dict) and isinstance(value.get("spec"), dict) and "containers" in value["spec"]
    ]


def images(thing: Object) -> list[tuple[str, str]]:
    """Every image reference within an object, with the path to it; not the images that a run's other step chooses."""
    found = [(path, value) for path, value in walk(thing) if path.endswith(".image") and isinstance(value, str)]
    return [(path, value) for path, value in found if not value.startswith("{{$.inputs.parameters[")]


def as_text(thing: Object) -> str:
    """The object as canonical JSON."""
    return json.dumps(thing, sort_keys=True)
