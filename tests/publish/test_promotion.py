"""Publishing beside a champion: who takes the alias, and what is said of who does not."""

from __future__ import annotations

import dataclasses
import json
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from components.common.artifact_folder import read_artifact
from components.common.champion import Judged
from components.common.registry.aliases import read_alias, set_alias
from components.common.registry.documents import to_document
from components.common.registry.entry import RegistryEntry
from components.common.registry.registry import concept_store, list_versions, move_alias, resolve, verify
from components.publish import publish as step
from components.publish.__main__ import main
from components.publish.config import PublishConfig
from components.publish.promotion import why_not
from components.publish.publish import ENTRY_KIND, ENTRY_VERSION
from components.publish.step import Said, publish_if_learned
from tests.publish.conftest import Inputs, judged_against

Make = Callable[..., Inputs]

ALONE = "the champion (version 1) was learned on another base model"
ON_ANOTHER_MODEL = Judged(alias="champion", version=1, digest="d" * 64, gain={}, alone=ALONE, on_another_model=True)
OF_ANOTHER_KIND = dataclasses.replace(ON_ANOTHER_MODEL, of_another_kind=True)


def publish(inputs: Inputs, registry: str, output: Path, **options: Any) -> Said:
    return publish_if_learned(PublishConfig(registry_uri=registry, **options), **vars(inputs), output=output)


def champion(registry: str) -> int:
    return read_alias(concept_store(registry, "cat-toy"), "champion").version


@pytest.fixture
def registry(tmp_path: Path, make_inputs: Make) -> str:
    """A registry in a folder whose champion is version 1."""
    uri = str(tmp_path / "registry")
    publish(make_inputs(seed=1, judged=judged_against(0)), uri, tmp_path / "first")
    return uri


def test_same_rows_are_another_version_when_they_were_learned_from_something_else(
    registry: str, make_inputs: Make, tmp_path: Path
) -> None:
    """Or a run that trains when something changed would find the same change every night."""
    inputs = make_inputs(seed=1, judged=judged_against(1))
    for learned_from, version in (({"pictures": "a"}, 2), ({"pictures": "a"}, 2), ({"pictures": "b"}, 3), ({}, 1)):
        said = publish(inputs, registry, tmp_path / "out", learned_from=learned_from)
        assert said.metadata["version"] == version
    found = [entry.facts.learned_from for entry in list_versions(registry, "cat-toy")]
    assert found == [None, {"pictures": "a"}, {"pictures": "b"}]
    assert verify(registry, "cat-toy") == []


def test_manifest_of_an_earlier_release_does_not_say_what_it_was_learned_from(registry: str) -> None:
    entry = resolve(registry, "cat-toy", 1)
    content = {name: value for name, value in entry.as_json().items() if name != "uri"}
    assert "learned_from" not in content, "its digest is what it was"
    assert RegistryEntry.from_bytes(to_document("registry-entry", content), entry.uri) == entry


@pytest.mark.parametrize(
    ("promote_if", "judged", "may_move"),
    [
        ("not_worse", judged_against(1), True),
        ("not_worse", judged_against(1, clip_i=-0.02), False),
        ("not_worse", judged_against(1, clip_i=0.5, clip_t=-0.4), True),
        ("not_worse", judged_against(1, clip_i=0.4, clip_t=-0.5), False),
        ("not_worse", judged_against(1, clip_t=-0.02), False),
        ("better", judged_against(1), False),
        ("better", judged_against(1, clip_i=0.02), True),
        ("better", judged_against(1, clip_t=0.02), False),
        ("better", judged_against(0), True),
        ("always", judged_against(1, clip_i=-0.5), True),
        ("never", judged_against(1, clip_i=0.5), False),
        ("not_worse", ON_ANOTHER_MODEL, True),
        ("better", ON_ANOTHER_MODEL, False),
        ("always", ON_ANOTHER_MODEL, True),
        ("never", ON_ANOTHER_MODEL, False),
        ("not_worse", OF_ANOTHER_KIND, False),
        ("better", OF_ANOTHER_KIND, False),
        ("always", OF_ANOTHER_KIND, True),
        ("never", OF_ANOTHER_KIND, False),
        ("never", None, False),
        ("not_worse", None, True),
    ],
)
def test_verdict_decides_as_promote_if_says(promote_if: str, judged: Judged | None, may_move: bool) -> None:
    refusal = why_not(promote_if, "champion", judged)
    because = f", for promote_if is {promote_if}"
    if judged is OF_ANOTHER_KIND and promote_if != "never":
        because = ": it is for a base model with other text encoders"
    assert refusal.startswith("" if may_move else f"champion is not moved{because}")
    assert bool(refusal) is not may_move
    assert may_move or judged is None or judged.sentence in refusal


