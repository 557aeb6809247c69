"""What the report's template is filled with, from what was drawn and measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from components.common.artifacts import LEARNED_EMBEDS, ImageSet, LearnedEmbedding, Sample
from components.common.base_model import ModelReference
from components.common.champion import SETTING, Judged
from components.common.pages.pictures import EmbeddedPicture
from components.common.prompts import trigger_word
from components.common.start_word import StartWord
from components.common.usage import usage_script
from components.evaluate.config import EvaluateOptions
from components.evaluate.drawing.samples import DrawnSamples
from components.evaluate.report.charts import curve_chart, loss_chart, norm_scale
from components.evaluate.report.score_cards import nearest_pairs, prompt_table, score_tables
from components.evaluate.report.training import chosen_options, fixed_batch_chart, rate_chart
from components.evaluate.scoring.by_prompt import PromptScores
from components.evaluate.scoring.gate import LARGE_NORM_RATIO, Check
from components.evaluate.scoring.health import EncoderHealth
from components.evaluate.scoring.held_out import HeldOutLosses
from components.evaluate.scoring.memorisation import Nearest
from components.evaluate.scoring.scores import METRICS, Scores, VariantScores

_STORY_COLUMNS = (4, 6)
_MAX_SHOWN_SEEDS = 8
_MAX_SHOWN_PROMPTS = 24
_MAX_SHOWN_PICTURES = 24

Embed = Callable[[np.ndarray, str], EmbeddedPicture]
"""Makes a picture, uint8 [H, W, 3], and its text part of the page."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportContent:
    """All that the report tells.

    Attributes:
        config: how the samples were drawn and judged.
        learned: the embedding.
        reference: the base model.
        scoring_set: the concept's pictures that the samples were held against.
        drawn: the samples.
        held_out: the held-out loss, snapshot by snapshot.
        by_sample: the scores of each sample, by variant.
        scores: their means.
        checks: what the gate looked at.
        health: the rows beside the vocabulary.
        settings: as in the `Evaluation`.
        start_word: how well words explained the pictures before training, where that was measured.
        judged: the champion that it was held against, where somebody looked for one.
        by_prompt: the means prompt by prompt.
        nearest: the training pictures nearest to the samples of each variant, where they are there.
        training_set: the pictures that were trained on, where they are there.
    """

    config: EvaluateOptions
    learned: LearnedEmbedding
    reference: ModelReference
    scoring_set: ImageSet
    drawn: DrawnSamples
    held_out: HeldOutLosses
    by_sample: Mapping[str, VariantScores]
    scores: Scores
    checks: Sequence[Check]
    health: Sequence[EncoderHealth]
    settings: Mapping[str, Any]
    start_word: StartWord | None = None
    judged: Judged | None = None
    by_prompt: Sequence[PromptScores] = ()
    nearest: Mapping[str, Nearest] = dataclasses.field(default_factory=dict)
    training_set: ImageSet | None = None

    @property
    def base_model(self) -> str:
        """The base model's name: a Hub repository, or an address."""
        return self.reference.hub_repository or self.reference.source

    @property
    def passed(self) -> bool:
        """Whether every check is accepted."""
        return all(check.passed for check in self.checks)

    @property
    def labels(self) -> dict[str, tuple[str, str]]:
        """What a person calls each variant, and what it was made from."""
        return {
            "before": ("before", self.learned.origin),
            "after": ("after", self.learned.placeholder_token),
            "champion": ("champion", f"version {self.judged.version}" if self.judged else ""),
            "true_caption": ("true caption", f"“{self.config.reference_prompt}”"),
            "real": ("real pictures", "the concept's own"),
        }


def report_view(content: ReportContent, picture: Embed) -> dict[str, Any]:
    """The template's variables; `picture` decides how pictures are stored."""
    learned = content.learned
    columns = min(max(len(content.scoring_set.pixels), _STORY_COLUMNS[0]), _STORY_COLUMNS[1])
    return {
        "content": content,
        "learned": learned,
        "base_model_name": _short_name(content.base_model),
        "title": f"{learned.placeholder_token}: evaluation report",
        "concept": _concept_pictures(content, picture),
        "is_scored_on_training_pictures": _is_scored_on_training_pictures(content),
        "columns": columns,
        "story": _story(content, columns, picture),
        "prompts": _prompts(content, picture),
        "left_out": _left_out(content),
        "progress": [
            (step, picture(found.pixels, f"after {step} steps, {found.prompt}, seed {found.seed}"))
            for step, found in content.drawn.progress
        ],
        "start": content.start_word and _start_words(content.start_word),
        "loss": loss_chart(learned.losses),
        "rate": rate_chart(learned),
        "fixed_batch": fixed_batch_chart(learned),
        "held_out": curve_chart(content.held_out.by_step, content.held_out.true_caption),
        "chosen": chosen_options(learned, content.settings),
        "tables": _score_tables(content),
        "by_prompt": prompt_table(content.by_prompt[:_MAX_SHOWN_PROMPTS]),
        "nearest": nearest_pairs(content.nearest, content.drawn.variants["after"], content.training_set, picture),
        "norm_is_large": content.settings["norm_ratio"] >= LARGE_NORM_RATIO,
        "rulers": [(encoder, norm_scale(encoder)) for encoder in content.health if encoder.rows],
        "usage": _usage(content),
        "parameters": {
            "Training": dict(learned.config),
            "Sampling and scoring": _plain_settings(content.settings),
        },
        "lineage": _lineage(content),
    }


