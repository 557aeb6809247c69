from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from components.common.champion import SETTING, Gain, Judged, judged_in
from components.common.errors import ArtifactError


def judged(**gains: tuple[float, float]) -> Judged:
    if {"clip_i", "clip_t"} <= gains.keys():
        gains["together"] = tuple(map(sum, zip(gains["clip_i"], gains["clip_t"], strict=True)))
    gain = {name: Gain(value=(low + high) / 2, low=low, high=high) for name, (low, high) in gains.items()}
    return Judged(alias="champion", version=3, digest="d" * 64, gain=gain, alone="" if gain else "nobody was there")


@pytest.mark.parametrize(
    ("clip_i", "clip_t", "verdict"),
    [
        ((0.01, 0.03), (-0.01, 0.01), "better"),
        ((0.01, 0.03), (-0.06, -0.04), "worse"),
        ((0.01, 0.03), (-0.03, -0.01), "better"),
        ((0.0, 0.0), (-0.03, -0.01), "worse"),
        ((-0.03, -0.01), (0.01, 0.03), "worse"),
        ((-0.01, 0.01), (0.01, 0.03), "not_worse"),
        ((-0.03, 0.0), (-0.03, 0.0), "not_worse"),
        ((0.0, 0.0), (0.0, 0.0), "not_worse"),
    ],
)
def test_verdict_is_that_of_the_intervals(clip_i: tuple[float, float], clip_t: tuple[float, float], verdict: str):
    assert judged(clip_i=clip_i, clip_t=clip_t).verdict == verdict


def test_sentence_has_the_verdict_with_its_numbers_or_says_why_there_is_none():
    assert judged(clip_i=(-0.15, -0.09), clip_t=(-0.01, 0.016)).sentence == (
        "It is worse than the champion (version 3): CLIP-I -0.120 (95% interval -0.150 to -0.090), "
        "CLIP-T +0.003 (95% interval -0.010 to +0.016), together -0.117 (95% interval -0.160 to -0.074)."
    )
    assert judged().verdict == ""
    assert judged().sentence == "It was judged alone: nobody was there."


def test_settings_give_what_was_written_and_nothing_where_nobody_looked():
    found = judged(clip_i=(0.0, 0.1), clip_t=(0.0, 0.1))
    assert judged_in({SETTING: dataclasses.asdict(found)}) == found
    assert judged_in({"seed": 0}) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"version": "3"},
        {"gain": {"clip_i": 0.1}},
        {"gain": {"clip_t": {"value": 0, "low": 0, "high": 0}}},
        {"gain": {"clip_i": {"value": 0, "low": 0, "high": 0}}},
        {"gain": None},
    ],
)
def test_settings_that_say_something_else_are_refused(changes: dict[str, Any]):
    content = {**dataclasses.asdict(judged(clip_i=(0.0, 0.1), clip_t=(0.0, 0.1))), **changes}
    with pytest.raises(ArtifactError, match="do not say what it was judged against"):
        judged_in({SETTING: content})
