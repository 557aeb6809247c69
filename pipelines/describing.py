"""What a person reads of the pipeline: its description in the UI, and the list of all options in the README."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping
from typing import Any

from components.preflight.config import STORAGE_VARIABLE
from components.preflight.options import GROUPS, KnownOption, known_options
from pipelines.form import MORE_OPTIONS


def description_of(specification: Mapping[str, Any]) -> str:
    """The description of the compiled pipeline in Markdown, for the upload: how to start, and where the result is.

    It is short, for the UI shows it on a card that grows upwards out of the window and cannot be scrolled.

    Args:
        specification: the pipeline's specification, the first document of its YAML.
    """
    return _DESCRIPTION.format(
        what=specification["pipelineInfo"]["description"], variable=STORAGE_VARIABLE, more_options=MORE_OPTIONS
    )


_DESCRIPTION = """\
{what}

**To start**: `images_uri`, three to five pictures of one thing or in one style; `placeholder_token`, the new word;
`initializer_token`, an ordinary word for what they show, or `auto`; `storage_uri`, a folder in object storage, unless
the namespace has one (`{variable}`). The rest is the guide's example. Without accelerators: `accelerator` cpu.

**More options**: `{more_options}` takes JSON, such as `{{"retrain_if": "changed"}}` for recurring runs;
`textual-inversion run --help` lists them.

**The result**: *Sample and score* has the report and the scores; *Publish if learned* says where the word was
published, or why not. A step that fails says why on its own node.
"""


def option_lists(form: Collection[str]) -> str:
    """All options in Markdown, by group, with the defaults of the guide's worked example where they are on the form.

    Args:
        form: the names that are on the form; they are marked.
    """
    options = known_options()
    parts = []
    for group in GROUPS:
        own = {name: known for name, known in options.items() if known.group is group}
        table = _option_table(own)
        for name in own:
            if name in form:
                table = table.replace(f"| `{name}` |", f"| `{name}` \\* |")
        parts.append(f"**{group.title}**\n\n{table}")
    return "\n\n".join(parts)


def _option_table(options: Mapping[str, KnownOption]) -> str:
    lines = ["| option | default | meaning |", "|---|---|---|"]
    lines += [f"| `{name}` | {_default(known)} | {_meaning(known)} |" for name, known in options.items()]
    return "\n".join(lines)


def _default(known: KnownOption) -> str:
    return "" if known.default in (dataclasses.MISSING, "") else f"`{json.dumps(known.default)}`"


def _meaning(known: KnownOption) -> str:
    choices = f" ({', '.join(known.option.choices)})" if known.option.choices else ""
    return f"{known.option.description}{choices}".replace("|", "\\|")
