"""The lines that tell how far an import is."""

from __future__ import annotations

import logging
import threading

import pytest

from components.import_base_model import progress
from components.import_base_model.progress import Progress


def test_progress_when_files_are_done_counts_files_and_bytes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, progress.logger.name)

    with Progress({"unet": 1_720_000_000, "vae": 160_000_000}) as lines:
        for name in ("vae", "unet"):
            with lines.file(name):
                pass

    assert ["1 of 2 files" in message for message in caplog.messages] == [True, False]
    assert "160.0 MB of 1.88 GB" in caplog.messages[0]
    assert caplog.messages[1].endswith("unet")


def test_progress_when_a_file_takes_long_tells_what_is_on_its_way(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, progress.logger.name)
    monkeypatch.setattr(progress, "HEARTBEAT_S", 0.01)
    told = threading.Event()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.set()

    listener = Listener()
    progress.logger.addHandler(listener)
    try:
        with Progress({"unet": 1_720_000_000}) as lines, lines.file("unet"):
            assert told.wait(30)
    finally:
        progress.logger.removeHandler(listener)

    assert "0 of 1 files" in caplog.messages[0]
    assert "on its way: unet (1.72 GB)" in caplog.messages[0]
