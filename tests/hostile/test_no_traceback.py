"""Whatever a command is given, it ends by lines that say what is wrong and an exit code of ours, never a traceback."""

from __future__ import annotations

import importlib
import json
import os
import re
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from components.common.errors import TextualInversionError
from components.common.options import Config
from components.evaluate.config import EvaluateConfig
from components.import_base_model.config import ImportConfig
from components.ingest_images.config import IngestConfig
from components.init_embedding.config import InitConfig
from components.preflight.options import check_options
from components.publish.config import PublishConfig
from components.train.config import TrainStepConfig
from pipelines.cli import main as textual_inversion

SPRITES = Path(__file__).parents[2] / "examples" / "sprites"
SOURCE = SPRITES.parents[1]
OUR_CODES = {2, 3, 4, 5, 6}
UNSEEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
NO_UTF8 = os.fsdecode(b"/nowhere/\xe4")

ADDRESSES = {
    "home-of-nobody": "~nobody-at-all/x",
    "nul-encoded": "file:///%00/x",
    "file-of-a-host": "file://host/path",
    "no-utf8-encoded": "file:///nowhere/%e4%zz",
    "no-utf8": NO_UTF8,
    "backslashes": "C:\\pictures\\cat",
    "escape-sequence": "/nowhere/\x1b[31mred\x9b0m",
    "two-lines": "/nowhere\n12:00:00 done in 1.0 s",
    "bidi": "/nowhere/\u202egnp.exe",
    "http": "http://127.0.0.1/x",
    "http-half-ipv6": "http://[::1/x",
    "s3-ipv6": "s3://[::1]:99999/x",
    "s3-port": "s3://bucket:99999/x",
    "s3-no-bucket": "s3:///x",
    "s3-parent": "s3://bucket/../x",
    "gs-dash": "gs://-/x",
    "gs-ipv6": "gs://[::1]/x",
    "gs-nothing": "gs://",
    "minio-control": "minio://bucket/\x07",
    "hf-nothing": "hf://",
    "hf-no-name": "hf://a--b/..",
    "hf-dataset-no-name": "hf://datasets/a--b/..x",
    "hf-no-ascii": "hf://datasets/\u00e9/\u00e9",
    "hf-query": "hf://owner/name?download=true",
    "long-name": "/nowhere/" + "n" * 300,
    "long-path": "/n" * 4_000,
    "too-long": "a" * 100_000,
    "empty": "",
    "space": " ",
    "password": "s3://key:pass/word@bucket/x",
}


