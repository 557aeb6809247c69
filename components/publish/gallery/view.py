"""What the gallery's template is filled with, from what a registry holds."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from components.common.pages.pictures import EmbeddedPicture
from components.common.printable import printable
from components.common.registry.entry import Facts, RegistryEntry
from components.common.registry.overview import ConceptOverview, VersionState
from components.common.score_labels import METRICS, in_order, metric
from components.common.usage import usual_prompt
from components.publish.config import PublishConfig
from components.publish.gallery.samples import ShownShot, VersionPictures

_LONGEST_TEXT = 300
_MAX_SCORES = 6
_UNFOLDED = 5
"""Versions of a concept that are seen at once; the others are unfolded by a click."""

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")

Pictures = Mapping[tuple[str, int], VersionPictures]
"""The thumbnails of versions, by concept and number; of those that are shown as a row there are none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreView:
    """A score of the samples, and how much it is above the one before training where that is known."""

    name: str
    value: str
    gain: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class VersionView:
    """A version as the page shows it; one that is damaged or not complete has a `problem` and nothing else.

    Attributes:
        number: 1, 2, 3, ...
        aliases: the names that point at it.
        problem: why there is nothing to show; empty where there is.
        is_damaged: whether that is damage.
        date: the day it was published.
        model: the base model's name, by which it can be filtered.
        kind: `object` or `style`, alike.
        scores: of the samples.
        reasons: what its evaluation did not accept.
        run_id: the run that made it.
        vectors: how many tokens the word becomes.
        prompt: a prompt that uses it.
        fetch: the command that downloads its files.
        draw: the command that draws with it.
        shots: thumbnails.
        icon: a very small one.
        picture_problems: which files cannot be shown.
    """

    number: int
    aliases: tuple[str, ...] = ()
    problem: str = ""
    is_damaged: bool = False
    date: str = ""
    model: str = ""
    kind: str = ""
    scores: tuple[ScoreView, ...] = ()
    reasons: tuple[str, ...] = ()
    is_forced: bool = False
    run_id: str = ""
    vectors: int = 1
    prompt: str = ""
    fetch: str = ""
    draw: str = ""
    shots: tuple[ShownShot, ...] = ()
    icon: EmbeddedPicture | None = None
    picture_problems: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConceptView:
    """A concept: its name and word, its versions with the one to look at first in front, and what is wrong with it."""

    name: str
    token: str
    versions: tuple[VersionView, ...]
    left_out: int
    problems: tuple[str, ...]

    @property
    def first(self) -> VersionView | None:
        """The version to look at first; None where none can be shown."""
        return next((version for version in self.versions if not version.problem), None)

    @property
    def searched(self) -> str:
        """What a search looks through, in lower case."""
        texts = [self.name, self.token]
        for version in self.versions:
            texts += [version.model, version.kind, version.run_id, version.prompt, *version.aliases]
            texts += [shot.prompt for shot in version.shots]
        return " ".join(dict.fromkeys(texts)).lower()


def in_showing_order(concept: ConceptOverview) -> list[VersionState]:
    """The versions with the champion in front, then what other aliases point at, then the newest first."""
    champion = concept.aliases.get(PublishConfig.registry_alias)
    pointed_at = {alias.version for alias in concept.aliases.values()}

    def rank(state: VersionState) -> tuple[bool, bool, bool]:
        is_champion = champion is not None and state.number == champion.version
        return (state.entry is None, not is_champion, state.number not in pointed_at)

    return sorted(concept.versions, key=rank)


