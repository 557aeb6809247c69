"""Whether an alias moves to a new version, and a sentence that says why it does or does not."""

from __future__ import annotations

import dataclasses
import logging

from components.common.champion import BETTER, NOT_WORSE, Judged
from components.common.errors import ArtifactError
from components.common.registry.aliases import Alias, advance_alias, take_alias
from components.common.storage import ObjectStore
from components.publish.config import ALWAYS, NEVER, PublishOptions

logger = logging.getLogger(__name__)

_ENOUGH = {NOT_WORSE: (NOT_WORSE, BETTER), BETTER: (BETTER,)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Promotion:
    """Whether the alias points at the version now, and a sentence that says why it does or does not."""

    promoted: bool
    sentence: str


def promote(store: ObjectStore, options: PublishOptions, version: int, judged: Judged | None) -> Promotion:
    """What became of the alias after publishing `version`. A damaged alias is left as it is.

    Args:
        store: of the concept.
        options: the alias, and what moves it.
        version: the version that was published.
        judged: what it was held against; None when nobody looked for a champion.

    Raises:
        StorageError: when the registry cannot be written, or others keep moving the alias.
    """
    name = options.registry_alias
    if not name:
        return Promotion(promoted=False, sentence="No alias is asked for (registry_alias).")
    if refusal := why_not(options.promote_if, name, judged):
        return Promotion(promoted=False, sentence=refusal)
    try:
        if judged is None or options.promote_if == ALWAYS:
            alias = advance_alias(store, name, version)
        else:
            alias = take_alias(store, name, version, judged_against=judged.version)
    except ArtifactError as error:
        logger.warning("%s; or promote a version, which writes it anew", error)
        return Promotion(promoted=False, sentence=f"The alias {name} is damaged and stays as it is: {error}.")
    if alias.version == version:
        because = f" {judged.sentence}" if judged else ""
        return Promotion(promoted=True, sentence=f"{name} points at version {version}.{because}")
    return Promotion(promoted=False, sentence=_overtaken(name, alias, version, judged))


def why_not(promote_if: str, name: str, judged: Judged | None) -> str:
    """Why `promote_if` keeps the alias `name` from a version that was judged so; empty when it does not."""
    found = f" {judged.sentence}" if judged else ""
    if promote_if == NEVER:
        return f"{name} is not moved, for promote_if is never: a person promotes.{found}"
    if judged and judged.of_another_kind and promote_if != ALWAYS:
        return (
            f"{name} is not moved: it is for a base model with other text encoders, where this version cannot be "
            f"loaded. A person moves it (registry promote), or give such words another concept_name.{found}"
        )
    if judged and judged.on_another_model and promote_if == BETTER:
        return f"{name} is not moved, for promote_if is {promote_if}, and the two cannot be compared.{found}"
    if judged and judged.gain and judged.verdict not in _ENOUGH.get(promote_if, (judged.verdict,)):
        return f"{name} is not moved, for promote_if is {promote_if}.{found}"
    return ""


def _overtaken(name: str, alias: Alias, version: int, judged: Judged | None) -> str:
    if version <= alias.newest:
        found = f" {judged.sentence}" if judged else ""
        return (
            f"{name} stays at version {alias.version}: it has pointed at version {alias.newest} already, so publishing "
            f"version {version} does not move it; promote does.{found}"
        )
    before = f"version {judged.version}" if judged and judged.version else "no version"
    return (
        f"{name} stays at version {alias.version}: it pointed at {before} when version {version} was judged; run again "
        f"to hold it against version {alias.version}."
    )
