"""The registry's commands as both programs have them."""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from components.common.artifacts import LearnedEmbedding
from components.common.registry import registry
from components.common.registry.versions import publish_version
from components.common.storage import open_store
from components.publish import __main__ as step
from components.publish.config import PublishConfig
from components.publish.publish import publish
from pipelines import cli
from tests.publish.conftest import Inputs, write_inputs
from tests.publish.faulty_store import Killed, MortalStore
from tests.publish.test_versions import make_bundle

COMMANDS = ("list", "show", "fetch", "promote", "rollback", "verify", "diff", "gc", "delete")
EXAMPLE_STORAGE = "gs://bucket/textual-inversion"


def subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    [action] = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
    return dict(action.choices)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Inputs]:
    folder = tmp_path_factory.mktemp("made")
    return [write_inputs(folder / str(n), seed=n, training={"learning_rate": n / 100}) for n in (1, 2)]


@pytest.fixture(scope="module")
def shared_storage_uri(made: list[Inputs], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Storage whose registry has two versions: the first is champion, the second a candidate."""
    folder = tmp_path_factory.mktemp("shared")
    for inputs, alias in zip(made, ("champion", "candidate"), strict=True):
        config = PublishConfig(registry_uri=f"{folder}/storage/registry", registry_alias=alias, run_id=f"run-{alias}")
        publish(config, output=folder / "out", **vars(inputs))
    return f"{folder}/storage"


@pytest.fixture
def storage_uri(shared_storage_uri: str, tmp_path: Path) -> str:
    """The same, of this test alone."""
    shutil.copytree(shared_storage_uri, tmp_path / "storage")
    return f"{tmp_path}/storage"


@pytest.fixture
def run(
    storage_uri: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Callable[..., str]]:
    """Runs `textual-inversion registry` with these arguments and gives what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, code: int = 0) -> str:
        capsys.readouterr()
        assert cli.main(["registry", *arguments, "--registry-uri", f"{storage_uri}/registry"]) == code
        printed = capsys.readouterr()
        return printed.out if code == 0 else printed.err

    yield run


