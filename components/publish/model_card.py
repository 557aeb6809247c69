"""The model card: what a reader sees first, with the front matter by which the Hugging Face Hub files it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import numpy as np

from components.common.artifacts import LearnedEmbedding
from components.common.base_model import ModelReference
from components.common.families import families_with, text_encoders_of
from components.common.markdown import cell, code, escaped, picture, table
from components.common.printable import literal, visible
from components.common.prompts import trigger_word
from components.common.registry.entry import Facts
from components.common.score_labels import HIGHER_IS_BETTER, METRICS, VARIANTS, in_order
from components.common.usage import drawing_line, usage_script, usual_prompt

TAGS = ("textual_inversion", "text-to-image", "diffusers")
CHAMPION_VERDICT = "champion_verdict"
"""Where the lineage has how the version compares with the one that was the champion when it was judged."""

LEARNED_EMBEDS_BIN = "learned_embeds.bin"
"""What the diffusers example script called the file before there was safetensors."""

_LOSSES_AVERAGED = 50
_PICTURE_WIDTH = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class CardSample:
    """Samples of one prompt and seed: the file with the learned concept, and the one before training."""

    prompt: str
    seed: int
    after: str
    before: str | None

    @property
    def files(self) -> tuple[str, ...]:
        """The picture files."""
        return (self.after,) if self.before is None else (self.after, self.before)


def model_card(
    facts: Facts,
    *,
    learned: LearnedEmbedding,
    reference: ModelReference,
    settings: Mapping[str, Any],
    samples: Sequence[CardSample],
    has_bin: bool = False,
    license_name: str = "",
) -> str:
    """The model card as Markdown with YAML front matter; pictures are named relative to the card.

    Args:
        facts: what the manifest says of the version.
        learned: the embedding, for its training parameters and losses.
        reference: the base model it was trained on.
        settings: how the samples were drawn and scored.
        samples: the pictures to show.
        has_bin: whether the rows are published as a pickled file, too.
        license_name: the licence, as the Hub calls it; empty names none.
    """
    parts = [
        _front_matter(facts, learned, reference, samples, license_name),
        f"# Textual inversion: {code(facts.placeholder_token)}",
        _introduction(facts, learned, reference),
        _warning(facts),
        _pictures(samples),
        "## How to use it",
        _usage(facts, learned, reference, settings, samples),
        _about_pickle() if has_bin else "",
        _scores(facts, settings),
        _training(learned),
        _lineage(facts),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(
    facts: Facts,
    learned: LearnedEmbedding,
    reference: ModelReference,
    samples: Sequence[CardSample],
    license_name: str,
) -> str:
    """YAML; a JSON string is a YAML string, so whatever a prompt holds is quoted right."""
    lines = ["---"]
    if license_name:
        lines.append(f"license: {literal(license_name)}")
    if reference.hub_repository:
        lines.append(f"base_model: {literal(reference.hub_repository)}")
    tags = [f"- {tag}" for tag in (families_with(learned.rows)[0].hub_tag, *TAGS)]
    lines += ["library_name: diffusers", "pipeline_tag: text-to-image", "tags:", *tags]
    lines.append(f"instance_prompt: {literal(facts.placeholder_token)}")
    if samples:
        lines.append("widget:")
    for sample in samples:
        lines += [f"- text: {literal(sample.prompt)}", "  output:", f"    url: {literal(sample.after)}"]
    return "\n".join([*lines, "---"])


def _introduction(facts: Facts, learned: LearnedEmbedding, reference: ModelReference) -> str:
    vectors = "one vector" if len(facts.tokens) == 1 else f"{len(facts.tokens)} vectors"
    encoders = "the text encoder" if len(learned.rows) == 1 else f"each of the {len(learned.rows)} text encoders"
    kind = "an object" if facts.learnable_property == "object" else "a style"
    return (
        f"The word {code(facts.placeholder_token)} stands for {kind} that the image generator "
        f"{_base_model(reference)} did not know. It was learned from a few pictures by "
        f"[textual inversion](https://arxiv.org/abs/2208.01618): {vectors} for {encoders}, trained for "
        f"{learned.steps} steps from {_origin(learned)}; the generator is unchanged."
    )


def _origin(learned: LearnedEmbedding) -> str:
    existing = learned.lineage.get("initializer_embedding")
    return f"the embedding {code(learned.origin)}" if existing else f"the word {code(learned.initializer_token)}"


def _warning(facts: Facts) -> str:
    if facts.passed:
        return ""
    reasons = " ".join(escaped(reason) for reason in facts.reasons)
    return f"> **It did not pass its evaluation and was published by force.** {reasons}".rstrip()


def _pictures(samples: Sequence[CardSample]) -> str:
    if not samples:
        return ""
    rows = []
    for sample in samples:
        after = picture(sample.after, sample.prompt, width=_PICTURE_WIDTH)
        before = ""
        if sample.before:
            before = picture(sample.before, f"{sample.prompt}, before training", width=_PICTURE_WIDTH)
        rows.append([f"{cell(sample.prompt)}<br>seed {sample.seed}", after, before])
    header = ["prompt", VARIANTS["after"], VARIANTS["before"]]
    if not any(sample.before for sample in samples):
        header, rows = header[:2], [row[:2] for row in rows]
    return table(header, rows) + "\n\nAll samples are in [the report](report.html)."


def _usage(
    facts: Facts,
    learned: LearnedEmbedding,
    reference: ModelReference,
    settings: Mapping[str, Any],
    samples: Sequence[CardSample],
) -> str:
    token, trigger = facts.placeholder_token, trigger_word(facts.placeholder_token)
    usual = usual_prompt(facts.learnable_property, token)
    prompt = next((sample.prompt for sample in samples if token in sample.prompt), usual)
    drawing = {name: settings[name] for name in ("num_inference_steps", "guidance_scale")}
    script = usage_script(
        reference,
        encoders=learned.rows,
        placeholder_token=token,
        prompt=prompt,
        clip_skip=learned.clip_skip,
        **drawing,
    )
    negative = drawing_line("a photo of a garden", negative_prompt=token, clip_skip=learned.clip_skip, **drawing)
    file = code(f"{trigger}.safetensors")
    return "\n\n".join(
        [
            "**diffusers**, in the folder of this card:",
            f"```python\n{script}\n```",
            f"**AUTOMATIC1111, Forge**: put {file} into `embeddings/` and write {code(trigger)}, the "
            f"file's name, in the prompt: {code(prompt.replace(token, trigger))}. Keep the name: under an ordinary "
            "word's name the file would change every prompt that has that word.",
            f"**ComfyUI**: put {file} into `models/embeddings/` and write {code('embedding:' + trigger)} in "
            f"the prompt: {code(prompt.replace(token, 'embedding:' + trigger))}.",
            "**As a negative embedding** it keeps out of a picture what it stands for: write the word in the negative "
            "prompt, in diffusers by this last line:",
            f"```python\n{negative}\n```",
            *_pooled(learned),
            *_clip_skip(learned),
        ]
    )


def _about_pickle() -> str:
    return (
        f"**Programs that read no safetensors**: {code(LEARNED_EMBEDS_BIN)} has the same rows, pickled. A pickled file "
        "can run code when it is loaded: take the other files where you can, and read this one by "
        f"{code(f'torch.load({LEARNED_EMBEDS_BIN!r}, weights_only=True)')}."
    )


def _pooled(learned: LearnedEmbedding) -> Iterable[str]:
    if any(each.pooled for each in text_encoders_of(learned.rows)):
        yield (
            "**Pictures differ a little from program to program**: diffusers, and the training with it, takes the "
            "second text encoder's pooled output where the word ends, if the model's `eos_token_id` is 2, as it "
            "usually is; AUTOMATIC1111, Forge and ComfyUI take it where the prompt ends."
        )


def _clip_skip(learned: LearnedEmbedding) -> Iterable[str]:
    skipped, left_out = learned.clip_skip, text_encoders_of(learned.rows)[0].left_out_layers
    if skipped:
        last = code(str(-skipped - left_out - 1))
        layers = "last layer" if skipped == 1 else f"last {skipped} layers"
        beside = f", beside the {left_out} that this kind of model always goes without" if left_out else ""
        # Where a model goes without layers anyway, AUTOMATIC1111 and Forge leave out no more of them.
        webui = "" if left_out else f"Clip skip {skipped + 1} in AUTOMATIC1111 and Forge, "
        yield (
            f"**Without the text encoder's {layers}{beside}**: so it was learned, and so it wants to be drawn. That is "
            f"{code(f'clip_skip={skipped}')} in diffusers, {webui}and the node CLIP Set Last Layer with {last} in "
            "ComfyUI."
        )


def _scores(facts: Facts, settings: Mapping[str, Any]) -> str:
    if not facts.scores:
        return ""
    variants = in_order(facts.scores, VARIANTS)
    metrics = in_order({name for scores in facts.scores.values() for name in scores}, METRICS)
    rows = []
    for variant in variants:
        values = [facts.scores[variant].get(name) for name in metrics]
        label = VARIANTS[variant] if variant in VARIANTS else cell(variant)
        rows.append([label, *("" if v is None else f"{v:.3f}" for v in values)])
    header = ["", *(METRICS[name].name if name in METRICS else cell(name) for name in metrics)]
    legend = [f"{METRICS[name].name}: {METRICS[name].meaning}." for name in metrics if name in METRICS]
    parts = [
        "## Scores",
        table(header, rows),
        " ".join([*legend, HIGHER_IS_BETTER]) if legend else "",
        escaped(str(facts.lineage.get(CHAMPION_VERDICT, ""))),
    ]
    if settings:
        parts.append(_details("How the samples were drawn and scored", settings))
    return "\n\n".join(part for part in parts if part)


def _training(learned: LearnedEmbedding) -> str:
    losses = np.asarray(learned.losses, np.float64)
    line = f"{learned.steps} optimizer steps."
    if len(losses):
        averaged = min(_LOSSES_AVERAGED, len(losses))
        line += (
            f" The mean loss was {losses[:averaged].mean():.4f} over the first {averaged} steps and "
            f"{losses[-averaged:].mean():.4f} over the last {averaged}."
        )
    return "\n\n".join(["## Training", line, _details("All training parameters", learned.config)])


def _lineage(facts: Facts) -> str:
    rows = [
        [escaped(name.replace("_", " ")), cell(str(value))]
        for name, value in sorted(facts.lineage.items())
        if value != ""
    ]
    return "## Where it comes from\n\n" + table(["what", "value"], rows)


def _details(summary: str, values: Mapping[str, Any]) -> str:
    plain = {name: value for name, value in sorted(values.items()) if not isinstance(value, Mapping)}
    rows = [[cell(name), cell(json.dumps(value, ensure_ascii=False))] for name, value in plain.items()]
    return f"<details>\n<summary>{summary}</summary>\n\n{table(['parameter', 'value'], rows)}\n\n</details>"


def _base_model(reference: ModelReference) -> str:
    if reference.hub_repository:
        return (
            f"[{escaped(reference.hub_repository)}](https://huggingface.co/{quote(visible(reference.hub_repository))})"
        )
    return code(reference.repository)
