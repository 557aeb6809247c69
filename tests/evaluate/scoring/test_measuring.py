"""Every score equals what is computed in another way, from the outputs of transformers' own models."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import cosine_similarity
from transformers import BitImageProcessorPil, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer, Dinov2Model

from components.common.artifacts import Sample
from components.evaluate.scoring.by_prompt import scores_by_prompt
from components.evaluate.scoring.diversity import diversity
from components.evaluate.scoring.measuring import Judges, Measured, measure
from components.evaluate.scoring.scores import VariantScores, estimate, summarize
from components.torch_models.clip_scorer import ClipScorer
from components.torch_models.dino_scorer import DinoScorer
from tests.evaluate.contents import pattern
from tests.tiny_models import make_tiny_dino

CLIP = Path(__file__).parents[3] / "examples" / "sprites" / "clip"
CPU = torch.device("cpu")
PROMPTS, EACH = ("a photo of a {}", "a {} on the snow"), 3
SCORING, TRAINING = [pattern(100 + n) for n in range(3)], [pattern(200 + n) for n in range(4)]
DRAWN = {
    "before": [pattern(n) for n in range(6)],
    # The second is a training picture, the fifth the same a little darker.
    "after": [pattern(50), TRAINING[2], *[pattern(n) for n in (52, 53)], TRAINING[2] - TRAINING[2] // 50, pattern(55)],
}


def texts(word: str) -> list[str]:
    return [prompt.replace("{}", word) for prompt in PROMPTS for _ in range(EACH)]


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_dino(tmp_path_factory.mktemp("models") / "dino")


@pytest.fixture(scope="module")
def measured(dino: Path) -> Measured:
    judges = Judges(clip=ClipScorer(CLIP, device=CPU), dino=DinoScorer(dino, device=CPU), safety_checker=None)
    samples = {
        variant: [Sample(variant=variant, prompt="", seed=seed, pixels=pixels) for seed, pixels in enumerate(drawn)]
        for variant, drawn in DRAWN.items()
    }
    return measure(
        judges,
        samples,
        texts=texts("star"),
        initializer_texts=texts("circle"),
        per_prompt=EACH,
        scoring_pictures=SCORING,
        training_pictures=TRAINING,
    )


class Reference:
    """The two models by transformers alone, one picture and text at a time."""

    def __init__(self, dino: Path) -> None:
        self._known: dict[tuple[bytes, str], tuple[torch.Tensor, torch.Tensor]] = {}
        self._clip, self._dino = CLIPModel.from_pretrained(CLIP, dtype=torch.float32), Dinov2Model.from_pretrained(dino)
        self._tokenizer = CLIPTokenizer.from_pretrained(CLIP)
        self._for_clip = CLIPImageProcessorPil.from_pretrained(CLIP)
        self._for_dino = BitImageProcessorPil.from_pretrained(dino)

    @torch.no_grad()
    def clip(self, picture: np.ndarray, text: str = "circle") -> tuple[torch.Tensor, torch.Tensor]:
        key = picture.tobytes(), text
        if key not in self._known:
            pixels = self._for_clip(images=[Image.fromarray(picture)], return_tensors="pt")
            output = self._clip(**self._tokenizer([text], return_tensors="pt"), **pixels)
            self._known[key] = output.image_embeds[0], output.text_embeds[0]
        return self._known[key]

    @torch.no_grad()
    def dino(self, picture: np.ndarray) -> torch.Tensor:
        return self._dino(**self._for_dino(images=[Image.fromarray(picture)], return_tensors="pt")).pooler_output[0]

    def pictures_alike(self, one: np.ndarray, other: np.ndarray) -> float:
        return float(cosine_similarity(self.clip(one)[0], self.clip(other)[0], dim=0))


@pytest.fixture(scope="module")
def reference(dino: Path) -> Reference:
    return Reference(dino)


@pytest.mark.parametrize("variant", DRAWN)
def test_scores_equal_an_independent_computation(measured: Measured, reference: Reference, variant: str) -> None:
    found = {metric: values.mean() for metric, values in measured.by_sample[variant].by_metric().items()}
    drawn, alike = DRAWN[variant], reference.pictures_alike
    of_prompts = [drawn[start : start + EACH] for start in range(0, len(drawn), EACH)]
    expected = {
        "clip_i": np.mean([alike(a, b) for a in drawn for b in SCORING]),
        "dino": np.mean(
            [float(cosine_similarity(reference.dino(a), reference.dino(b), dim=0)) for a in drawn for b in SCORING]
        ),
        "diversity": np.mean(
            [np.mean([1 - alike(a, b) for a, b in itertools.combinations(group, 2)]) for group in of_prompts]
        ),
    }
    for metric, word in (("clip_t", "star"), ("adherence", "circle")):
        pairs = [reference.clip(a, text) for a, text in zip(drawn, texts(word), strict=True)]
        expected[metric] = np.mean([float(cosine_similarity(*pair, dim=0)) for pair in pairs])
    assert {metric: found[metric] for metric in expected} == pytest.approx(expected, abs=1e-4)


def test_copies_of_training_pictures_are_found_and_nothing_else(measured: Measured, reference: Reference) -> None:
    alike = reference.pictures_alike
    brighter = [np.minimum(picture * 1.1, 255).astype(np.uint8) for picture in TRAINING]
    inner = [Image.fromarray(picture).crop((2, 2, 30, 30)).resize((32, 32), Image.BICUBIC) for picture in TRAINING]
    edits = [[p[:, ::-1].copy() for p in TRAINING], brighter, [np.asarray(each) for each in inner]]
    least = min(alike(picture, edit) for edited in edits for picture, edit in zip(TRAINING, edited, strict=True))
    pairs = [*itertools.combinations(TRAINING, 2), *itertools.product(SCORING, TRAINING)]
    threshold = max([least, *(alike(a, b) for a, b in pairs)])

    nearest = measured.nearest["after"]
    assert nearest.threshold == pytest.approx(threshold, abs=1e-4)
    cosines = [[alike(sample, picture) for picture in TRAINING] for sample in DRAWN["after"]]
    np.testing.assert_allclose(nearest.cosine, np.max(cosines, axis=1), atol=1e-4)
    np.testing.assert_array_equal(nearest.picture, np.argmax(cosines, axis=1))
    assert measured.by_sample["after"].by_metric()["memorised"].tolist() == [0, 1, 0, 0, 1, 0]
    assert nearest.first(2) == [1, 4]
    assert measured.by_sample["before"].by_metric()["memorised"].sum() == 0


def test_real_pictures_are_held_against_each_other_by_dino_too(measured: Measured, reference: Reference) -> None:
    pairs = [(reference.dino(a), reference.dino(b)) for a, b in itertools.combinations(SCORING, 2)]
    expected = np.mean([float(cosine_similarity(*pair, dim=0)) for pair in pairs])
    found = measured.by_sample["real"].by_metric()
    assert found["dino"].mean() == pytest.approx(expected, abs=1e-4)
    assert set(found) == {"clip_i", "clip_t", "dino"}


def test_scores_of_each_prompt_average_to_those_of_all(measured: Measured) -> None:
    whole = summarize(measured.by_sample)
    found = scores_by_prompt(PROMPTS, measured.by_sample, EACH)
    assert [each.prompt for each in found] == list(PROMPTS)
    for metric, gain in whole.gain.items():
        assert np.mean([each.scores.gain[metric].value for each in found]) == pytest.approx(gain.value)
        values = [each.scores.variants["after"][metric].value for each in found]
        assert np.mean(values) == pytest.approx(whole.variants["after"][metric].value)
    first, second = (each.scores.variants["after"]["memorised"] for each in found)
    assert (first.value, second.value) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert 0 <= first.low < first.value < first.high <= 1
    assert found[0].content()["intervals"]["gain"].keys() == whole.gain.keys()
    assert "real" not in found[0].scores.variants


def test_interval_of_diversity_is_as_wide_as_other_seeds_make_it() -> None:
    """Half as wide where every sample counts with its mean distance to the others alone."""
    rng = np.random.default_rng(0)

    def drawn() -> np.ndarray:
        values = rng.normal(size=(24, 3)) + np.array([3, 0, 0])
        found = diversity(values / np.linalg.norm(values, axis=1, keepdims=True), 24)
        assert found is not None
        return found

    spread = np.std([drawn().mean() for _ in range(200)])
    widths = [found.high - found.low for found in (estimate(drawn()) for _ in range(20))]
    assert np.mean(widths) == pytest.approx(2 * 1.96 * spread, rel=0.25)


def test_what_cannot_be_told_is_left_out() -> None:
    samples = [Sample(variant="after", prompt="", seed=0, pixels=pattern(0))]
    judges = Judges(clip=ClipScorer(CLIP, device=CPU), dino=None, safety_checker=None)
    found = measure(
        judges, {"after": samples}, texts=["a"], initializer_texts=["a"], per_prompt=1, scoring_pictures=SCORING[:1]
    )
    assert set(found.by_sample) == {"after"} and not found.nearest
    assert set(found.by_sample["after"].by_metric()) == {"clip_i", "clip_t", "adherence"}


def test_part_of_the_scores_has_every_score() -> None:
    whole = VariantScores(clip_i=np.arange(4.0), clip_t=np.arange(4.0) * 2, flagged=np.array([0.0, 1, 0, 1]))
    part = whole.part(slice(1, 3)).by_metric()
    assert {metric: values.tolist() for metric, values in part.items()} == {
        "clip_i": [1, 2], "clip_t": [2, 4], "flagged": [1, 0]
    }  # fmt: skip
