"""The form of a run: the parameters that a person sees in the UI, and what each one is.

Which options stand on it is preflight's signature; type, default, choices and meaning are those of the option.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from components.preflight.options import defaults, known_options
from pipelines.presets import GUIDE_EXAMPLE

MORE_OPTIONS = "more_options"
"""The one parameter that holds every option without a field of its own on the form."""

MORE_OPTIONS_DESCRIPTION = (
    'any other option by its name, as JSON, such as {"lr_scheduler": "cosine"}: all of them are in the description of '
    "the pipeline"
)


def takes_the_form(
    first_step: Any, *, but_for: Collection[str] = ()
) -> Callable[[Callable[[dict[str, Any]], Any]], Callable[..., Any]]:
    """Makes a function of one dictionary a pipeline that has the parameters of its first step, with their defaults.

    Args:
        first_step: a component; its parameters' names and types become the pipeline's.
        but_for: those that the graph itself gives.
    """
    all_parameters = inspect.signature(first_step.python_func).parameters
    parameters = {name: each for name, each in all_parameters.items() if name not in but_for}
    with_defaults = [each.replace(default=form_default(name, parameters)) for name, each in parameters.items()]

    def decorate(graph: Callable[[dict[str, Any]], Any]) -> Callable[..., Any]:
        def pipeline(*channels: Any) -> Any:
            return graph(dict(zip(parameters, channels, strict=True)))

        pipeline.__name__, pipeline.__doc__ = graph.__name__, graph.__doc__
        outputs = inspect.signature(graph).return_annotation
        signature = inspect.Signature(with_defaults, return_annotation=outputs)
        pipeline.__signature__ = signature  # type: ignore[attr-defined]
        return pipeline

    return decorate


def form_default(name: str, form: Collection[str]) -> Any:
    """What a field of the form holds when it is opened: the guide's worked example.

    Args:
        name: the field.
        form: the names of all fields.
    """
    if name != MORE_OPTIONS:
        return GUIDE_EXAMPLE[name]
    usual = defaults()
    return {name: value for name, value in GUIDE_EXAMPLE.items() if name not in form and value != usual.get(name)}


def form_descriptions(form: Iterable[str]) -> dict[str, str]:
    """What each field of the form means, by its name."""
    options = known_options()
    return {
        name: MORE_OPTIONS_DESCRIPTION if name == MORE_OPTIONS else options[name].option.description for name in form
    }


def form_choices(form: Iterable[str]) -> dict[str, list[Any]]:
    """The values of those fields of the form that are a choice, by name; booleans too, else they are text fields."""
    options, choices = known_options(), dict[str, list[Any]]()
    for name in form:
        if name in options and options[name].option.choices:
            choices[name] = list(options[name].option.choices)
        elif name in options and options[name].type is bool:
            choices[name] = [True, False]
    return choices


def as_form(given: Mapping[str, Any], form: Collection[str]) -> dict[str, Any]:
    """Options by name as the parameters of a run: what the form has no field for is in `more_options`."""
    on_the_form = {name: value for name, value in given.items() if name in form}
    return {**on_the_form, MORE_OPTIONS: {name: value for name, value in given.items() if name not in form}}


def from_form(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a run as options by name, those within `more_options` beside the others."""
    on_the_form = {name: value for name, value in parameters.items() if name != MORE_OPTIONS}
    return {**on_the_form, **(parameters.get(MORE_OPTIONS) or {})}