@pytest.fixture
def ends(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> Callable[..., tuple[int, str]]:
    """Runs a step's command in this process and gives its exit code, and what it logged and wrote on standard error."""
    for name, value in {
        "TEXTUAL_INVERSION_RETRY_SECONDS": "0",
        "TEXTUAL_INVERSION_CACHE": str(tmp_path / "cache"),
        "STORAGE_EMULATOR_HOST": "http://127.0.0.1:1",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nobody-knows",
        "AWS_REGION": "us-east-1",
        "HF_ENDPOINT": "http://127.0.0.1:1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)

    def run(step: str, *arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", [step, *arguments])
        caplog.clear()
        with pytest.raises(SystemExit) as end:
            if step == "textual-inversion":
                sys.exit(textual_inversion())
            importlib.import_module(f"components.{step}.__main__").main()
        code = end.value.code
        assert isinstance(code, int)
        return code, caplog.text + capsys.readouterr().err

    return run


def check_end(end: tuple[int, str]) -> None:
    """It is an exit code of ours, and lines that show all that is in them."""
    code, told = end
    assert code in OUR_CODES and told.strip()
    assert "Traceback" not in told and not UNSEEN.search(told)
    assert max(map(len, told.splitlines())) < 11_000


def each(table: dict[str, str]) -> list[object]:
    return [pytest.param(value, id=name) for name, value in table.items()]


@pytest.mark.parametrize("address", each(ADDRESSES))
def test_pictures_from_a_strange_address(address: str, ends: Callable[..., tuple[int, str]]) -> None:
    check_end(ends("ingest_images", "--images-uri", address, "--output", "images"))


@pytest.mark.parametrize("address", each(ADDRESSES))
def test_base_model_from_a_strange_address(address: str, ends: Callable[..., tuple[int, str]]) -> None:
    check_end(ends("import_base_model", "--source", address, "--store-uri", "store", "--output", "reference"))


@pytest.mark.parametrize("address", each(ADDRESSES))
def test_registry_at_a_strange_address(address: str, ends: Callable[..., tuple[int, str]]) -> None:
    check_end(ends("publish", "list", "--registry-uri", address))


@pytest.mark.parametrize("address", each(ADDRESSES))
def test_sample_of_a_strange_address(address: str, ends: Callable[..., tuple[int, str]]) -> None:
    check_end(ends("textual-inversion", "sample", "--concept", address, "--prompt", "<x>", "--accelerator", "cpu"))


@pytest.mark.parametrize("address", each(ADDRESSES))
def test_preflight_of_strange_addresses(address: str, ends: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    names = ("storage_uri", "images_uri", "scoring_images_uri", "base_model", "scorer")
    word = {"placeholder_token": "<x>", "initializer_token": "x", "learnable_property": "object"}
    (tmp_path / "run.json").write_text(json.dumps({**word, **dict.fromkeys(names, address)}))
    check_end(ends("preflight", "run.json"))


DOCUMENTS = {
    "deep": b"[" * 100_000,
    "deep-object": b'{"a":' * 100_000,
    "huge-number": b'{"seed": ' + b"9" * 10_000 + b"}",
    "infinite": b'{"learning_rate": 1e400}',
    "nan": b'{"learning_rate": NaN}',
    "surrogate": b'{"images_uri": "\\ud800"}',
    "nul": b'{"images_uri": "/\\u0000"}',
    "no-utf8": b'{"images_uri": "\xe4"}',
    "list": b"[]",
    "number": b"1",
    "empty": b"",
    "not-json": b"\x00\xff",
    "ten-megabytes": b'{"images_uri": "' + b"a" * 10_000_000 + b'"}',
    "ten-megabytes-of-a-name": b'{"' + b"a" * 10_000_000 + b'": 1}',
    "addresses-without-end": b'{"images_uri": "' + b"s3://a:" * 1_000_000 + b'"}',
    "many-prompts": json.dumps({"evaluation_prompts": ["a photo of {}" * 100] * 100}).encode(),
    "object-for-a-text": b'{"images_uri": {"a": [1, null]}}',
    "null": b'{"seed": null, "images_uri": null}',
    "kfp": b'{"images_uri": "{{$.inputs.parameters[\'storage_uri\']}}"}',
    "argo": b'{"evaluation_prompts": ["a {} of {{workflow.name}}"]}',
    "argo-in-an-object": b'{"accelerator_node_selector": {"a": "{{workflow.name}}"}}',
}


@pytest.mark.parametrize("document", each(DOCUMENTS))  # type: ignore[arg-type]
def test_preflight_of_a_strange_document(document: bytes, ends: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(document)
    check_end(ends("preflight", "run.json"))


COMMANDS = {
    "run-number": ["run", "--max-train-steps", "9" * 5_000],
    "run-infinite": ["run", "--learning-rate", "1e400"],
    "run-deep": ["run", "--accelerator-node-selector", "[" * 50_000],
    "run-unknown": ["run", "--\x1b[31m"],
    "run-no-utf8": ["run", "--images-uri", NO_UTF8],
    "run-kfp": ["run", "--base-model", "{{$}}"],
    "run-argo": ["run", "--placeholder-token", "{{workflow.uid}}"],
    "run-out-kfp": ["run", "--preset", "sprites", "--out", "{{$.pipeline_root}}"],
    "run-out-no-utf8": ["run", "--preset", "sprites", "--out", NO_UTF8],
    "run-out-workspace": ["run", "--preset", "sprites", "--out", "/kfp-workspace/x"],
    "run-out-is-a-file": ["run", "--preset", "sprites", "--out", "/etc/hostname/x"],
    "run-out-long": ["run", "--preset", "sprites", "--out", "o" * 300],
    "compile-long": ["compile", "--out", "o" * 300],
    "sample-count": ["sample", "--concept", "x", "--prompt", "x", "--count", "9" * 5_000],
    "sample-no-command": ["simple"],
}


@pytest.mark.parametrize("command", each(COMMANDS))  # type: ignore[arg-type]
def test_command_with_strange_arguments(command: list[str], ends: Callable[..., tuple[int, str]]) -> None:
    check_end(ends("textual-inversion", *command))


ENDPOINTS = {
    "port": "http://127.0.0.1:99999",
    "half-ipv6": "http://[::1",
    "escape-sequence": "http://\x1b[31m:9",
    "password-with-slash": "http://user:pass/word@127.0.0.1:1",
    "no-scheme": "nonsense",
    "no-host": "http://",
}


@pytest.mark.parametrize("endpoint", each(ENDPOINTS))
def test_strange_endpoints_in_the_environment(
    endpoint: str, ends: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ENDPOINT_URL", "STORAGE_EMULATOR_HOST", "HF_ENDPOINT"):
        monkeypatch.setenv(name, endpoint)
    for address in ("s3://bucket/x", "gs://bucket/x", "hf://datasets/owner/name"):
        code, told = ends("ingest_images", "--images-uri", address, "--output", "images")
        check_end((code, told))
        assert "word" not in told


def test_unknown_level_of_logs(ends: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTUAL_INVERSION_LOG_LEVEL", "LOUD\n")
    check_end(ends("publish", "list", "--registry-uri", "registry"))


CONFIGS: tuple[type[Config], ...] = (
    IngestConfig,
    ImportConfig,
    InitConfig,
    TrainStepConfig,
    EvaluateConfig,
    PublishConfig,
)
TEXTS = {
    "ten-megabytes": "x" * 10_000_000,
    "nul": "a\0b",
    "half-a-character": "a\ud800",
    "kfp": "{{$.inputs.artifacts['a'].path}}",
    "signature": "s3://bucket/x?X-Amz-Signature=abcdef",
    "hub-token": "hf_" + "aB3" * 12,
}


@pytest.mark.parametrize("text", each(TEXTS))
def test_no_option_takes_what_no_text_may_be(text: str, record_property: Callable[[str, object], None]) -> None:
    known = {"placeholder_token": "<x>", "initializer_token": "x", "learnable_property": "object", "storage_uri": "/x"}
    names = ("images_uri", "base_model", "scorer", "placeholder_token", "initializer_token", "evaluation_prompts")
    names += ("accelerator_node_selector", "concept_name", "registry_alias", "storage_uri", "resume_from_checkpoint")
    for name in names:
        value = {"label": text} if name.endswith("selector") else [text] if name.endswith("prompts") else text
        with pytest.raises(TextualInversionError) as refused:
            check_options({**known, name: value})
        assert any(mistake.startswith(f"{name}: found") for mistake in refused.value.mistakes)
        assert max(map(len, refused.value.mistakes)) <= 10_000
    record_property("tried", len(names))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__name__)
def test_strange_text_for_the_config_of_a_step(
    config: type[Config], record_property: Callable[[str, object], None]
) -> None:
    for document in DOCUMENTS.values():
        text = document.decode("utf-8", "surrogateescape")
        with pytest.raises(TextualInversionError):
            config.from_json(text)
    record_property("tried", len(DOCUMENTS))


OUTPUTS = {
    "below-a-file": "file/x",
    "a-file": "file",
    "a-fifo": "fifo",
    "a-socket": "socket",
    "no-folder-of-processes": "/proc/x/y",
    "long": "o" * 300,
    "somebody-s-folder": "full",
    "link-in-a-circle": "circle/x",
}


@pytest.mark.parametrize("output", each(OUTPUTS))
def test_output_that_cannot_be(output: str, ends: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    (tmp_path / "circle").symlink_to("circle")
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        clip = str(SPRITES / "clip")
        check_end(ends("import_base_model", "--kind", "clip", "--source", clip, "--store-uri", "s", "--output", output))
        pictures = str(SPRITES / "concepts" / "purple-dotted-star" / "training")
        check_end(ends("ingest_images", "--images-uri", pictures, "--resolution", "8", "--output", output))
        assert (tmp_path / "file").read_text() == "mine"
        assert (tmp_path / "fifo").is_fifo() and (tmp_path / "socket").is_socket()


@pytest.mark.parametrize(
    ("step", "arguments"),
    [
        ("ingest_images", ["--images-uri", "pictures", "--output", "out", "--resolution", "512"]),
        ("import_base_model", ["--source", str(SPRITES / "base_model"), "--store-uri", "store", "--output", "out"]),
    ],
)
def test_full_disk_is_one_line(step: str, arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    Image.effect_noise((600, 600), 100).save(tmp_path / "pictures" / "noise.png")
    ended = subprocess.run(
        [sys.executable, "-m", f"components.{step}", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
        capture_output=True,
        text=True,
        check=False,
    )
    check_end((ended.returncode, ended.stderr))
    assert "File too large" in ended.stderr.splitlines()[-1]


def test_no_folder_for_temporary_files_is_one_line(tmp_path: Path) -> None:
    code = (
        "import tempfile, sys; from components.import_base_model.__main__ import main; "
        "tempfile._candidate_tempdir_list = lambda: ['/proc/x']; main()"
    )
    arguments = ["--source", str(SPRITES / "base_model"), "--store-uri", "store", "--output", "out"]
    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
    )
    check_end((ended.returncode, ended.stderr))
    assert "TMPDIR" in ended.stderr