def test_both_programs_have_the_same_commands() -> None:
    of_step, of_cli = subparsers(step._parser()), subparsers(subparsers(cli._parser())["registry"])
    assert set(of_cli) == {*COMMANDS, "gallery", "push"}
    assert set(of_step) == {*of_cli, "publish", "check"}
    for name, parser in of_cli.items():
        assert parser.description == of_step[name].description
        arguments = [[(each.dest, each.help, each.default) for each in of[name]._actions] for of in (of_cli, of_step)]
        assert arguments[0] == arguments[1]


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("program", ["textual-inversion registry", "python -m components.publish"])
def test_example_in_the_help_runs(
    name: str, program: str, storage_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    parsers = subparsers(step._parser() if "components" in program else subparsers(cli._parser())["registry"])
    example = parsers[name].format_help().splitlines()[-1]
    words = shlex.split(example.replace(EXAMPLE_STORAGE, storage_uri).removeprefix("example: "))
    assert words[: len(program.split()) + 1] == [*program.split(), name]
    if name == "rollback":
        registry.move_alias(f"{storage_uri}/registry", "cat-toy", "champion", 2)
    if "components" in program:
        monkeypatch.setattr("sys.argv", words[2:])
        step.main()
    else:
        assert cli.main(words[1:]) == 0


def test_candidate_is_published_compared_and_promoted_by_a_person(run: Callable[..., str], storage_uri: str) -> None:
    assert json.loads(run("list", "cat-toy", "--json"))["cat-toy"]["aliases"]["champion"]["version"] == 1
    assert "learning_rate" in run("diff", "cat-toy", "champion", "candidate")
    assert run("promote", "cat-toy", "candidate") == "2\n"
    aliases = registry.list_aliases(f"{storage_uri}/registry", "cat-toy")
    assert {name: alias.version for name, alias in aliases.items()} == {"champion": 2, "candidate": 2}
    assert run("rollback", "cat-toy") == "1\n"


def test_diff_says_what_differs_and_how_alike_the_rows_are(run: Callable[..., str], made: list[Inputs]) -> None:
    told = json.loads(run("diff", "cat-toy", "1", "candidate", "--json"))
    assert told["versions"] == [1, 2]
    assert told["options"] == {"learning_rate": [0.01, 0.02], "seed": [1, 2]}
    assert told["base_model"] == told["pictures"] == {}
    assert told["scores"]["clip_i"] == [0.78, 0.78, 0.0]
    assert "learned_embeds.safetensors" in told["files"] and "token_identifier.txt" not in told["files"]
    one, other = (LearnedEmbedding.read(inputs.learned_embedding).rows["text_encoder"] for inputs in made)
    for vector, row in enumerate(told["rows"]):
        assert (row["encoder"], row["vector"]) == ("text_encoder", vector)
        norms = [float(np.linalg.norm(rows[vector])) for rows in (one, other)]
        assert row["norms"] == pytest.approx(norms, rel=1e-5)
        assert row["cosine"] == pytest.approx(one[vector] @ other[vector] / norms[0] / norms[1], rel=1e-4)
    lines = run("diff", "cat-toy", "1", "2").splitlines()
    assert [line.split() for line in lines if "learning_rate" in line] == [["learning_rate", "0.01", "0.02"]]
    assert [line.split()[-1] for line in lines if "clip_i" in line] == ["+0.000"]
    same = json.loads(run("diff", "cat-toy", "1", "champion", "--json"))
    assert same["options"] == same["files"] == {} and same["rows"][0]["cosine"] == pytest.approx(1)


def test_diff_when_vectors_and_base_models_differ(
    run: Callable[..., str], make_inputs: Callable[..., Inputs], storage_uri: str, tmp_path: Path
) -> None:
    inputs = make_inputs(seed=3, sdxl=True)
    publish(PublishConfig(registry_uri=f"{storage_uri}/registry"), output=tmp_path / "out", **vars(inputs))
    told = json.loads(run("diff", "cat-toy", "1", "3", "--json"))
    assert [(row["encoder"], row["norms"][0] is None) for row in told["rows"]] == [
        *[("text_encoder", False)] * 2,
        *[("text_encoder_2", True)] * 2,
    ]
    assert told["options"]["learning_rate"] == [0.01, 5e-4]


def test_verify_as_json_lists_damages_and_fails(run: Callable[..., str], storage_uri: str) -> None:
    assert json.loads(run("verify", "--json")) == {"damages": {"cat-toy": []}}
    open_store(f"{storage_uri}/registry/cat-toy").write("versions/1/README.md", b"changed")
    assert "versions/1/README.md has 7 bytes" in run("verify", "--json", code=3)


def test_gc_and_delete_say_what_they_do(run: Callable[..., str], storage_uri: str) -> None:
    store = open_store(f"{storage_uri}/registry/cat-toy")
    with pytest.raises(Killed):
        publish_version(MortalStore(store, writes=1), make_bundle(), "run-3")
    assert run("gc") == "found nothing that was left behind\n"
    folder = store.uri_of("versions/3")
    assert run("gc", "--older-than", "0", "--dry-run") == f"would remove {folder}\n"
    assert run("gc", "cat-toy", "--older-than", "0") == f"removed {folder}\n"
    assert "--older-than: found -1" in run("gc", "--older-than", "-1", code=2)
    assert "version 1 at" in run("delete", "cat-toy", "1", "--yes", code=2)
    before = {info.key for info in store.list()}
    for arguments in ([], ["--storage-uri", storage_uri]):
        told = run("delete", "cat-toy", *arguments)
        assert "would delete    alias champion" in told and told.endswith("nothing is deleted yet: --yes does it\n")
        assert "runs run-candidate, run-champion" in told
    assert {info.key for info in store.list()} == before
    assert "deleted         alias champion" in run("delete", "cat-toy", "--yes")
    assert "found no concepts" in run("list", code=4)
    assert len(run("gc", "--older-than", "0").splitlines()) == 3
    assert store.list() == []


@pytest.mark.parametrize("name", COMMANDS)
def test_command_without_a_registry_says_so(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["registry", name, *([] if name in ("list", "verify", "gc") else ["x"])])
    assert stop.value.code == 2
    assert "--registry-uri" in capsys.readouterr().err
