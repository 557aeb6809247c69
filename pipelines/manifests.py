"""The manifests that follow from the source: which images a release has, and its pipelines as Kubernetes objects.

`python -m pipelines.manifests` writes them after `textual-inversion compile`; `make compile` does both.
"""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import Any

import yaml

from components.common.errors import ConfigError
from components.common.images import IMAGE_NAMES, VERSION, image
from pipelines.compiling import COMPILED, to_yaml

MANIFESTS = Path(__file__).resolve().parents[1] / "manifests"

_HEADING = "# Written by `make compile`: change components/common/images.py or the pipelines instead.\n"
_OBJECT_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")


def write_manifests(folder: Path, compiled: Path = COMPILED) -> list[Path]:
    """The files written below `folder`, always the same bytes for the same source.

    `components/release` gives the manifests' images their registry and tag, and `components/pipelines` holds each
    compiled pipeline as a Pipeline and a PipelineVersion.

    Args:
        folder: the folder of the manifests.
        compiled: the folder of the compiled pipelines.

    Raises:
        ConfigError: when the version cannot be part of a Kubernetes object's name.
    """
    pipelines = {f"{file.stem.replace('_', '-')}.yaml": _pipeline(file) for file in sorted(compiled.glob("*.yaml"))}
    written = {
        folder / "components" / "release" / "kustomization.yaml": [_release()],
        folder / "components" / "pipelines" / "kustomization.yaml": [_component(resources=sorted(pipelines))],
        **{folder / "components" / "pipelines" / name: objects for name, objects in pipelines.items()},
    }
    for file, documents in written.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(_HEADING + to_yaml(documents), encoding="utf-8")
    return list(written)


def _component(**fields: Any) -> dict[str, Any]:
    return {"apiVersion": "kustomize.config.k8s.io/v1alpha1", "kind": "Component", **fields}


def _release() -> dict[str, Any]:
    """The kustomize component that turns an image's plain name into the release's reference."""
    references = {name: image(name).rpartition(":") for name in IMAGE_NAMES}
    images = [{"name": name, "newName": new, "newTag": tag} for name, (new, _, tag) in references.items()]
    return _component(images=images, labels=[{"pairs": {"app.kubernetes.io/version": VERSION}}])


def _pipeline(compiled: Path) -> list[dict[str, Any]]:
    """The Pipeline and the PipelineVersion that hold a compiled pipeline, its platform section included.

    Kubeflow Pipelines refuses another specification under the name of a version, so each release has its own.

    Raises:
        ConfigError: when the version cannot be part of an object's name.
    """
    specification, *platform = yaml.safe_load_all(compiled.read_text(encoding="utf-8"))
    name, description = specification["pipelineInfo"]["name"], compiled.with_suffix(".md").read_text(encoding="utf-8")
    version = f"{name}-{VERSION}"
    if not _OBJECT_NAME.fullmatch(version):
        raise ConfigError(
            f"VERSION: found {VERSION!r}, expected lower-case letters, digits, '-' and '.': it is part of the name of"
            " a Kubernetes object"
        )
    spec = {"displayName": VERSION, "description": description, "pipelineName": name, "pipelineSpec": specification}
    if platform:
        spec["platformSpec"] = platform[0]
    return [
        _object("Pipeline", name, {"displayName": name, "description": description}),
        _object("PipelineVersion", version, spec),
    ]


def _object(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": "textual-inversion", "app.kubernetes.io/version": VERSION}
    metadata = {"name": name, "namespace": "textual-inversion", "labels": labels}
    return {"apiVersion": "pipelines.kubeflow.org/v2beta1", "kind": kind, "metadata": metadata, "spec": spec}


def main() -> None:
    """Parses the flags and writes."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.manifests", description=__doc__)
    parser.add_argument("--out", type=Path, default=MANIFESTS, help="folder of the manifests")
    parser.add_argument("--compiled", type=Path, default=COMPILED, help="folder of the compiled pipelines")
    arguments = parser.parse_args()
    for file in write_manifests(arguments.out, arguments.compiled):
        print(os.path.relpath(file))


if __name__ == "__main__":
    main()
