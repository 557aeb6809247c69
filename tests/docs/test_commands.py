"""The commands that the pages print, as they stand there, as far as they go without a cluster and a cloud."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import types
from pathlib import Path

import pytest

from components.common.cli import parse_flags
from components.preflight.options import check_options, known_options
from components.publish.config import PublishConfig
from components.publish.publish import publish
from pipelines import environment
from pipelines.cli import _parser as command_parser
from pipelines.cli import main
from pipelines.concepts_file import read_fleet
from pipelines.parameters import given_options
from pipelines.presets import PRESETS
from tests.docs.pages import PAGES, ROOT, blocks_of, calls_of, name_of, write_files
from tests.manifests.rendering import render
from tests.manifests.test_deploy import NO_CLUSTER
from tests.pipelines.cluster.backend import KfpServer, node
from tests.pipelines.cluster.conftest import kfp_server  # noqa: F401 - pytest finds fixtures by name
from tests.pipelines.cluster.test_fleet import FILE
from tests.publish.conftest import write_inputs
from tests.servers import which

CLOUDS = {
    "gcloud container node-pools create": "project location cluster machine-type accelerator tpu-topology "
    "workload-metadata spot enable-autoscaling num-nodes min-nodes max-nodes",
    "gcloud storage buckets create": "project location uniform-bucket-level-access",
    "gcloud storage buckets update": "lifecycle-file",
    "gcloud storage buckets add-iam-policy-binding": "member role",
    "gcloud storage cp": "recursive",
    "gcloud iam service-accounts create": "project",
    "gcloud iam service-accounts add-iam-policy-binding": "project member role",
    "aws s3api put-bucket-lifecycle-configuration": "bucket lifecycle-configuration",
}
"""What pages may ask of clouds, and the flags: none of it is run."""
PROGRAMS = {"textual-inversion", "make", "kubectl", *(command.split()[0] for command in CLOUDS)}

NODES = [
    node("preflight", "Succeeded"),
    node("import-base-model", "Succeeded", at=10),
    node("ingest-images", "Succeeded", at=20),
    node("train", "Failed", at=30, message="main: Error (exit code 5): loss is not finite at step 7"),
]
LOG = "the whole log of Train"
CAT = "images_uri: gs://bucket/cat\nplaceholder_token: <cat>\ninitializer_token: cat\n"


@pytest.fixture(params=PAGES, ids=name_of)
def page(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def folder(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a reader of the page is: a checkout whose manifests may be changed, with the files that the page shows."""
    here = tmp_path / "checkout"
    shutil.copytree(ROOT / "manifests", here / "manifests")
    for name in ("Makefile", "components", "containers", "examples", "pipelines"):
        (here / name).symlink_to(ROOT / name)
    (here / "cat.yaml").write_text(CAT, encoding="utf-8")
    (here / "concepts.yaml").write_text(FILE, encoding="utf-8")
    (here / "hub-token.env").write_text("HF_TOKEN=hf_not_a_token\n", encoding="utf-8")
    write_files(page, here)
    monkeypatch.chdir(here)
    return here


@pytest.fixture
def cluster(kfp_server: KfpServer, monkeypatch: pytest.MonkeyPatch) -> KfpServer:  # noqa: F811
    """An installation where runs fail in *Train*: `cat-toy` has, and others do while somebody waits for them."""

    def fail(seconds: float = 0) -> None:
        for run_id, run in kfp_server.runs.items():
            run["state"] = "FAILED"
            kfp_server.set_workflow(run_id, NODES)

    monkeypatch.setattr("pipelines.cluster.watching.time", types.SimpleNamespace(sleep=fail, monotonic=lambda: 0.0))
    kfp_server.logs[f"wf-abc-system-container-impl-{NODES[-1]['id'].rpartition('-')[2]}"] = LOG
    for number, name in enumerate(("cat", "cat-toy")):
        run_id = f"00000000-0000-4000-8000-00000000000{number}"
        kfp_server.runs[run_id] = {"run_id": run_id, "display_name": name, "created_at": "2026-11-29T03:00:00Z"}
    fail()
    return kfp_server


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    """A folder in the place of gs://my-bucket: three versions of cat-toy, the last of which is a candidate."""
    registry = str(tmp_path / "bucket" / "textual-inversion" / "registry")
    for number in (1, 2, 3):
        inputs = write_inputs(tmp_path / f"inputs-{number}", seed=number)
        alias = "candidate" if number == 3 else "champion"
        config = PublishConfig(registry_uri=registry, registry_alias=alias, promote_if="always")
        publish(config, **vars(inputs), output=tmp_path / f"published-{number}")
    return tmp_path / "bucket"