def _start_words(start: StartWord) -> list[tuple[str, float, float]]:
    """What to begin with, its loss, and the length of its bar in percent; no word at all is the last."""
    losses = {f"“{word}”": loss for word, loss in (start.best or {start.word: start.loss}).items()}
    losses["no word at all"] = start.no_word_loss
    return [(word, loss, 100 * loss / max(losses.values())) for word, loss in losses.items()]


def _concept_pictures(content: ReportContent, picture: Embed) -> list[EmbeddedPicture]:
    shown = list(zip(content.scoring_set.pixels, content.scoring_set.pictures, strict=True))
    return [picture(pixels, f"picture of the concept: {entry.source}") for pixels, entry in shown][:_MAX_SHOWN_PICTURES]


def _short_name(base_model: str) -> str:
    """`owner/name` of the Hub as it is, and the last two parts of any other address."""
    return "/".join(base_model.rstrip("/").split("/")[-2:])


def _is_scored_on_training_pictures(content: ReportContent) -> bool:
    return content.learned.lineage.get("image_set_digest") == content.scoring_set.digest


def _story(content: ReportContent, columns: int, picture: Embed) -> list[EmbeddedPicture]:
    """One row of samples, of every prompt in turn."""
    after, each = content.drawn.variants["after"], content.config.images_per_prompt
    in_turn = [after[i] for seed in range(each) for i in range(seed, len(after), each)]
    return [picture(found.pixels, _alt(found)) for found in in_turn[:columns]]


def _prompts(content: ReportContent, picture: Embed) -> list[dict[str, Any]]:
    """For each prompt its rows, one a variant: label, pictures of the shared seeds, and the row's own scores."""
    each = content.config.images_per_prompt
    prompts = content.config.prompts_for(content.learned.learnable_property)[:_MAX_SHOWN_PROMPTS]
    shown = []
    for number, prompt in enumerate(prompts):
        part = slice(number * each, (number + 1) * each)
        rows = [
            {
                "variant": variant,
                "label": content.labels[variant],
                "pictures": [picture(s.pixels, _alt(s)) for s in samples[part][:_MAX_SHOWN_SEEDS]],
                "scores": {m: float(getattr(content.by_sample[variant], m)[part].mean()) for m in METRICS},
            }
            for variant, samples in content.drawn.variants.items()
        ]
        seeds = [s.seed for s in content.drawn.variants["after"][part]][:_MAX_SHOWN_SEEDS]
        shown.append({"pieces": prompt.split("{}"), "rows": rows, "seeds": seeds})
    return shown


def _alt(sample: Sample) -> str:
    when = {
        "before": "before training",
        "after": "after training",
        "champion": "the champion",
        "true_caption": "true caption",
    }
    return f"{when[sample.variant]}: {sample.prompt}, seed {sample.seed}"


def _left_out(content: ReportContent) -> str:
    prompts = len(content.config.prompts_for(content.learned.learnable_property))
    each = content.config.images_per_prompt
    parts = []
    if prompts > _MAX_SHOWN_PROMPTS:
        parts.append(f"the first {_MAX_SHOWN_PROMPTS} of {prompts} prompts")
    if each > _MAX_SHOWN_SEEDS:
        parts.append(f"the first {_MAX_SHOWN_SEEDS} of {each} seeds")
    return " and ".join(parts)


def _score_tables(content: ReportContent) -> list[dict[str, Any]]:
    learned = content.learned
    return score_tables(
        content.scores,
        described_by=content.config.reference_prompt or learned.initializer_token,
        initializer=learned.initializer_token,
        copy_threshold=content.nearest["after"].threshold if content.nearest else 1.0,
        over_champion=content.judged.gain if content.judged else {},
    )


def _usage(content: ReportContent) -> dict[str, str]:
    prompt = content.config.prompts_for(content.learned.learnable_property)[0]
    token = content.learned.placeholder_token
    trigger = trigger_word(token)
    return {
        "file": LEARNED_EMBEDS,
        "trigger": trigger,
        "script": usage_script(
            content.reference,
            encoders=content.learned.rows,
            placeholder_token=token,
            prompt=prompt.replace("{}", token),
            num_inference_steps=content.config.num_inference_steps,
            guidance_scale=content.config.guidance_scale,
            clip_skip=content.learned.clip_skip,
        ),
        "trigger_prompt": prompt.replace("{}", trigger),
        "comfy_prompt": prompt.replace("{}", f"embedding:{trigger}"),
    }


def _plain_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    told_elsewhere = ("intervals", "norm_ratio", "by_prompt", "flagged_samples", SETTING)
    return {name: value for name, value in settings.items() if name not in told_elsewhere and "digest" not in name}


def _lineage(content: ReportContent) -> dict[str, Any]:
    digests = {name: value for name, value in content.settings.items() if "digest" in name}
    return {
        **content.learned.lineage,
        **digests,
        "training_key": content.learned.training_key,
        "learned_embedding_digest": content.learned.digest,
    }
