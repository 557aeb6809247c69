"""What is imported beside a scorer: a DINO model and the safety checker of a base model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from components.common.base_model import materialize, read_reference
from components.common.errors import BaseModelError, ConfigError
from components.import_base_model.config import ImportConfig
from components.import_base_model.importing import import_base_model, import_models
from tests.model_folders import make_clip_folder, make_diffusion_folder, write_json, write_weights


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """The folders `clip`, `dino` and `sd`, whose safety checker is the one of `fp16` too."""
    make_clip_folder(tmp_path / "clip")
    write_json(tmp_path / "dino" / "config.json", {"model_type": "dinov2"})
    write_json(tmp_path / "dino" / "preprocessor_config.json", {"do_resize": True})
    write_weights(tmp_path / "dino" / "model.safetensors", seed="dino")
    checker = make_diffusion_folder(tmp_path / "sd") / "safety_checker"
    write_json(checker / "config.json", {"model_type": "clip"})
    write_weights(checker / "model.safetensors", seed="plain")
    write_weights(checker / "model.fp16.safetensors", seed="fp16")
    write_json(tmp_path / "sd" / "feature_extractor" / "preprocessor_config.json", {"do_resize": True})
    return tmp_path


def config(sources: Path, **changes: str) -> ImportConfig:
    return ImportConfig(source=str(sources / "clip"), store_uri=str(sources / "store"), kind="clip", **changes)


def test_everything_lies_in_one_reference_each_in_its_subfolder(sources: Path) -> None:
    dino, model = str(sources / "dino"), str(sources / "sd")
    found = import_models(
        config(sources, dino=dino, safety_checker=model, safety_checker_variant="fp16"), sources / "reference"
    )
    assert read_reference(sources / "reference") == found
    assert found.subfolders == ("dino", "feature_extractor", "safety_checker")
    folder = materialize(found, cache_dir=sources / "cache")
    for name, source in (
        ("model.safetensors", "clip/model.safetensors"),
        ("dino/model.safetensors", "dino/model.safetensors"),
        ("safety_checker/model.safetensors", "sd/safety_checker/model.fp16.safetensors"),
        ("feature_extractor/preprocessor_config.json", "sd/feature_extractor/preprocessor_config.json"),
    ):
        assert (folder / name).read_bytes() == (sources / source).read_bytes(), name
    alone = import_base_model(str(sources / "clip"), str(sources / "store"), sources / "alone", kind="clip")
    assert found.without_subfolders == alone


def test_nothing_is_beside_a_scorer_that_nobody_asked_for(sources: Path) -> None:
    found = import_models(config(sources), sources / "reference")
    assert found.subfolders == () and read_reference(sources / "reference") == found


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ("dino/preprocessor_config.json", "preprocessor_config.json is missing"),
        ("dino/model.safetensors", "model.safetensors is missing"),
        ("sd/safety_checker", "it has no safety checker"),
        ("sd/safety_checker/config.json", "safety_checker/config.json is missing"),
        ("sd/feature_extractor/preprocessor_config.json", "feature_extractor/preprocessor_config.json is missing"),
    ],
)
def test_what_is_missing_is_told(sources: Path, missing: str, told: str) -> None:
    path = sources / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(BaseModelError, match=told):
        import_models(config(sources, dino=str(sources / "dino"), safety_checker=str(sources / "sd")), sources / "out")


@pytest.mark.parametrize("model_type", ["clip", None, ["dinov2"]])
def test_model_that_is_no_dino_is_refused(sources: Path, model_type: object) -> None:
    write_json(sources / "dino" / "config.json", {"model_type": model_type})
    with pytest.raises(BaseModelError, match=r"config.json is of a .*, expected dinov2 or vit: choose a DINO"):
        import_models(config(sources, dino=str(sources / "dino")), sources / "out")


def test_only_a_scorer_has_something_beside_it(sources: Path) -> None:
    with pytest.raises(ConfigError, match=r"dino: found 'x' with kind diffusion, expected it with kind clip"):
        ImportConfig(source="x", store_uri="x", dino="x")