def test_commands_do_what_the_page_says(
    page: Path, folder: Path, cluster: KfpServer, bucket: Path, capsys: pytest.CaptureFixture[str]
):
    capsys.readouterr()
    calls = calls_of(page, folder, PROGRAMS)
    for program, *arguments in calls:
        if program == "textual-inversion":
            run_command([argument.replace("gs://my-bucket", str(bucket)) for argument in arguments])
        elif program == "make":
            check_make(arguments, folder)
        elif program == "kubectl":
            run_kubectl(arguments, folder)
        else:
            check_cloud([program, *arguments], folder)
    told = normalized(capsys.readouterr().out)
    for block in blocks_of(page):
        if block.info == "text":
            missing = [line for line in normalized(block.text) if line not in told]
            assert not missing, f"{missing} in {told}"


def run_command(arguments: list[str]) -> None:
    """Runs `textual-inversion` with these arguments; what draws or trains is only checked."""
    if "--help" in arguments:
        with pytest.raises(SystemExit, match="0"):
            main(arguments)
        return
    parsed = parse_flags(command_parser(), arguments, options=known_options())
    match arguments[0]:
        case "run":
            options = {**PRESETS[parsed.preset], "storage_uri": "gs://my-bucket/store", **given_options(parsed)}
            check_options(options) if parsed.concepts is None else read_fleet(parsed.concepts, options)
        case "sample":
            assert parsed.prompt
        case "status" | "submit" if parsed.command.__name__ == "status_" or parsed.watch:
            assert main(arguments) in (0, 1)
        case _:
            assert main(arguments) == 0, arguments


def check_make(arguments: list[str], folder: Path) -> None:
    """Checks that make knows the targets and variables; what would be deployed is rendered."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for argument in arguments:
        name, is_variable, _ = argument.replace(".venv/.ready", "$(READY)").partition("=")
        assert re.search(rf"\b{name}\b" if is_variable else rf"^{re.escape(name)}:", makefile, re.M), argument
    for overlay in re.findall(r"OVERLAY=(\S+)", " ".join(arguments)):
        assert render(folder / "manifests" / "overlays" / overlay)


def run_kubectl(arguments: list[str], folder: Path) -> None:
    """Runs kubectl as far as a cluster that is not there."""
    known = "".join(file.read_text("utf-8") for file in (ROOT / "manifests").rglob("*.yaml"))
    for name in re.findall(r"textual-inversion-[a-z-]+", " ".join(arguments)):
        assert name in known or name in vars(environment).values(), name
    if arguments[0] == "kustomize":
        assert render(folder / arguments[1])
        return
    (folder / "kubeconfig").write_text(NO_CLUSTER)
    done = subprocess.run(
        [which("kubectl"), *arguments],
        cwd=folder,
        env={**os.environ, "KUBECONFIG": str(folder / "kubeconfig")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode != 0 and "refused" in done.stderr, done.stderr


def check_cloud(call: list[str], folder: Path) -> None:
    """Checks that the call is one of `CLOUDS`, and that its files are there."""
    words = [word for word in call if not word.startswith("--")]
    command = next((known for known in CLOUDS if words[: len(known.split())] == known.split()), "")
    flags = {word.removeprefix("--").partition("=")[0] for word in call if word.startswith("--")}
    assert command and flags <= set(CLOUDS[command].split()), call
    for file in re.findall(r"(?:manifests|examples)/[\w/.-]+", " ".join(call)):
        assert (folder / file).exists(), file


def normalized(text: str) -> list[str]:
    """The lines without what is different every time: ids, times, addresses, versions of the pipeline, spaces."""
    for pattern, name in (
        (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "ID"),
        (r"http://127\.0\.0\.1:\d+", "HOST"),
        (r"\d+\.\d+\.\d+-[0-9a-f]{12}", "VERSION"),
        (r"(\d{4}-)?\d\d-\d\d \d\d:\d\d(:\d\d)?", "TIME"),
        (r"\d\d:\d\d:\d\d", "TIME"),
        (r"VERSION (uploaded|is there already)", "VERSION"),
    ):
        text = re.sub(pattern, name, text)
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]
