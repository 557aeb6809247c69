"""What a concept's champion is, and how a candidate compares with it: told by evaluating, acted on by publishing.

The champion is the version that the registry's alias points at. Both are sampled with the same prompts and seeds, so
that sample i of one belongs to sample i of the other, and what is compared is the mean of the differences.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from components.common.errors import ArtifactError
from components.common.foreign_json import record_of

SETTING = "champion"
"""Where the settings of an `Evaluation` have what it was judged against."""

PRIMARY = "clip_i"
"""The score that must rise for a candidate to be better."""

TOGETHER = "together"
"""The sum of both scores of a sample. Likeness to the prompt alone says nothing against a candidate: a champion that
has hardly learned anything is as near to the prompt as the word that it began as."""

BETTER, NOT_WORSE, WORSE = "better", "not_worse", "worse"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChampionAddress:
    """Where the champion is, as the registry said when the run began.

    Attributes:
        alias: the alias that was looked at.
        version: the version that it pointed at; 0 when it pointed at none.
        uri: the address of the version's folder; empty when there is none.
        digest: the version's `bundle_digest`; empty when there is none, or its manifest could not be used.
    """

    alias: str
    version: int = 0
    uri: str = ""
    digest: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gain:
    """How much a score of the candidate is above the champion's, with the 95% interval of the paired differences."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.3f} (95% interval {self.low:+.3f} to {self.high:+.3f})"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judged:
    """What a candidate was held against.

    Attributes:
        alias: the alias that was looked at.
        version: the version that it pointed at; 0 when it pointed at none.
        digest: the version's `bundle_digest`.
        gain: by score, over the champion; empty when the candidate was judged alone.
        alone: why it was judged alone, as the end of a sentence; empty when it was compared.
        on_another_model: whether the champion was learned on another base model than the candidate.
        of_another_kind: whether it has rows for other text encoders, too, so that neither fits the other's base model.
    """

    alias: str
    version: int
    digest: str
    gain: Mapping[str, Gain]
    alone: str
    on_another_model: bool = False
    of_another_kind: bool = False

    @property
    def verdict(self) -> str:
        """`better`, `not_worse` or `worse` than the champion; empty when the candidate was judged alone.

        It is worse when the interval of `PRIMARY` lies below 0, or that of `TOGETHER`: when it loses more of the prompt
        than it gains in likeness. It is better when it is not worse and the interval of `PRIMARY` lies above 0.
        """
        if not self.gain:
            return ""
        if any(self.gain[name].high < 0 for name in (PRIMARY, TOGETHER)):
            return WORSE
        return BETTER if self.gain[PRIMARY].low > 0 else NOT_WORSE

    @property
    def sentence(self) -> str:
        """The verdict with its numbers, or why there is none."""
        if not self.gain:
            return f"It was judged alone: {self.alone}."
        told = {BETTER: "better than", NOT_WORSE: "not worse than", WORSE: "worse than"}[self.verdict]
        numbers = ", ".join(f"{_label(name)} {found}" for name, found in self.gain.items())
        return f"It is {told} the {self.alias} (version {self.version}): {numbers}."


def judged_in(settings: Mapping[str, Any]) -> Judged | None:
    """What the `Evaluation` with these settings was judged against; None when nobody looked for a champion.

    Raises:
        ArtifactError: when the settings hold something else there.
    """
    if SETTING not in settings:
        return None
    try:
        judged = record_of(Judged, settings[SETTING])
        if judged.gain and not {PRIMARY, TOGETHER} <= judged.gain.keys():
            raise ValueError(f"it has no gain of {PRIMARY} and {TOGETHER}")
        return judged
    except ValueError as error:
        raise ArtifactError(
            f"the evaluation's settings do not say what it was judged against ({error}): evaluate again"
        ) from error


def _label(name: str) -> str:
    return name if name == TOGETHER else name.upper().replace("_", "-")