@pytest.mark.parametrize(
    ("gain", "promote_if"), [(0.02, "better"), (-0.02, "not_worse"), (-0.02, "always"), (1, "never")]
)
def test_version_is_published_in_any_case_and_the_answer_says_why_the_alias_stays(
    gain: float, promote_if: str, registry: str, make_inputs: Make, tmp_path: Path
) -> None:
    inputs, promoted = make_inputs(seed=2, judged=judged_against(1, clip_i=gain)), promote_if in ("better", "always")
    said = publish(inputs, registry, tmp_path / "out", promote_if=promote_if)
    assert [entry.version for entry in list_versions(registry, "cat-toy")] == [1, 2]
    assert champion(registry) == (2 if promoted else 1)
    assert said.metadata["promoted"] is promoted
    address, _, why = said.text.partition(" ")
    assert address == said.metadata["entry_uri"]
    assert why == ("" if promoted else said.metadata["promotion"])


@pytest.mark.parametrize("promote_if", ["not_worse", "better", "always"])
def test_alias_stays_with_the_text_encoders_that_its_users_have(
    promote_if: str, registry: str, make_inputs: Make, tmp_path: Path
) -> None:
    said = publish(make_inputs(seed=2, judged=OF_ANOTHER_KIND), registry, tmp_path / "out", promote_if=promote_if)
    assert said.metadata["version"] == 2 and champion(registry) == (2 if promote_if == "always" else 1)


