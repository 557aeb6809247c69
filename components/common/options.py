"""Options: each is one field of one config, where its type, default, bounds, choices and meaning stand together.

A config checks itself when it is made, travels between steps as one JSON text, and is a set of command-line flags. So
an option that is added to a config is known to all of them.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

from components.common.artifact_folder import canonical_json
from components.common.errors import ConfigError
from components.common.foreign_json import parse_json
from components.common.printable import masked
from components.common.storage.addresses import LONGEST, NO_SECRET

_SUBSTITUTED = "{{"
"""Begins what Kubeflow Pipelines and Argo Workflows replace wherever it stands, in parameters' values too."""

_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_META = "option"
_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Option:
    """What is known of an option beside its name, its type and its default.

    Attributes:
        description: what it means, in words that follow its name.
        choices: the values that it may have; empty for any of its type.
        least: the smallest number.
        most: the largest number.
        above: a number that it must exceed.
        below: a number that it must not reach.
        free_text: whether white space around a text is part of it, as in a prompt.
    """

    description: str
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    free_text: bool = False

    def mistake(self, value: Any) -> str:
        """Why a value of the right type cannot be right; empty when it can."""
        if isinstance(value, str):
            if self.choices and value not in self.choices:
                return f"found {value!r}, expected one of {', '.join(self.choices)}"
            if not self.free_text and value != value.strip():
                return f"found {value!r}, expected it without white space around it"
        elif isinstance(value, int | float) and not isinstance(value, bool):
            return self._mistake_of_number(value)
        return ""

    def _mistake_of_number(self, value: float) -> str:
        if not math.isfinite(value):
            return f"found {value}, expected a finite number"
        bounds = (
            (self.least, "{} or more", lambda bound: value >= bound),
            (self.most, "at most {}", lambda bound: value <= bound),
            (self.above, "more than {}", lambda bound: value > bound),
            (self.below, "less than {}", lambda bound: value < bound),
        )
        asked = [(words.format(bound), holds(bound)) for bound, words, holds in bounds if bound is not None]
        if all(holds for _, holds in asked):
            return ""
        return f"found {value}, expected {' and '.join(words for words, _ in asked)}"


def option(description: str, default: Any = dataclasses.MISSING, **more: Any) -> Any:
    """A field of a `Config`: its description, its default if it has one, and what else an `Option` knows."""
    metadata = {_META: Option(description=description, **more)}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def mistake_of_text(text: str) -> str:
    """Why a text cannot be an option's, or part of one, whatever it means there; empty when it can."""
    if len(text) > LONGEST:
        return f"found a text of {len(text)} characters, expected at most {LONGEST}"
    if "\0" in text:
        return f"found {text!r}, expected a text without NUL characters"
    if _HALF_CHARACTER.search(text):
        return (
            f"found {text!r}, expected UTF-8: write the bytes of another file's name percent-encoded, as in "
            "file:///folder/%E4, or rename it"
        )
    if _SUBSTITUTED in text:
        return (
            f"found {text!r}, expected a text without {_SUBSTITUTED!r}: Kubeflow Pipelines and Argo Workflows would "
            "put something else there"
        )
    if masked(text) != text:
        return f"found a secret in {text!r}, {NO_SECRET}"
    return ""


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for pair in value.items():
            yield from _texts_in(pair)
    elif isinstance(value, Sequence):
        for item in value:
            yield from _texts_in(item)


