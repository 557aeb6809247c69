"""Images and versions stand in one place; what is generated from it is up to date."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from components.common import images as names
from components.common.errors import ConfigError
from components.common.images import IMAGE_NAMES, image
from pipelines import manifests
from pipelines.compiling import COMPILED
from pipelines.manifests import write_manifests
from tests.manifests.rendering import MANIFESTS, Object, as_text, find, images, read_objects, render_with

GENERATED = ("components/release", "components/pipelines")
REQUEST_LIMIT = 1_500_000
"""Bytes that etcd takes in one request, unless it is told otherwise."""


def test_generated_files_are_those_of_the_source(tmp_path: Path):
    written = {file.relative_to(tmp_path): file.read_bytes() for file in write_manifests(tmp_path)}
    committed = [file for folder in GENERATED for file in (MANIFESTS / folder).iterdir()]
    assert {file.relative_to(MANIFESTS): file.read_bytes() for file in committed} == written


def test_compiled_pipelines_use_images_of_this_release_alone():
    for file in COMPILED.glob("*.yaml"):
        found = {reference for document in documents(file) for _, reference in images(document)}
        assert found and found <= {image(name) for name in IMAGE_NAMES}, file.name


def test_registry_stands_in_generated_files_alone():
    generated = [MANIFESTS / folder for folder in GENERATED]
    written = [file for file in MANIFESTS.rglob("*.yaml") if file.parent not in generated]
    assert len(written) > 20
    for file in written:
        assert names.REGISTRY not in file.read_text(encoding="utf-8"), file


def test_another_registry_and_version_reach_every_image(tmp_path: Path):
    environment = {
        **os.environ,
        "TEXTUAL_INVERSION_REGISTRY": "registry.example/team",
        "TEXTUAL_INVERSION_VERSION": "1.2.3-rc.4",
    }
    compiled, folder = tmp_path / "compiled", tmp_path / "manifests"
    shutil.copytree(MANIFESTS, folder)
    for command in (
        ["pipelines.cli", "compile", "--out", str(compiled)],
        ["pipelines.manifests", "--compiled", str(compiled), "--out", str(folder)],
    ):
        subprocess.run([sys.executable, "-m", *command], env=environment, check=True, capture_output=True)
    objects = render_with(tmp_path / "manifests" / "all", "overlays/on-prem", ["pipelines"])
    expected = {f"registry.example/team/{name}:1.2.3-rc.4" for name in IMAGE_NAMES}
    found = {reference for each in objects for _, reference in images(each)}
    assert {f"registry.example/team/{name}:1.2.3-rc.4" for name in ("train-flax", "dataset")} <= found <= expected
    [version] = find(objects, "PipelineVersion", "textual-inversion-1.2.3-rc.4")
    assert version["metadata"]["labels"]["app.kubernetes.io/version"] == "1.2.3-rc.4"


def test_version_that_no_object_can_be_named_by_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(manifests, "VERSION", "Release_1")
    with pytest.raises(ConfigError, match="VERSION: found 'Release_1', expected lower-case letters"):
        write_manifests(tmp_path)


def test_pipeline_version_holds_the_compiled_pipeline(everything: list[Object]):
    compiled = {documents(file)[0]["pipelineInfo"]["name"]: documents(file) for file in COMPILED.glob("*.yaml")}
    versions = find(everything, "PipelineVersion")
    assert sorted(compiled) == sorted(version["spec"]["pipelineName"] for version in versions)
    for version in versions:
        spec = version["spec"]
        assert [spec["pipelineSpec"], spec["platformSpec"]] == compiled[spec["pipelineName"]]
        assert len(as_text(version)) < REQUEST_LIMIT


def documents(file: Path) -> list[Object]:
    return read_objects(file.read_text(encoding="utf-8"))
