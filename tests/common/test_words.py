"""What steps are told, take and give of several words, and of one."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from components.common.artifact_folder import check_artifact, read_artifact, write_artifact
from components.common.errors import ArtifactError, ConfigError
from components.common.options import Config, option
from components.common.words import by_word, config_text, configs_of, for_each_word, metadata_of, word_folders


@dataclasses.dataclass(frozen=True, kw_only=True)
class Told(Config):
    """A step's config."""

    word: str = option("the word")
    times: int = option("how often", 1, least=1)


def step(config: Told, *, output: Path, left: Path, right: Path) -> str:
    """Writes what it was told and what it takes."""
    said = [config.word * config.times, *((folder / "said").read_text() for folder in (left, right))]
    made(output, " ".join(said))
    return said[0]


def made(folder: Path, said: str) -> Path:
    write_artifact(folder, kind="said", version=1, content={}, files={"said": said.encode()})
    return folder


WORDS = (Told(word="a"), Told(word="b", times=2))


def test_config_of_one_word_is_its_own_text_and_of_several_a_list() -> None:
    assert config_text(WORDS[:1]) == WORDS[0].to_json()
    assert configs_of(Told, config_text(WORDS[:1])) == WORDS[:1]
    assert configs_of(Told, config_text(WORDS)) == WORDS
    with pytest.raises(ConfigError, match="word: found nothing"):
        configs_of(Told, "[{}]")
    with pytest.raises(ConfigError, match="no JSON"):
        configs_of(Told, "[{")


def test_step_is_done_for_each_word_with_its_own_and_what_all_share(tmp_path: Path) -> None:
    shared = made(tmp_path / "shared", "x")
    for_each_word(step, WORDS, output=tmp_path / "first", left=shared, right=shared)
    answers = for_each_word(step, WORDS, output=tmp_path / "second", left=tmp_path / "first", right=shared)
    assert answers == ("a", "bb")
    folders = word_folders(tmp_path / "second")
    assert [(folder / "said").read_text() for folder in folders] == ["a a x x x", "bb bb x x x"]
    read_artifact(tmp_path / "second", kind="words", version=1)


def test_artifact_of_one_word_is_the_steps_own(tmp_path: Path) -> None:
    shared = made(tmp_path / "shared", "x")
    for_each_word(step, WORDS[:1], output=tmp_path / "out", left=shared, right=shared)
    assert word_folders(tmp_path / "out") == (tmp_path / "out",)
    read_artifact(tmp_path / "out", kind="said", version=1)


def test_damage_in_one_word_is_damage_of_all(tmp_path: Path) -> None:
    shared = made(tmp_path / "shared", "x")
    for_each_word(step, WORDS, output=tmp_path / "out", left=shared, right=shared)
    (tmp_path / "out" / "1" / "said").write_text("y")
    with pytest.raises(ArtifactError, match="said has 1 bytes"):
        check_artifact(tmp_path / "out")
    with pytest.raises(ArtifactError, match="said has 1 bytes"):
        word_folders(tmp_path / "out")


def test_step_that_fails_for_one_word_leaves_no_artifact(tmp_path: Path) -> None:
    shared = made(tmp_path / "shared", "x")
    with pytest.raises(FileNotFoundError):
        for_each_word(
            lambda told, **folders: shutil.rmtree(tmp_path / told.word), WORDS, output=tmp_path / "out", left=shared
        )
    assert not (tmp_path / "out").exists()


def test_other_numbers_of_words_are_refused(tmp_path: Path) -> None:
    shared = made(tmp_path / "shared", "x")
    three = (*WORDS, Told(word="c"))
    for_each_word(step, three, output=tmp_path / "three", left=shared, right=shared)
    with pytest.raises(ArtifactError, match=r"left: found 3 words at .*, expected 2"):
        for_each_word(step, WORDS, output=tmp_path / "out", left=tmp_path / "three", right=shared)


@pytest.mark.parametrize("count", [1, 0, "2", True, None])
def test_manifest_that_names_no_number_of_words_is_refused(tmp_path: Path, count: object) -> None:
    write_artifact(tmp_path / "words", kind="words", version=1, content={"words": count}, files={})
    with pytest.raises(ArtifactError, match=r"words: found .*, expected 2 or more"):
        word_folders(tmp_path / "words")


def test_facts_of_several_words_are_lists_where_they_differ() -> None:
    facts = [{"name": "Word", "word": "a", "reasons": "bad"}, {"name": "Word", "word": "b"}]
    assert metadata_of(facts) == {"name": "Word", "word": ["a", "b"], "reasons": ["bad", ""]}
    assert metadata_of(facts[:1]) == facts[0]


def test_numbers_of_several_words_are_named_by_word() -> None:
    assert by_word({"<a>": {"loss": 1.0}}) == {"loss": 1.0}
    assert by_word({"<a>": {"loss": 1.0}, "<b>": {"loss": 2.0}}) == {"<a> loss": 1.0, "<b> loss": 2.0}