class Config:
    """Base of a step's configuration: a frozen, keyword-only dataclass whose fields are made by `option`.

    A value is taken as what its field's type says, when it can mean only one thing: `"3000"` and `3000.0` are the
    whole number 3000, `"3e-4"` is a number, `"False"` a boolean, a list a tuple, JSON text the list or object in it.

    Raises:
        ConfigError: with every mistake, each naming its field.
    """

    prefix: ClassVar[str] = ""
    """What a pipeline writes before the names of these options."""

    title: ClassVar[str] = ""
    """What the options are about, as a heading in help and documentation."""

    def __post_init__(self) -> None:
        mistakes: list[str] = []
        for field, hint in typed_fields(type(self)):
            try:
                value = _converted(hint, getattr(self, field.name))
            except ValueError as error:
                mistakes.append(f"{field.name}: {error}")
                continue
            object.__setattr__(self, field.name, value)
            wrong_texts = filter(None, map(mistake_of_text, _texts_in(value)))
            if mistake := next(wrong_texts, "") or option_of(field).mistake(value):
                mistakes.append(f"{field.name}: {mistake}")
        mistakes = mistakes or list(self.find_mistakes())
        if mistakes:
            raise ConfigError(*mistakes)

    def find_mistakes(self) -> Iterable[str]:
        """What single values do not show, each as `field: found ..., expected ...`; asked when all of them can be."""
        return ()

    def as_json(self) -> dict[str, Any]:
        """The configuration by field name, as JSON knows it."""
        content: dict[str, Any] = json.loads(self.to_json())
        return content

    def to_json(self) -> str:
        """The configuration as canonical JSON text: the same text for the same values."""
        return canonical_json(dataclasses.asdict(self)).decode()  # type: ignore[call-overload]

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The configuration that `to_json` has written.

        Raises:
            ConfigError: when the text is no such configuration, naming what is wrong.
        """
        try:
            content = parse_json(text)
        except ValueError as error:
            raise ConfigError(f"config: found {text!r}, which is no JSON ({error})") from error
        return cls.from_mapping(content)

    @classmethod
    def from_mapping(cls, content: Any) -> Self:
        """The configuration from its fields by name.

        Raises:
            ConfigError: when a field is unknown, missing, or has a value that cannot be right.
        """
        if not isinstance(content, Mapping):
            raise ConfigError(f"config: found {content!r}, expected an object with the fields of {cls.__name__}")
        fields = {field.name: field for field, _ in typed_fields(cls)}
        mistakes = [f"{name}: there is no such field of {cls.__name__}" for name in content if name not in fields]
        mistakes += [
            f"{name}: found nothing, expected {option_of(field).description}"
            for name, field in fields.items()
            if name not in content and default_of(field) is dataclasses.MISSING
        ]
        if mistakes:
            raise ConfigError(*mistakes)
        return cls(**content)


def typed_fields(config: type) -> Iterator[tuple[dataclasses.Field[Any], Any]]:
    """The fields of a config, each with its type."""
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        yield field, hints[field.name]


def option_of(field: dataclasses.Field[Any]) -> Option:
    """What is known of the option that a field is."""
    found: Option = field.metadata[_META]
    return found


def default_of(field: dataclasses.Field[Any]) -> Any:
    """The default of a dataclass's field, made if it has a factory; `dataclasses.MISSING` where there is none."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _converted(hint: Any, value: Any) -> Any:
    """The value as the type of its field.

    Raises:
        ValueError: when it can mean nothing of that type; says what was found and expected.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        (hint,) = (argument for argument in arguments if argument is not types.NoneType)
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, type) and issubclass(hint, Config):
        return value if isinstance(value, hint) else _nested(hint, value)
    if origin in (Mapping, dict):
        return _object(_from_json_text(value, "{"))
    if origin in (tuple, Sequence, list):
        return _sequence(arguments[0], value)
    return {str: _text, bool: _boolean, int: _whole_number, float: _number}[hint](value)


def _nested(config: type[Config], value: Any) -> Config:
    try:
        return config.from_mapping(value)
    except ConfigError as error:
        raise ValueError(str(error)) from error


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise ValueError(f"found {_shown(value)}, expected a text")


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    lowered = value.strip().lower() if isinstance(value, str) else None
    if lowered in _TRUE + _FALSE:
        return lowered in _TRUE
    raise ValueError(f"found {_shown(value)}, expected true or false")


def _whole_number(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            value = _number_of_text(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise ValueError(f"found {_shown(value)}, expected a whole number")


def _number(value: Any) -> float:
    if isinstance(value, str):
        value = _number_of_text(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            value = str(value)
    raise ValueError(f"found {_shown(value)}, expected a number")


def _number_of_text(value: str) -> Any:
    try:
        return float(value)
    except ValueError:
        return value


def _object(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return dict(value)
    raise ValueError(f'found {_shown(value)}, expected an object such as {{"name": "value"}}')


def _sequence(of: Any, value: Any) -> tuple[Any, ...]:
    value = _from_json_text(value, "[")
    if isinstance(value, str) and of is str:
        return (value,)
    if isinstance(value, str | Mapping) or not isinstance(value, Sequence):
        raise ValueError(f"found {_shown(value)}, expected a list")
    return tuple(_converted(of, item) for item in value)


def _from_json_text(value: Any, begins: str) -> Any:
    if isinstance(value, str) and value.lstrip().startswith(begins):
        try:
            return parse_json(value)
        except ValueError as error:
            raise ValueError(f"found {value!r}, which is no JSON ({error})") from error
    return value


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str) else json.dumps(value, default=repr)
