"""Every score of every sample: the samples in the eyes of CLIP, of DINO and of a safety checker."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from components.common.artifacts import Sample
from components.common.base_model import ModelReference, materialize
from components.common.errors import BaseModelError
from components.evaluate.scoring.diversity import diversity
from components.evaluate.scoring.memorisation import (
    Nearest,
    copy_threshold,
    light_edits,
    nearest_training_pictures,
)
from components.evaluate.scoring.scores import (
    VariantScores,
    mean_cosines,
    mean_cosines_with_others,
    own_cosines,
    score_samples,
    score_scoring_pictures,
)
from components.torch_models.clip_scorer import ClipScorer
from components.torch_models.dino_scorer import DinoScorer
from components.torch_models.safety_checker import SafetyChecker


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judges:
    """The models that look at samples; None for those that were not asked for."""

    clip: ClipScorer
    dino: DinoScorer | None
    safety_checker: SafetyChecker | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """What the judges found.

    Attributes:
        by_sample: the scores of each sample, by variant, and of the scoring pictures as `real`.
        nearest: the training pictures nearest to the samples of each variant; empty without training pictures.
    """

    by_sample: Mapping[str, VariantScores]
    nearest: Mapping[str, Nearest]


def load_judges(scorer: ModelReference, *, check_safety: bool, device: torch.device) -> Judges:
    """The models that the scorer's reference holds.

    Raises:
        BaseModelError: when one cannot be loaded, or `check_safety` asks for a safety checker and there is none.
    """
    if check_safety and "safety_checker" not in scorer.subfolders:
        raise BaseModelError(
            f"the scorer {scorer.source} was imported without a safety checker, expected one since safety_checker is "
            "on: import the scorer with --safety-checker and the base model's address"
        )
    folder = materialize(scorer)
    return Judges(
        clip=ClipScorer(folder, device=device),
        dino=DinoScorer(folder / "dino", device=device) if "dino" in scorer.subfolders else None,
        safety_checker=SafetyChecker(folder, device=device) if check_safety else None,
    )


def measure(
    judges: Judges,
    variants: Mapping[str, Sequence[Sample]],
    *,
    texts: Sequence[str],
    initializer_texts: Sequence[str],
    per_prompt: int,
    scoring_pictures: Sequence[np.ndarray],
    training_pictures: Sequence[np.ndarray] = (),
) -> Measured:
    """The scores of each sample; see `scores.py` for what they are.

    Args:
        judges: from `load_judges`.
        variants: the samples, prompt by prompt, in the same order for each variant.
        texts: for each sample of a variant the text that describes it.
        initializer_texts: the same with the initializer token in the placeholder's place.
        per_prompt: samples of each prompt.
        scoring_pictures: the concept's pictures, uint8 [H, W, 3] each.
        training_pictures: those that were trained on, alike; without any nothing is said of memorisation.
    """
    clip, dino = judges.clip, judges.dino
    pictures = clip.embed_pictures(scoring_pictures)
    described, initial = clip.embed_texts(texts), clip.embed_texts(initializer_texts)
    real = score_scoring_pictures(pictures, described[0])
    seen_by_dino = dino.embed_pictures(scoring_pictures) if dino else None
    training = None if not training_pictures else clip.embed_pictures(training_pictures)
    threshold = 1.0
    if training is not None:
        edits = [clip.embed_pictures(light_edits(picture)) for picture in training_pictures]
        trained_on = {picture.tobytes() for picture in training_pictures}
        is_other = [picture.tobytes() not in trained_on for picture in scoring_pictures]
        threshold = copy_threshold(training, edits, pictures[np.array(is_other)])
    by_sample, nearest = dict[str, VariantScores](), dict[str, Nearest]()
    for variant, samples in variants.items():
        drawn = [sample.pixels for sample in samples]
        embedded = clip.embed_pictures(drawn)
        if training is not None:
            nearest[variant] = nearest_training_pictures(embedded, training, threshold)
        flagged = judges.safety_checker.objects_to(drawn) if judges.safety_checker else None
        by_sample[variant] = dataclasses.replace(
            score_samples(embedded, described, pictures),
            dino=mean_cosines(dino.embed_pictures(drawn), seen_by_dino) if dino and seen_by_dino is not None else None,
            adherence=own_cosines(embedded, initial),
            diversity=diversity(embedded, per_prompt),
            memorised=nearest[variant].memorised if variant in nearest else None,
            flagged=None if flagged is None else flagged.astype(np.float64),
        )
    if real is not None:
        likeness = None if seen_by_dino is None else mean_cosines_with_others(seen_by_dino)
        by_sample["real"] = dataclasses.replace(real, dino=likeness)
    return Measured(by_sample=by_sample, nearest=nearest)