def test_version_that_loses_says_why_wherever_one_looks(
    registry: str,
    make_inputs: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    judged = judged_against(1, clip_i=-0.2, clip_t=0.1)
    publish(make_inputs(seed=2, judged=judged), registry, tmp_path / "out")
    sentence = "It is worse than the champion (version 1): CLIP-I -0.200 (95% interval -0.210 to -0.190)"
    lineage = resolve(registry, "cat-toy", 2).facts.lineage
    assert lineage["champion_verdict"].startswith(sentence)
    assert (lineage["champion_version"], lineage["champion_digest"]) == (1, "d" * 64)
    assert sentence in (Path(registry) / "cat-toy/versions/2/README.md").read_text()
    told = read_artifact(tmp_path / "out", kind=ENTRY_KIND, version=ENTRY_VERSION).content["promotion"]
    assert sentence in told
    monkeypatch.setattr(sys, "argv", ["publish", "show", "--json", "--registry-uri", registry, "cat-toy", "2"])
    main()
    assert sentence in json.loads(capsys.readouterr().out)["lineage"]["champion_verdict"]


def test_alias_that_moved_in_the_meantime_stays_and_the_run_is_to_be_repeated(
    registry: str, make_inputs: Make, tmp_path: Path
) -> None:
    judged = judged_against(1, clip_i=0.5)
    publish(make_inputs(seed=2, judged=judged), registry, tmp_path / "out")
    said = publish(make_inputs(seed=3, judged=judged), registry, tmp_path / "out")
    assert champion(registry) == 2
    assert said.text.endswith(
        "champion stays at version 2: it pointed at version 1 when version 3 was judged; run again to hold it against "
        "version 2."
    )


def test_first_version_of_two_that_were_judged_alone_takes_the_alias(make_inputs: Make, tmp_path: Path) -> None:
    registry = str(tmp_path / "registry")
    first, second = (
        publish(make_inputs(seed=seed, judged=judged_against(0)), registry, tmp_path / "out") for seed in (1, 2)
    )
    assert (first.metadata["promoted"], second.metadata["promoted"], champion(registry)) == (True, False, 1)
    assert "champion_verdict" not in resolve(registry, "cat-toy", 1).facts.lineage
    assert "it pointed at no version when version 2 was judged; run again" in second.text


def test_retry_after_a_newer_champion_says_that_promote_moves_it(
    registry: str, make_inputs: Make, tmp_path: Path
) -> None:
    second = make_inputs(seed=2, judged=judged_against(1, clip_i=0.5))
    publish(second, registry, tmp_path / "out")
    publish(make_inputs(seed=3, judged=judged_against(2, clip_i=0.5)), registry, tmp_path / "out")
    said = publish(second, registry, tmp_path / "out")
    assert champion(registry) == 3
    assert "champion stays at version 3: it has pointed at version 3 already" in said.text


def test_rolled_back_alias_is_taken_by_what_was_held_against_it(
    registry: str, make_inputs: Make, tmp_path: Path
) -> None:
    bad = make_inputs(seed=2, judged=judged_against(1))
    publish(bad, registry, tmp_path / "out")
    move_alias(registry, "cat-toy", "champion", 1)
    assert not publish(bad, registry, tmp_path / "out").metadata["promoted"]
    assert publish(make_inputs(seed=3, judged=judged_against(1)), registry, tmp_path / "out").metadata["promoted"]


def test_two_candidates_that_are_alike_do_not_take_the_alias_from_each_other(make_inputs: Make, tmp_path: Path) -> None:
    """Ten repeats of two runs, each judged against who is champion then: one version each, and one champion."""
    registry = str(tmp_path / "registry")
    publish(make_inputs(seed=1, judged=judged_against(0)), registry, tmp_path / "out")
    publish(make_inputs(seed=2, judged=judged_against(1)), registry, tmp_path / "out")
    for turn in range(10):
        seed = 1 + turn % 2
        itself = Judged(alias="champion", version=2, digest="d" * 64, gain={}, alone="it is the champion itself")
        judged = itself if seed == 2 else judged_against(2, clip_i=0.001 * turn)
        said = publish(make_inputs(seed=seed, judged=judged), registry, tmp_path / "out")
        assert (said.metadata["version"], said.metadata["promoted"]) == (seed, seed == 2)
        assert champion(registry) == 2
    assert [entry.version for entry in list_versions(registry, "cat-toy")] == [1, 2]
    assert read_alias(concept_store(registry, "cat-toy"), "champion").previous == (1,)
    assert verify(registry, "cat-toy") == []


def test_embedding_that_is_published_already_is_mended_though_its_bundle_is_another(
    registry: str, make_inputs: Make, tmp_path: Path
) -> None:
    damaged = Path(registry) / "cat-toy/versions/1/learned_embeds.safetensors"
    whole = damaged.read_bytes()
    damaged.write_bytes(b"damaged")
    report = (Path(registry) / "cat-toy/versions/1/config.json").read_bytes()
    publish(make_inputs(seed=1, judged=judged_against(1, clip_i=0.1)), registry, tmp_path / "out")
    assert damaged.read_bytes() == whole
    assert (Path(registry) / "cat-toy/versions/1/config.json").read_bytes() == report
    assert verify(registry, "cat-toy") == []


def test_embedding_that_was_published_by_force_and_now_passes_is_a_version_of_its_own(
    make_inputs: Make, tmp_path: Path
) -> None:
    registry = str(tmp_path / "registry")
    config, failed = PublishConfig(registry_uri=registry), make_inputs(seed=1, passed=False)
    step.publish(config, **vars(failed), output=tmp_path / "out", force=True)
    said = publish(make_inputs(seed=1, judged=judged_against(1)), registry, tmp_path / "out")
    assert said.metadata["version"] == 2 and resolve(registry, "cat-toy", 2).facts.passed


def test_one_of_two_publishers_that_race_takes_the_alias(registry_uri: str, make_inputs: Make, tmp_path: Path) -> None:
    publish(make_inputs(seed=1, judged=judged_against(0)), registry_uri, tmp_path / "out")
    racing = [make_inputs(seed=seed, judged=judged_against(1, clip_i=0.5)) for seed in (2, 3)]
    barrier = threading.Barrier(len(racing))

    def race(number: int) -> Said:
        barrier.wait()
        return publish(racing[number], registry_uri, tmp_path / f"out-{number}")

    with ThreadPoolExecutor(len(racing)) as pool:
        winner, loser = sorted(pool.map(race, range(len(racing))), key=lambda said: not said.metadata["promoted"])
    assert (winner.metadata["promoted"], loser.metadata["promoted"]) == (True, False)
    assert champion(registry_uri) == winner.metadata["version"]
    assert f"champion stays at version {winner.metadata['version']}" in loser.text
    assert {winner.metadata["version"], loser.metadata["version"]} == {2, 3}


def test_deleted_alias_is_made_again(registry: str, make_inputs: Make, tmp_path: Path) -> None:
    concept_store(registry, "cat-toy").delete("aliases/champion.json")
    assert publish(make_inputs(seed=2, judged=judged_against(1)), registry, tmp_path / "out").metadata["promoted"]
    assert champion(registry) == 2


def test_damaged_alias_stays_and_is_told(registry: str, make_inputs: Make, tmp_path: Path) -> None:
    store = concept_store(registry, "cat-toy")
    store.write("aliases/champion.json", b"damaged")
    said = publish(make_inputs(seed=2, judged=judged_against(0)), registry, tmp_path / "out")
    assert store.read("aliases/champion.json") == b"damaged"
    assert "The alias champion is damaged and stays as it is" in said.text and "\n" not in said.text
    assert set_alias(store, "champion", 2).version == 2


def test_no_alias_is_no_champion(registry: str, make_inputs: Make, tmp_path: Path) -> None:
    said = publish(make_inputs(seed=2), registry, tmp_path / "out", registry_alias="")
    assert said.text.endswith("No alias is asked for (registry_alias).")
    assert champion(registry) == 1
