"""Options: what a value of each type may be, and the way of a config through JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import pytest

from components.common.errors import ConfigError
from components.common.options import Config, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner(Config):
    """A config within another."""

    size: int = option("a size", 1, least=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example(Config):
    """One field of every type."""

    word: str = option("a word", "toy")
    kind: str = option("a kind", "a", choices=("a", "b"))
    prompt: str = option("a prompt", "", free_text=True)
    steps: int = option("a number of steps", 10, least=0, most=2**53 - 1)
    rate: float = option("a rate", 0.5, above=0, below=1)
    flag: bool = option("a switch", False)
    prompts: tuple[str, ...] = option("prompts", (), free_text=True)
    labels: Mapping[str, str] = option("labels", {})
    entries: tuple[Mapping[str, Any], ...] = option("entries", ())
    inner: Inner | None = option("another config", None)

    def find_mistakes(self):
        """What two fields say together."""
        if self.flag and self.steps == 0:
            yield "steps: found 0 with flag, expected 1 or more"


@pytest.mark.parametrize(
    ("field", "given", "expected"),
    [
        ("steps", "3000", 3000),
        ("steps", 3000.0, 3000),
        ("steps", "3e3", 3000),
        ("steps", 2**53 - 1, 2**53 - 1),
        ("rate", "3e-4", 3e-4),
        ("flag", "False", False),
        ("flag", " yes ", True),
        ("prompts", ["a {}", "the {} "], ("a {}", "the {} ")),
        ("prompts", "a photo of a {}", ("a photo of a {}",)),
        ("prompts", '["a {}", "b {}"]', ("a {}", "b {}")),
        ("prompt", " in the snow ", " in the snow "),
        ("labels", '{"pool": "a"}', {"pool": "a"}),
        ("entries", [{"key": "a"}], ({"key": "a"},)),
        ("entries", '[{"key": "a"}]', ({"key": "a"},)),
        ("inner", {"size": 2.0}, Inner(size=2)),
        ("inner", None, None),
    ],
)
def test_value_is_taken_as_what_it_can_only_mean(field: str, given: Any, expected: Any):
    value = getattr(Example(**{field: given}), field)
    assert value == expected and type(value) is type(expected)


@pytest.mark.parametrize(
    ("field", "given", "told"),
    [
        ("steps", 3.5, "found 3.5, expected a whole number"),
        ("steps", True, "found true, expected a whole number"),
        ("steps", "many", "found 'many', expected a whole number"),
        ("steps", None, "found null, expected a whole number"),
        ("steps", float("inf"), "found Infinity, expected a whole number"),
        ("steps", -1, "found -1, expected 0 or more"),
        ("steps", 2**53, "found 9007199254740992, expected 0 or more and at most 9007199254740991"),
        ("rate", float("nan"), "found nan, expected a finite number"),
        ("rate", "inf", "found inf, expected a finite number"),
        ("rate", 10**400, "found '1000000"),
        ("rate", 0, "found 0.0, expected more than 0 and less than 1"),
        ("rate", True, "found true, expected a number"),
        ("flag", 1, "found 1, expected true or false"),
        ("flag", "perhaps", "found 'perhaps', expected true or false"),
        ("word", 7, "found 7, expected a text"),
        ("word", " toy", "found ' toy', expected it without white space around it"),
        ("word", "toy\n", "expected it without white space around it"),
        ("kind", "c", "found 'c', expected one of a, b"),
        ("prompts", [1], "found 1, expected a text"),
        ("prompts", {"a": 1}, 'found {"a": 1}, expected a list'),
        ("prompts", "[1", "which is no JSON"),
        ("labels", [1], "found [1], expected an object"),
        ("labels", "pool=a", "found 'pool=a', expected an object"),
        ("entries", ["a"], "found 'a', expected an object"),
        ("inner", {"size": 0}, "size: found 0, expected 1 or more"),
        ("inner", {"sise": 1}, "sise: there is no such field of Inner"),
        ("inner", 3, "found 3, expected an object with the fields of Inner"),
    ],
)
def test_value_that_can_mean_nothing_is_refused_by_name(field: str, given: Any, told: str):
    with pytest.raises(ConfigError) as refused:
        Example(**{field: given})
    (mistake,) = refused.value.mistakes
    assert mistake.startswith(f"{field}: ") and told in mistake


def test_all_mistakes_are_told_at_once_and_those_between_fields_when_there_are_no_others():
    with pytest.raises(ConfigError) as refused:
        Example(steps=-1, kind="c", flag=True)
    assert [mistake.partition(":")[0] for mistake in refused.value.mistakes] == ["kind", "steps"]
    with pytest.raises(ConfigError, match="steps: found 0 with flag"):
        Example(steps=0, flag=True)


def test_config_comes_back_from_its_text_which_is_the_same_for_the_same_values():
    config = Example(prompts=["ä {}", 'a "{}" <b>'], labels={"b": "1", "a": "2"}, inner=Inner(size=3))
    assert Example.from_json(config.to_json()) == config
    assert (
        config.to_json() == Example(inner={"size": "3"}, labels={"a": "2", "b": "1"}, prompts=config.prompts).to_json()
    )


@pytest.mark.parametrize("text", ["", "[]", "{", '{"stepps": 1}', "null"])
def test_text_that_is_no_config_is_refused(text: str):
    with pytest.raises(ConfigError):
        Example.from_json(text)


def test_default_that_is_an_object_is_one_of_its_own_each_time():
    Example().labels["pool"] = "mine"  # type: ignore[index]
    assert json.loads(Example().to_json())["labels"] == {}
