"""Two of the same, and more, at once: trainings, downloads, imports, publications, lists; and what the dead leave."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from components.common.base_model import blob_key, materialize
from components.common.errors import ObjectNotFoundError
from components.common.registry import registry
from components.common.registry.versions import publish_version
from components.common.storage import open_store
from components.common.storage.local_files import RESERVED_PREFIX, _place, temporary_beside
from components.import_base_model.importing import import_base_model
from tests.common.test_base_model import CONTENT, content_of, stored
from tests.common.training.bowl import bowl_checkpoints, train_bowl
from tests.publish.test_versions import at_once, make_bundle

REPOSITORY = Path(__file__).resolve().parents[2]
RACERS = 8
SECONDS = 2.0

TRAINING = """
import hashlib, sys
from tests.common.training.bowl import ENCODER, train_bowl

found = train_bowl(sys.argv[1], checkpoints_total_limit=int(sys.argv[2]), checkpointing_steps=2)
state = found.state
arrays = [state.rows, state.first_moment, state.second_moment, *(each.rows for each in found.snapshots)]
data = b"".join(each[ENCODER].tobytes() for each in arrays) + found.losses.tobytes()
print(found.state.step, hashlib.sha256(data).hexdigest())
"""


@contextmanager
def meanwhile(function: Callable[[], object]) -> Iterator[None]:
    """Calls a function again and again, in a thread, as long as the block runs."""
    stop = threading.Event()

    def again() -> None:
        while not stop.is_set():
            function()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(again)
        try:
            yield
        finally:
            stop.set()
        running.result()


def printed_by(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


@pytest.mark.parametrize("total_limit", [0, 1])
def test_trainings_of_one_key_at_once_learn_the_same_bit_by_bit(total_limit: int, tmp_path: Path) -> None:
    expected = printed_by(TRAINING, str(tmp_path / "alone"), "0")
    with ThreadPoolExecutor(RACERS) as pool:
        racers = [pool.submit(printed_by, TRAINING, str(tmp_path / "all"), str(total_limit)) for _ in range(RACERS)]
        assert {racer.result() for racer in racers} == {expected}
    latest = bowl_checkpoints(tmp_path / "all").latest(at_most=23)
    assert latest is not None and latest.state.step == 23
    assert printed_by(TRAINING, str(tmp_path / "all"), str(total_limit)) == expected


def test_latest_checkpoint_is_found_while_another_training_deletes(tmp_path: Path) -> None:
    template = train_bowl(tmp_path / "template", max_train_steps=1)
    writer = bowl_checkpoints(tmp_path / "all", total_limit=1)

    def at_step(step: int) -> None:
        state = dataclasses.replace(template.state, step=step)
        writer.save(dataclasses.replace(template, state=state, losses=template.losses.repeat(step)))
        time.sleep(0.01)

    at_step(1)
    steps = iter(range(2, 10**6))
    found = [1]
    with meanwhile(lambda: at_step(next(steps))):
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            latest = bowl_checkpoints(tmp_path / "all").latest(at_most=10**6)
            assert latest is not None
            found.append(latest.state.step)
    assert found == sorted(found)
    assert len(set(found)) > 5


def test_list_leaves_out_what_others_delete_meanwhile(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.write("kept/always", b"")
    names = [f"kept/{number}/x" for number in range(20)]

    def come_and_go() -> None:
        for name in names:
            store.write(name, b"data")
        for name in names:
            store.delete(name)
            (tmp_path / name).with_name(f"{RESERVED_PREFIX}lock").unlink(missing_ok=True)
            (tmp_path / name).parent.rmdir()

    def look() -> int:
        end = time.monotonic() + SECONDS
        looks = 0
        while time.monotonic() < end:
            found = {info.key: info.size for info in store.list("kept/")}
            assert found.pop("kept/always") == 0
            assert set(found.values()) <= {4}
            for name in names[:3]:
                store.exists(name)
                try:
                    assert store.read(name) == b"data"
                except ObjectNotFoundError:
                    looks += 1
        return looks

    with meanwhile(come_and_go):
        assert all(at_once([look] * (RACERS - 1)))


def test_downloads_of_one_model_at_once_are_whole_while_somebody_damages_the_cache(tmp_path: Path) -> None:
    reference = stored(str(tmp_path / "store"))
    weights = tmp_path / "cache" / blob_key(reference.files["vae/diffusion_pytorch_model.safetensors"].sha256)

    def damage() -> None:
        weights.unlink(missing_ok=True)
        time.sleep(0.01)

    def download() -> Path:
        return materialize(reference, None, tmp_path / "cache")

    with meanwhile(damage):
        for _ in range(5):
            assert len(set(at_once([download] * RACERS))) == 1
    assert content_of(download()) == CONTENT


def test_models_that_share_files_are_downloaded_at_once(tmp_path: Path) -> None:
    whole = stored(str(tmp_path / "store"))
    parts = [
        dataclasses.replace(whole, files={name: whole.files[name] for name in sorted(whole.files)[number % 4 :]})
        for number in range(RACERS)
    ]
    folders = at_once([lambda part=part: materialize(part, None, tmp_path / "cache") for part in parts])
    for part, folder in zip(parts, folders, strict=True):
        assert content_of(folder) == {name: CONTENT[name] for name in part.files}


def test_imports_of_one_model_at_once_are_whole(tiny_sd15: Path, tmp_path: Path) -> None:
    def imported(number: int) -> str:
        output = tmp_path / f"reference-{number}"
        return import_base_model(str(tiny_sd15), str(tmp_path / "store"), output).digest

    assert len(set(at_once([lambda number=number: imported(number) for number in range(4)]))) == 1
    again = import_base_model(str(tiny_sd15), str(tmp_path / "store"), tmp_path / "reference")
    assert len(content_of(materialize(again, None, tmp_path / "cache"))) == len(again.files)


def test_publishers_of_one_bundle_mend_a_version_at_once(tmp_path: Path) -> None:
    store = open_store(f"{tmp_path}/cat-toy")
    first = publish_version(store, make_bundle(), "run-0")
    for name in ("claim.json", "README.md", "manifest.json"):
        if name != "claim.json":
            store.write(f"versions/1/{name}", b"damaged")
    entries = at_once([lambda: publish_version(store, make_bundle(), "run-9")] * RACERS)
    assert {entry.to_bytes() for entry in entries} == {first.to_bytes()}
    assert registry.verify(str(tmp_path), "cat-toy") == []


def dead_process() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    ("name", "hours", "stays"),
    [
        pytest.param(lambda: f"{_place()}-{dead_process()}-ab", 0, False, id="dead here"),
        pytest.param(lambda: f"{_place()}-{os.getpid()}-ab", 0, True, id="alive here"),
        pytest.param(lambda: f"{_place()}-1-ab", 0, True, id="somebody else's here"),
        pytest.param(lambda: f"{_place()}-{10**30}-ab", 0, False, id="no process"),
        pytest.param(lambda: f"another-{dead_process()}-ab", 0, True, id="elsewhere"),
        pytest.param(lambda: f"another-{dead_process()}-ab", 23, True, id="elsewhere for hours"),
        pytest.param(lambda: f"another-{os.getpid()}-ab", 25, False, id="elsewhere for a day"),
        pytest.param(lambda: "4711-ab", 0, True, id="of an earlier release"),
        pytest.param(lambda: "4711-ab", 25, False, id="of an earlier release for a day"),
    ],
)
def test_temporary_files_of_the_dead_are_removed(
    name: Callable[[], str], hours: float, stays: bool, tmp_path: Path
) -> None:
    left = tmp_path / f"{RESERVED_PREFIX}{name()}.part"
    left.write_bytes(b"half")
    os.utime(left, (time.time() - hours * 3600,) * 2)
    other = tmp_path / "somebody's.part"
    other.write_bytes(b"mine")
    os.utime(other, (0, 0))
    with temporary_beside(tmp_path / "object") as temporary:
        temporary.write_bytes(b"")
    assert left.exists() is stays
    assert other.exists()


def test_what_a_killed_download_leaves_is_removed_from_the_cache(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from components.common.storage.local_files import temporary_beside\n"
        "with temporary_beside(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_bytes(b'half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    reference = stored(str(tmp_path / "store"))
    blobs = [
        tmp_path / root / blob_key(file.sha256) for root in ("store", "cache") for file in reference.files.values()
    ]
    for blob in blobs[::4]:
        subprocess.run([sys.executable, "-c", program, str(blob)], cwd=REPOSITORY, check=False)
    assert list(tmp_path.rglob("*.part"))
    materialize(reference, None, tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.part"))
