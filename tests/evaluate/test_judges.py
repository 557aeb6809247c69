"""One evaluation with everything that is off by default: DINO, the safety checker, a sampler, half precision."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from components.common.artifacts import Evaluation
from components.common.base_model import read_reference
from components.common.errors import ArtifactError, BaseModelError
from components.evaluate.config import EvaluateConfig
from components.evaluate.drawing.blurring import blurred
from components.evaluate.drawing.torch_painter import TorchPainter
from components.evaluate.evaluation import evaluate, metrics_of
from components.import_base_model.config import ImportConfig
from components.import_base_model.importing import import_base_model, import_models
from components.torch_models.safety_checker import SafetyChecker
from tests.evaluate.conftest import Concept, World, write_concept
from tests.evaluate.contents import image_set, pattern
from tests.tiny_models import add_tiny_safety_checker, make_tiny_dino, with_vae_that_overflows

SPRITES = Path(__file__).parents[2] / "examples" / "sprites"
CPU = torch.device("cpu")
ALL = EvaluateConfig(
    prompts=("a photo of a {}", "a {} on the snow"),
    images_per_prompt=2,
    num_inference_steps=2,
    guidance_scale=1.0,
    sampler="euler",
    sampling_precision="fp16",
    safety_checker="on",
    min_clip_i_gain=-1.0,
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The tiny world with a safety checker that objects to everything, and a DINO model beside the scorer."""
    folder = tmp_path_factory.mktemp("world")
    shutil.copytree(SPRITES / "base_model", folder / "model")
    model = add_tiny_safety_checker(with_vae_that_overflows(folder / "model"), threshold=-2.0)
    import_base_model(str(model), str(folder / "store"), folder / "base_model")
    judges = ImportConfig(
        source=str(SPRITES / "clip"),
        store_uri=str(folder / "store"),
        kind="clip",
        dino=str(make_tiny_dino(folder / "dino")),
        safety_checker=str(model),
    )
    import_models(judges, folder / "scorer")
    image_set(3).write(folder / "scoring_set")
    return World(
        base_model=folder / "base_model", scorer=folder / "scorer", scoring_set=folder / "scoring_set", model=model
    )


@pytest.fixture(scope="module")
def concept(world: World, tmp_path_factory: pytest.TempPathFactory) -> Concept:
    return write_concept(world, tmp_path_factory.mktemp("concept"), moved=0.1, initializer="circle")


def run(world: World, concept: Concept, output: Path, config: EvaluateConfig = ALL, **changes: Path) -> Evaluation:
    folders = {"scorer": world.scorer, "training_set": world.scoring_set, **changes}
    return evaluate(
        config,
        base_model=world.base_model,
        scoring_set=world.scoring_set,
        initial_embedding=concept.initial_embedding,
        learned_embedding=concept.learned_embedding,
        accelerator="cpu",
        output=output,
        **folders,
    )


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers 0.42 with Euler
def test_evaluation_with_everything(
    world: World, concept: Concept, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(world, concept, tmp_path / "out")
    found = Evaluation.read(tmp_path / "out")
    assert found.passed, found.reasons

    assert "9 of 9 pictures are blank in float16: all are drawn once more, in float32" in caplog.text
    assert found.settings["first_drawn_in"] == "float16, in which 9 of 9 pictures were blank"
    assert (found.settings["precision"], found.settings["scheduler"]) == ("float32", "EulerDiscreteScheduler")
    assert "They were drawn in float32 after a first try in float16" in found.report_html

    assert set(found.scores["after"]) == {
        "clip_i", "clip_t", "dino", "adherence", "diversity", "memorised", "flagged"
    }  # fmt: skip
    metrics = metrics_of(found)
    assert metrics["flagged_after"] == 1 and metrics["flagged_gain"] == 0
    assert metrics["dino_real"] == found.scores["real"]["dino"]
    assert set(found.settings["intervals"]["gain"]) == set(found.scores["after"])
    by_prompt = list(found.settings["by_prompt"].values())
    assert [each["prompt"] for each in by_prompt] == list(ALL.prompts)
    assert np.mean([each["scores"]["after"]["dino"] for each in by_prompt]) == pytest.approx(metrics["dino_after"])
    for told in ("Prompt by prompt", "Nearest to the training pictures", "Likeness in detail (DINO)", "Diversity"):
        assert told in found.report_html, told

    assert found.settings["flagged_samples"] == {"before": 4, "after": 4}
    assert "objects to 4 of 4 samples of the learned word" in found.report_html
    painter = TorchPainter(world.model, device=CPU, sampler="euler")
    painter.load_concept(concept.learned_embedding / "learned_embeds.safetensors")
    after = [sample for sample in found.samples if sample.variant == "after"]
    drawn = painter.draw([sample.prompt for sample in after], [sample.seed for sample in after], ALL, label="")
    for sample, pixels in zip(after, drawn, strict=True):
        np.testing.assert_array_equal(sample.pixels, blurred(pixels))
        assert sample.pixels.std() < pixels.std()


def test_safety_checker_that_was_not_imported_is_asked_for(world: World, concept: Concept, tmp_path: Path) -> None:
    import_base_model(str(SPRITES / "clip"), str(tmp_path / "store"), tmp_path / "scorer", kind="clip")
    with pytest.raises(BaseModelError, match="imported without a safety checker, expected one"):
        run(world, concept, tmp_path / "out", scorer=tmp_path / "scorer")


def test_training_set_of_another_concept_is_refused(world: World, concept: Concept, tmp_path: Path) -> None:
    image_set(4).write(tmp_path / "other")
    with pytest.raises(ArtifactError, match=r"was trained on the pictures .*, found the training set .*: pass the one"):
        run(world, concept, tmp_path / "out", training_set=tmp_path / "other")


def test_what_looks_at_samples_is_no_part_of_the_scorer_itself(world: World) -> None:
    whole = read_reference(world.scorer)
    assert whole.subfolders == ("dino", "feature_extractor", "safety_checker")
    alone = whole.without_subfolders
    assert not alone.subfolders and "model.safetensors" in alone.files
    assert "dino/model.safetensors" in whole.files and "safety_checker/model.safetensors" in whole.files


def test_safety_checker_objects_to_what_is_near_to_its_concepts(world: World, tmp_path: Path) -> None:
    pictures = [pattern(seed) for seed in range(6)]
    shutil.copytree(world.model, tmp_path / "model")
    add_tiny_safety_checker(tmp_path / "model", threshold=0.999999)
    checker = SafetyChecker(tmp_path / "model", device=CPU)
    assert not checker.objects_to(pictures).any()
    inner, processor = checker._checker, checker._processor
    pixels = processor(images=[pictures[4]], return_tensors="pt").pixel_values
    inner.concept_embeds.data[3] = inner.visual_projection(inner.vision_model(pixels)[1])[0]
    inner.concept_embeds_weights.data[3] = 0.9989  # differences are rounded to .001
    before = [picture.copy() for picture in pictures]
    assert checker.objects_to(pictures).tolist() == [False, False, False, False, True, False]
    np.testing.assert_array_equal(pictures, before)


def test_safety_checker_without_its_weights_is_refused(world: World, tmp_path: Path) -> None:
    shutil.copytree(world.model / "safety_checker", tmp_path / "safety_checker")
    weights = load_file(tmp_path / "safety_checker" / "model.safetensors")
    del weights["concept_embeds"]
    save_file(weights, tmp_path / "safety_checker" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BaseModelError, match=r"1 missing: concept_embeds.*evaluate with safety_checker off"):
        SafetyChecker(tmp_path, device=CPU)
