"""What a person reads of the pipeline: its description in the UI, and the list of all options in the README."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping
from typing import Any

from components.preflight.config import STORAGE_VARIABLE
from components.preflight.options import GROUPS, KnownOption, known_options
from pipelines.form import MORE_OPTIONS, options_off_the_form


def description_of(specification: Mapping[str, Any]) -> str:
    """The description of the compiled pipeline in Markdown, for the upload: how to start, where the result is, options.

    Args:
        specification: the pipeline's specification, the first document of its YAML.
    """
    names = list(specification["root"]["inputDefinitions"]["parameters"])
    return _DESCRIPTION.format(
        what=specification["pipelineInfo"]["description"],
        variable=STORAGE_VARIABLE,
        more_options=MORE_OPTIONS,
        options=option_table(options_off_the_form(names)),
    )


_DESCRIPTION = """\
{what}

**To start**: give `images_uri`, three to five pictures of one thing or in one style; `placeholder_token`, the new word,
and `initializer_token`, an ordinary word for what the pictures show; and `storage_uri`, a folder in object storage,
unless your namespace has one (`{variable}` in its config map `textual-inversion-environment`).
The other fields hold the guide's worked example. Without accelerators choose `accelerator` cpu.
For a recurring run there is `retrain_if` changed: where nothing changed it ends after *Check everything*, whose output
`decision` says so.

**Where the result is**: *Sample and score* has the report (artifact *Report*) and the scores; *Publish if learned* says
in its output where the word was published, or why it was not; and where it loses to the version that the registry's
alias points at, that the alias stays, and by which scores. A step that fails says why on its own node.

**More options**: `{more_options}` takes any of these as JSON, such as `{{"lr_scheduler": "cosine", "log_steps": 20}}`:

{options}
"""


def option_table(options: Mapping[str, KnownOption]) -> str:
    """A table in Markdown of these options: name, default, meaning."""
    lines = ["| option | default | meaning |", "|---|---|---|"]
    lines += [f"| `{name}` | {_default(known)} | {_meaning(known)} |" for name, known in options.items()]
    return "\n".join(lines)


def option_lists(form: Collection[str]) -> str:
    """All options in Markdown, by group, with the defaults of the guide's worked example where they are on the form.

    Args:
        form: the names that are on the form; they are marked.
    """
    options = known_options()
    parts = []
    for group in GROUPS:
        own = {name: known for name, known in options.items() if known.group is group}
        table = option_table(own)
        for name in own:
            if name in form:
                table = table.replace(f"| `{name}` |", f"| `{name}` \\* |")
        parts.append(f"**{group.title}**\n\n{table}")
    return "\n\n".join(parts)


def _default(known: KnownOption) -> str:
    return "" if known.default in (dataclasses.MISSING, "") else f"`{json.dumps(known.default)}`"


def _meaning(known: KnownOption) -> str:
    choices = f" ({', '.join(known.option.choices)})" if known.option.choices else ""
    return f"{known.option.description}{choices}".replace("|", "\\|")
