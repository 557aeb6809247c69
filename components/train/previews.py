"""Pictures of the new word while it is learned, drawn by one process at a time beside the training."""

from __future__ import annotations

import dataclasses
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from components.common.cli import TIMINGS_VARIABLE
from components.common.storage import ObjectStore
from components.common.training import beside
from components.train.preview import PreviewConfig

logger = logging.getLogger(__name__)

LAST_PREVIEW_SECONDS = 240.0
"""How long a finished training waits for the last pictures: less than torchrun's other nodes wait for it, 300 s."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preview:
    """Pictures, uint8 [H, W, 3] each, of the rows after `step` steps."""

    step: int
    pictures: tuple[np.ndarray, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _AtWork:
    process: subprocess.Popen[bytes]
    step: int
    config: PreviewConfig
    log: Path


class Previews:
    """The pictures of one training."""

    def __init__(
        self,
        *,
        framework: str,
        model: Path,
        accelerator: str,
        prompt: str,
        num_images: int,
        seed: int,
        store: ObjectStore,
        training_key: str,
    ) -> None:
        """Draws nothing yet.

        Args:
            framework: `torch` or `flax`: what draws.
            model: a diffusers folder with the parts of the base model that draw.
            accelerator: where the rows are trained; TPUs, which belong to one process, leave drawing to the CPU.
            prompt: the prompt, with the placeholder in it.
            num_images: how many pictures at a time.
            seed: that of the first picture.
            store: the checkpoint root.
            training_key: the digest that names the training.
        """
        self._module = f"components.train.{framework}.preview"
        self._model, self._accelerator = model, "cpu" if accelerator == "tpu" else accelerator
        self._prompt, self._num_images, self._seed = prompt, num_images, seed
        self._store, self._training_key = store, training_key
        self._scratch = tempfile.TemporaryDirectory(prefix="textual-inversion-")
        self._at_work: _AtWork | None = None
        self._skipped = 0

    def start(self, step: int, concept: bytes) -> None:
        """Begins to draw with a learned-embedding file; left out, with a warning, while earlier pictures are drawn."""
        if self._at_work:
            self._skipped += 1
            if self._skipped == 1:
                logger.warning(
                    "validation_steps: no pictures of step %d, since those of step %d are still being drawn: give more "
                    "steps or fewer num_validation_images",
                    *(step, self._at_work.step),
                )
            return
        folder = Path(self._scratch.name, f"step-{step:08d}")
        folder.mkdir()
        (folder / "learned_embeds.safetensors").write_bytes(concept)
        config = PreviewConfig(
            model=str(self._model),
            concept=str(folder / "learned_embeds.safetensors"),
            accelerator=self._accelerator,
            prompt=self._prompt,
            num_images=self._num_images,
            seed=self._seed,
            folder=str(folder / "pictures"),
            uri=self._store.uri_of(beside.previews_key(self._training_key, step)),
        )
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in config.as_json().items()]
        log = folder / "log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", self._module, *flags],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=file,
                env=self._environment(),
            )
        self._at_work = _AtWork(process=process, step=step, config=config, log=log)

    def finished(self) -> Preview | None:
        """The pictures that were begun last, once, when they are there; a failure is a warning."""
        if self._at_work is None or self._at_work.process.poll() is None:
            return None
        done, self._at_work = self._at_work, None
        self._let_go(done)
        if done.process.returncode != 0:
            said = done.log.read_text(errors="replace").strip().rpartition("\n")[2] or "it said nothing"
            logger.warning(
                "no pictures of step %d: drawing them ended with %d: %s", done.step, done.process.returncode, said
            )
            return None
        files = sorted(Path(done.config.folder).iterdir(), key=lambda file: int(file.stem))
        logger.info("pictures of step %d: %s", done.step, done.config.uri)
        return Preview(step=done.step, pictures=tuple(np.asarray(Image.open(file)) for file in files))

    def wait(self, seconds: float = LAST_PREVIEW_SECONDS) -> None:
        """Returns when nothing is being drawn, or after so many seconds."""
        if self._at_work:
            deadline = time.monotonic() + seconds
            while self._at_work.process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.1)

    def close(self) -> None:
        """Ends what is still at work, and says how many pictures were left out."""
        if self._at_work:
            self._at_work.process.kill()
            self._let_go(self._at_work)
            logger.warning("no pictures of step %d: the training ended before they were drawn", self._at_work.step)
            self._at_work = None
        if self._skipped:
            logger.info("validation_steps: %d times no pictures, as earlier ones were being drawn", self._skipped)
        self._scratch.cleanup()

    @staticmethod
    def _let_go(done: _AtWork) -> None:
        assert done.process.stdin
        done.process.stdin.close()
        done.process.wait()

    def _environment(self) -> dict[str, str]:
        """This process's, without what only it may do; JAX takes memory as it needs it, and keeps what it compiles."""
        environment = {name: value for name, value in os.environ.items() if name != TIMINGS_VARIABLE}
        environment.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(self._scratch.name, "compiled")))
        environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        if self._accelerator == "cpu":
            environment["JAX_PLATFORMS"] = "cpu"
        return environment