def gallery_view(
    registry_uri: str, concepts: Sequence[ConceptOverview], pictures: Pictures, shown: Mapping[str, int]
) -> dict[str, Any]:
    """The template's variables.

    Args:
        registry_uri: the registry's address.
        concepts: what it holds.
        pictures: thumbnails of some versions.
        shown: how many versions of a concept are shown, by its name; concepts that are not named are left out.
    """
    views = [
        _concept_view(registry_uri, concept, pictures, shown[concept.name])
        for concept in concepts
        if concept.name in shown
    ]
    versions = [version for view in views for version in view.versions]
    return {
        "registry_uri": registry_uri,
        "concepts": views,
        "concepts_left_out": len(concepts) - len(views),
        "models": sorted({version.model for version in versions} - {""}),
        "kinds": sorted({version.kind for version in versions} - {""}),
        "count": sum(len(concept.versions) for concept in concepts),
        "champion": PublishConfig.registry_alias,
        "unfolded": _UNFOLDED,
    }


def _concept_view(registry_uri: str, concept: ConceptOverview, pictures: Pictures, shown: int) -> ConceptView:
    states = in_showing_order(concept)
    tokens = [state.entry.facts.placeholder_token for state in states if state.entry]
    return ConceptView(
        name=_short(concept.name),
        token=_short(tokens[0]) if tokens else "",
        versions=tuple(
            _version_view(registry_uri, concept, state, pictures.get((concept.name, state.number), VersionPictures()))
            for state in states[:shown]
        ),
        left_out=max(0, len(states) - shown),
        problems=tuple(map(_short, concept.problems)),
    )


def _version_view(
    registry_uri: str, concept: ConceptOverview, state: VersionState, pictures: VersionPictures
) -> VersionView:
    aliases = tuple(name for name, alias in concept.aliases.items() if alias.version == state.number)
    if state.entry is None:
        return VersionView(
            number=state.number, aliases=aliases, problem=_short(state.problem), is_damaged=state.is_damaged
        )
    entry, facts = state.entry, state.entry.facts
    which = aliases[0] if aliases else str(entry.version)
    prompts = [shot.prompt for shot in pictures.shots if shot.prompt]
    prompt = prompts[0] if prompts else usual_prompt(facts.learnable_property, facts.placeholder_token)
    return VersionView(
        number=entry.version,
        aliases=aliases,
        date=_date(entry),
        model=_model(facts),
        kind=_short(facts.learnable_property),
        scores=_scores(facts),
        reasons=tuple(map(_short, facts.reasons[:3])),
        is_forced=not facts.passed,
        run_id=_short(str(facts.lineage.get("run_id", ""))),
        vectors=len(facts.tokens),
        prompt=_short(prompt),
        fetch=_command(
            "registry", "fetch", concept.name, which, "--registry-uri", registry_uri, "--output", concept.name
        ),
        draw=_command("sample", "--concept", f"{registry_uri}/{concept.name}@{which}", "--prompt", _short(prompt)),
        shots=tuple(dataclasses.replace(shot, prompt=_short(shot.prompt)) for shot in pictures.shots),
        icon=pictures.icon,
        picture_problems=tuple(map(_short, pictures.problems)),
    )


def _command(*arguments: str) -> str:
    return shlex.join(["textual-inversion", *arguments])


def _date(entry: RegistryEntry) -> str:
    found = _DATE.match(entry.created)
    return found[0] if found else _short(entry.created)


def _model(facts: Facts) -> str:
    """`owner/name` of the Hub without revision, and the last two parts of any other address."""
    address = str(facts.lineage.get("base_model", "")).rpartition("://")[2].partition("@")[0].rstrip("/")
    return _short("/".join(address.split("/")[-2:])) or "unknown"


def _scores(facts: Facts) -> tuple[ScoreView, ...]:
    after, before = facts.scores.get("after", {}), facts.scores.get("before", {})
    return tuple(
        ScoreView(
            name=_short(metric(name).name),
            value=_number(after[name]),
            gain=_number(after[name] - before[name], sign="+") if name in before else "",
        )
        for name in in_order(after, METRICS)[:_MAX_SCORES]
    )


def _number(value: float, sign: str = "") -> str:
    return format(value, f"{sign}.2f" if abs(value) < 1000 else f"{sign}.2g")


def _short(text: str) -> str:
    text = printable(text)
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…"
