"""Secrets that a step could see are in nothing that it leaves: not in artifacts, the registry, logs or messages."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from components.common.base_model import read_reference
from pipelines.step_log import StepLog
from tests.publish.conftest import write_inputs

SPRITES = Path(__file__).parents[2] / "examples" / "sprites"
SOURCE = SPRITES.parents[1]

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIAnobody",
    "AWS_SECRET_ACCESS_KEY": "canary-aws-secret/key+1",
    "AWS_SESSION_TOKEN": "canary-aws-session",
    "AWS_ENDPOINT_URL": "http://user:canary-endpoint@127.0.0.1:1",
    "AWS_REGION": "us-east-1",
    "HF_ENDPOINT": "http://user:canary-hub@127.0.0.1:1",
    "HF_TOKEN": "hf_canaryHubToken",
    "REGISTRY_PASSWORD": "canary-password",
    "TEXTUAL_INVERSION_RETRY_SECONDS": "0",
    "TEXTUAL_INVERSION_LOG_LEVEL": "DEBUG",
}
CANARY = "canary"
"""In each of these secrets, and in what lies beside the pictures and the weights."""

Step = Callable[..., tuple[int, str]]


@pytest.fixture
def step(tmp_path: Path) -> Step:
    """Runs a step's command with secrets in its environment; gives its exit code and what it wrote."""
    key = {
        "type": "service_account",
        "private_key": "-----BEGIN PRIVATE KEY-----\ncanary-google\n-----END PRIVATE KEY-----\n",
        "client_email": "robot@example.com",
        "token_uri": "http://127.0.0.1:1",
    }
    (tmp_path / "key.json").write_text(json.dumps(key))
    environment = {
        **os.environ,
        **ENVIRONMENT,
        "GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "key.json"),
        "TEXTUAL_INVERSION_CACHE": str(tmp_path / "out" / "cache"),
        "PYTHONPATH": str(SOURCE),
    }
    (tmp_path / "out").mkdir()

    def run(*arguments: str | Path) -> tuple[int, str]:
        ended = subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=tmp_path / "out",
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return ended.returncode, ended.stdout + ended.stderr

    return run


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of pictures, with secrets in their metadata and beside them."""
    folder = tmp_path / "pictures"
    (folder / "old").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "canary-png")
    Image.fromarray(pixels).save(folder / "a.png", pnginfo=text)
    exif = Image.Exif()
    exif[0x010E] = "canary-exif"
    Image.fromarray(255 - pixels).save(folder / "b.jpg", exif=exif, comment=b"canary-jpeg")
    for name in (".env", "secrets.txt", "id_rsa", "notes.md", "of-no-picture.txt", "old/credentials.json"):
        (folder / name).write_text(f"password={CANARY}-{name}\n")
    return folder


def files_with_a_secret(folder: Path) -> list[str]:
    """The files below a folder that hold a canary or are named by one; there is at least one file to look at."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert files
    return [str(file) for file in files if CANARY.encode() in file.read_bytes() or CANARY in file.name]


def test_secrets_are_in_nothing_that_steps_leave(
    step: Step, pictures: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    out, model = tmp_path / "out", tmp_path / "model"
    model.mkdir()
    for file in (SPRITES / "base_model").rglob("*"):
        if file.is_file():
            target = model / file.relative_to(SPRITES / "base_model")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    for name in (".env", "secrets.txt", "unet/.git-credentials", "token.json"):
        (model / name).write_text(json.dumps(f"{CANARY}-{name}"))
    told = []
    for arguments in (
        ("ingest_images", "--images-uri", pictures, "--resolution", "8", "--output", "images"),
        ("import_base_model", "--source", model, "--store-uri", "store", "--output", "reference"),
        ("init_embedding", "--base-model", "reference", "--placeholder-token", "<x>", "--initializer-token", "circle",
         "--output", "word"),
    ):  # fmt: skip
        code, text = step("-m", f"components.{arguments[0]}", *arguments[1:])
        assert code == 0, text
        told.append(text)
    inputs = write_inputs(tmp_path / "inputs", reference=read_reference(out / "reference"))
    folders = ("--base-model", inputs.base_model, "--learned-embedding", inputs.learned_embedding)
    code, text = step(
        *("-m", "components.publish", "publish", *folders, "--evaluation", inputs.evaluation),
        *("--registry-uri", "registry", "--output", "entry"),
    )
    assert code == 0, text
    assert (out / "registry" / "cat-toy" / "versions").is_dir()
    assert files_with_a_secret(out) == []
    told.append(text)
    assert not any(CANARY in text for text in told)
    record_property("tried", len(ENVIRONMENT) + 3 + 6 + 4)


ADDRESSES = {
    "s3-keys": "s3://AKIAnobody:canary/key@bucket/x",
    "s3-presigned": "s3://bucket/x?X-Amz-Signature=canary",
    "gs-userinfo": "gs://user:canary@bucket/x",
    "gs-signed": "gs://bucket/x?X-Goog-Signature=canary",
    "https": "https://user:canary@host/x",
    "hub-token": "hf://datasets/owner/name@hf_canaryHubToken",
    "hub-userinfo": "hf://user:canary@owner/name",
    "hub-query": "hf://owner/name?token=canary",
    "local-query": "folder?password=canary",
    "endpoint": "s3://bucket/x",
    "google-key": "gs://bucket/x",
    "hub": "hf://datasets/owner/name",
}


@pytest.mark.parametrize("address", ADDRESSES.values(), ids=list(ADDRESSES))
def test_secret_of_an_address_is_told_to_nobody(address: str, step: Step, tmp_path: Path) -> None:
    told = []
    for arguments in (
        ("ingest_images", "--images-uri", address, "--output", "images"),
        ("import_base_model", "--source", address.replace("hf://datasets/", "hf://"), "--store-uri", "store",
         "--output", "reference"),
        ("publish", "check", "--registry-uri", address),
    ):  # fmt: skip
        code, text = step("-m", f"components.{arguments[0]}", *arguments[1:])
        assert code in (2, 4), text
        told.append(text)
    assert not any(CANARY in text for text in told)
    assert not any((tmp_path / "out").rglob("artifact.json"))


def test_secret_of_a_traceback_is_masked(step: Step) -> None:
    code, told = step(
        "-c",
        "import os; from components.common.cli import step_boundary\n"
        "with step_boundary('x'):\n    raise ZeroDivisionError(os.environ['AWS_ENDPOINT_URL'], os.environ['HF_TOKEN'])",
    )
    assert code == 1 and "ZeroDivisionError" in told and "***" in told
    assert CANARY not in told


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mapping[str, str]]:
    """Secrets in the environment of this process."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    yield ENVIRONMENT


def test_secret_that_a_step_prints_is_masked_on_the_screen_and_in_the_log_of_a_run(
    environment: Mapping[str, str], record_property: Callable[[str, object], None]
) -> None:
    full, screen = io.StringIO(), io.StringIO()
    log = StepLog(full_log=full, screen=screen, titles={})
    log.write("12:00:00.000 - INFO - Executing task 'x'\n")
    for name, value in environment.items():
        log.write(f"    {name}={value}\n    {{'{name}': '{value}'}}\n")
    assert "AWS_ENDPOINT_URL=http://***@127.0.0.1:1" in screen.getvalue()
    assert CANARY not in screen.getvalue() + full.getvalue()
    record_property("tried", 2 * len(environment))
