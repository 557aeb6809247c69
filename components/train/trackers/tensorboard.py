"""TensorBoard's event files: in a folder while the training runs, in object storage from checkpoint to checkpoint.

A TensorBoard on the checkpoint root, or on `logging_dir`, shows every training as a run of its own.
"""

from __future__ import annotations

import io
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from components.common.artifact_addresses import is_remote
from components.common.storage import open_store
from components.common.storage.addresses import local_path
from components.common.training import beside
from components.common.training.metrics import Metrics
from components.train.trackers.tracking import Tracked


class TensorBoardTracker:
    """One event file of this process, which has every line of the training.

    What an earlier process wrote may be of steps that are taken again, or lost since its last checkpoint: TensorBoard
    is told to forget it, and is given the lines that the checkpoint has.
    """

    def __init__(self, tracked: Tracked) -> None:
        """Begins the file."""
        uri = beside.events_uri(tracked.store.uri, tracked.training_key, tracked.logging_dir)
        self._scratch = tempfile.TemporaryDirectory(prefix="textual-inversion-") if is_remote(uri) else None
        self._folder = Path(self._scratch.name) if self._scratch else local_path(uri)
        self._store = open_store(uri)
        self._writer = EventFileWriter(str(self._folder))
        self._add(0, session_log=SessionLog(status=SessionLog.START))
        text = json.dumps(dict(tracked.config), indent=2, ensure_ascii=False)
        self._add(0, summary=text_pb("config", f"```json\n{text}\n```"))

    def begin(self, progress: Sequence[Metrics]) -> None:
        """See `Tracker`."""
        for line in progress:
            self.log(line)
        self.keep()

    def log(self, line: Metrics) -> None:
        """See `Tracker`."""
        numbers = line.known()
        step = int(numbers.pop("step"))
        values = [Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
        self._add(step, summary=Summary(value=values))

    def show(self, pictures: Sequence[np.ndarray], step: int) -> None:
        """See `Tracker`."""
        values = [
            Summary.Value(tag=f"preview/{number}", image=_encoded(pixels)) for number, pixels in enumerate(pictures)
        ]
        self._add(step, summary=Summary(value=values))

    def keep(self) -> None:
        """See `Tracker`."""
        self._writer.flush()
        if self._scratch:
            for file in self._folder.iterdir():
                self._store.upload_file(file, file.name)

    def end(self) -> None:
        """See `Tracker`."""
        self.keep()
        self._writer.close()
        if self._scratch:
            self._scratch.cleanup()

    def _add(self, step: int, **what: Summary | SessionLog) -> None:
        self._writer.add_event(Event(wall_time=time.time(), step=step, **what))


def _encoded(pixels: np.ndarray) -> Summary.Image:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    height, width, channels = pixels.shape
    return Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=data.getvalue())
