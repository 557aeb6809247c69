"""How a concept stands: champion, the one before, and the newest version."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.common.errors import ArtifactError
from components.common.registry.aliases import alias_key, set_alias
from components.common.registry.deleting import delete_version
from components.common.registry.entry import Bundle, Facts, RegistryEntry
from components.common.registry.registry import concept_store
from components.common.registry.standing import moved, read_standing, scores_of
from components.common.registry.versions import publish_version


def publish(registry: Path, clip_i: float, clip_t: float, *, pictures: str = "12") -> RegistryEntry:
    """A version of the concept cat with these scores."""
    facts = Facts(
        placeholder_token="<cat>",
        learnable_property="object",
        tokens=("<cat>",),
        passed=True,
        reasons=(),
        scores={"after": {"clip_i": clip_i, "clip_t": clip_t, "diversity": 0.1}},
        lineage={"base_model_digest": "34", "image_set_digest": pictures},
    )
    bundle = Bundle(concept="cat", facts=facts, files={"learned_embeds.safetensors": f"{clip_i}".encode()})
    return publish_version(concept_store(str(registry), "cat"), bundle, "run-1")


def test_concept_that_nobody_published_has_no_versions(tmp_path: Path) -> None:
    found = read_standing(str(tmp_path), "cat", "champion")
    assert (found.champion, found.before, found.latest) == (None, None, None)


def test_standing_is_where_the_alias_points_pointed_and_the_newest_sound_version(tmp_path: Path) -> None:
    entries = [publish(tmp_path, clip_i, 0.3) for clip_i in (0.5, 0.6, 0.7, 0.8, 0.9)]
    store = concept_store(str(tmp_path), "cat")
    for number in (1, 3):
        set_alias(store, "champion", number)
    delete_version(str(tmp_path), "cat", 5, dry_run=False)
    store.write("versions/4/manifest.json", b"damaged")
    found = read_standing(str(tmp_path), "cat", "champion")
    assert (found.champion, found.before, found.latest) == (entries[2], entries[0], entries[2])
    for damaged in ("versions/3/manifest.json", alias_key("champion")):
        store.write(damaged, b"damaged")
        with pytest.raises(ArtifactError, match=damaged):
            read_standing(str(tmp_path), "cat", "champion")


def test_scores_move_by_the_difference_and_other_pictures_are_told(tmp_path: Path) -> None:
    one, other = publish(tmp_path, 0.5, 0.3), publish(tmp_path, 0.625, 0.25)
    assert scores_of(one) == {"clip_i": 0.5, "clip_t": 0.3}
    assert moved(other, one).scores == pytest.approx({"clip_i": 0.125, "clip_t": -0.05})
    assert moved(other, one).is_of_the_same
    assert not moved(publish(tmp_path, 0.75, 0.3, pictures="56"), one).is_of_the_same
