"""What the registry's commands tell a person: lines of aligned columns."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from components.common.printable import aligned
from components.common.registry.aliases import Alias
from components.common.registry.comparing import Comparison
from components.common.registry.deleting import Deletion
from components.common.registry.entry import RegistryEntry
from components.common.storage.retries import shortened

_NOTHING = "-"
_DIGEST = re.compile("[0-9a-f]{64}")
_DIGITS = 12
_LONGEST_VALUE = 60


def concept_lines(found: Mapping[str, tuple[Sequence[RegistryEntry], Mapping[str, Alias]]]) -> list[str]:
    """One line a concept: how many versions, the newest, and its aliases; then how many there are."""
    rows = [
        [
            name,
            entries[-1].facts.placeholder_token if entries else _NOTHING,
            str(len(entries)),
            entries[-1].created if entries else _NOTHING,
            ", ".join(f"{alias} {pointing.version}" for alias, pointing in aliases.items()) or _NOTHING,
        ]
        for name, (entries, aliases) in found.items()
    ]
    total = sum(len(entries) for entries, _ in found.values())
    return [
        *aligned([["CONCEPT", "PLACEHOLDER", "VERSIONS", "NEWEST", "ALIASES"], *rows]),
        f"{counted(len(found), 'concept')}, {counted(total, 'version')}",
    ]


def version_lines(concept: str, entries: Sequence[RegistryEntry], aliases: Mapping[str, Alias]) -> list[str]:
    """One line a version: when it was claimed, which aliases point at it, its scores; then how many there are."""
    metrics = sorted({name for entry in entries for name in entry.facts.scores.get("after", {})})
    rows = [
        [
            str(entry.version),
            entry.created,
            ", ".join(name for name, alias in aliases.items() if alias.version == entry.version) or _NOTHING,
            *(_number(entry.facts.scores.get("after", {}).get(name)) for name in metrics),
            size_told(sum(record.size for record in entry.files.values())),
            "" if entry.facts.passed else "(forced)",
        ]
        for entry in entries
    ]
    header = ["VERSION", "CREATED", "ALIASES", *(name.upper() for name in metrics), "SIZE", ""]
    return [*aligned([header, *rows]), f"{counted(len(entries), 'version')} of {concept}"]


def entry_lines(entry: RegistryEntry, aliases: Mapping[str, Alias]) -> list[str]:
    """What a manifest says, one fact a line."""
    facts, pointing = entry.facts, [name for name, alias in aliases.items() if alias.version == entry.version]
    rows = [
        ["version", f"{entry.version} of {entry.concept}"],
        ["address", entry.uri],
        ["created", entry.created],
        ["aliases", ", ".join(pointing) or _NOTHING],
        [
            "placeholder",
            f"{facts.placeholder_token}, {counted(len(facts.tokens), 'vector')}, {facts.learnable_property}",
        ],
        ["evaluation", "passed" if facts.passed else f"not passed, published by force: {' '.join(facts.reasons)}"],
    ]
    for variant, scores in facts.scores.items():
        rows.append([f"scores {variant}", ", ".join(f"{name} {value:.3f}" for name, value in sorted(scores.items()))])
    rows += [[name.replace("_", " "), str(value)] for name, value in sorted(facts.lineage.items())]
    rows += [["file", f"{name}, {size_told(record.size)}"] for name, record in entry.files.items()]
    return aligned(rows)


def comparison_lines(comparison: Comparison) -> list[str]:
    """What differs, part by part, beside the numbers of both versions."""
    one, other = (f"version {number}" for number in comparison.versions)
    rows: list[list[str]] = [["", one, other, ""]]
    for title, pairs in (
        ("options", comparison.options),
        ("base model", comparison.base_model),
        ("pictures", comparison.pictures),
        ("files", comparison.files),
    ):
        rows.append([title, "" if pairs else "the same", "", ""])
        rows += [[f"  {name}", *map(_value, pair), ""] for name, pair in pairs.items()]
    rows.append(["scores", "", "", "difference"])
    for name, (first, second, difference) in comparison.scores.items():
        told = _NOTHING if difference is None else f"{difference:+.3f}"
        rows.append([f"  {name}", _number(first), _number(second), told])
    rows.append(["rows", "norm", "norm", "cosine"])
    for row in comparison.rows:
        rows.append([f"  {row.encoder} {row.vector}", *map(_number, row.norms), _number(row.cosine)])
    return aligned(rows)


def deletion_lines(deletion: Deletion, verb: str) -> list[str]:
    """What is deleted, by the verb, what stays, and what nobody has looked for."""
    return aligned(
        [
            *([verb, each] for each in deletion.deleted),
            *(["kept", each] for each in deletion.kept),
            *(["not looked for", each] for each in deletion.unknown),
        ]
    )


def counted(number: int, noun: str) -> str:
    """A number and its noun: `1 version`, `2 versions`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def size_told(size: int) -> str:
    """Bytes as a person reads them."""
    return f"{size} B" if size < 1000 else f"{size / 1e3:.1f} kB" if size < 1e6 else f"{size / 1e6:.1f} MB"


def _number(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.3f}"


def _value(value: Any) -> str:
    """An option's value as it is given; of a digest and of a long text the beginning."""
    if value is None:
        return _NOTHING
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text[:_DIGITS] if _DIGEST.fullmatch(text) else shortened(text, longest=_LONGEST_VALUE)
