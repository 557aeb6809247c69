"""Whether there is anything to learn: what a run is given beside what the champion was learned from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from components.common.printable import printable
from components.common.registry.versions import read_entries
from components.common.start_word import AUTO
from components.common.training.key_fields import differing_fields, key_fields
from components.common.training.sampling_plan import PLAN_VERSION
from components.preflight.champion import Champion
from components.preflight.config import ALWAYS
from components.preflight.options import CheckedOptions
from components.preflight.sources import Sources, WordSources

TRAINS, NOTHING_TO_DO = "trains: ", "nothing to do: "
"""What a decision begins with: one that lets a run go on, and one that ends it."""

_SHOWN = 40
_SHOWN_OF_LONGER = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decision:
    """Whether a run trains.

    Attributes:
        trains: whether it does.
        told: the same for people, and why.
        learned_from: for each word what determines its rows, for the version that the run publishes; nothing where
            nobody looks for changes.
    """

    trains: bool
    told: str
    learned_from: tuple[Mapping[str, Any], ...]


def decide(options: CheckedOptions, sources: Sources) -> Decision:
    """Whether the run trains: as soon as there is something to learn for one of its words.

    Raises:
        StorageError: when the registry cannot be read.
    """
    if options.run.retrain_if == ALWAYS:
        return Decision(trains=True, told=f"{TRAINS}retrain_if is {ALWAYS}", learned_from=({},) * len(options.words))
    words = list(zip(options.words, sources.words, strict=True))
    given = [what_determines_rows(word, sources, found) for word, found in words]
    by_word = {
        word.word.placeholder_token: _decide_for_word(found.champion, each)
        for (word, found), each in zip(words, given, strict=True)
    }
    trains = any(trains for trains, _ in by_word.values())
    reasons = [f"{token}: {why}" if len(by_word) > 1 else why for token, (_, why) in by_word.items()]
    told = (TRAINS if trains else NOTHING_TO_DO) + "; ".join(reasons)
    return Decision(trains=trains, told=printable(told), learned_from=tuple(given))


def what_determines_rows(options: CheckedOptions, sources: Sources, word: WordSources) -> dict[str, Any]:
    """All that is known before a run begins of what determines a word's rows, by name, as JSON knows it.

    Rows of the concept's own versions do not count: where training starts from the champion, every new champion would
    be a change.
    """
    pictures, training = options.pictures, options.training
    embedding = word.initializer_embedding
    return {
        "pictures": word.images_fingerprint,
        "base_model": sources.base_model_revision,
        "base_model_variant": options.run.base_model_variant,
        **({"scorer": sources.scorer_revision} if options.word.initializer_token == AUTO else {}),
        **{name: getattr(pictures, name) for name in ("resolution", "interpolation", "center_crop")},
        **vars(options.word),
        "initializer_embedding_sha256": ""
        if embedding.startswith(f"{word.champion.store.uri}/")
        else word.initializer_embedding_sha256,
        "max_train_steps": training.max_train_steps,
        "num_train_epochs": training.num_train_epochs,
        **key_fields(training, options.num_processes),
        "plan_version": PLAN_VERSION,
    }


def _decide_for_word(champion: Champion, given: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether there is something to learn for a word, and why."""
    if champion.problem:
        return True, f"{champion.name} cannot be used: {champion.problem}"
    if champion.entry is None:
        return True, f"no {champion.alias} yet"
    recorded = champion.entry.facts.learned_from
    if recorded == given:
        return False, f"{champion.name} was learned from the same"
    for entry in read_entries(champion.store):
        if entry.facts.learned_from == given:
            return False, f"version {entry.version} was learned from the same and is not {champion.name}"
    if recorded is None:
        return True, f"{champion.name} does not say what it was learned from"
    changed = differing_fields(recorded, given)
    told = ", ".join(f"{name} {_shown(before)} -> {_shown(now)}" for name, (before, now) in changed.items())
    return True, f"changed since {champion.name} was learned: {told}"


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    text = "none" if value == "" else str(value)
    return text if len(text) < _SHOWN else f"{text[:_SHOWN_OF_LONGER]}..."
