"""Who looks on while a training runs: what it sees goes beside the checkpoints and to the trackers.

Nothing here stops a training: what fails is a warning.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Sequence
from types import TracebackType

from components.common.artifacts import InitialEmbedding, Rows, learned_embeds_bytes
from components.common.base_model import ModelReference, materialize
from components.common.errors import StorageError
from components.common.families import training_parts
from components.common.storage import ObjectStore
from components.common.training import beside
from components.common.training.config import TrainConfig
from components.common.training.metrics import Metrics, to_json_lines
from components.common.training.watch_config import WatchConfig
from components.train.previews import Previews
from components.train.trackers.tracking import Tracked, Trackers

logger = logging.getLogger(__name__)


class TrainingWatcher(contextlib.AbstractContextManager["TrainingWatcher"]):
    """A `Watcher` of the loop; as a context it ends with the training, be it finished or failed."""

    def __init__(
        self,
        *,
        embedding: InitialEmbedding,
        store: ObjectStore,
        training_key: str,
        save_steps: int,
        validation_steps: int,
        trackers: Trackers,
        previews: Previews | None,
        clip_skip: int,
    ) -> None:
        """Takes what looks on.

        Args:
            embedding: whose rows are trained.
            store: the checkpoint root.
            training_key: the digest that names the training.
            save_steps: steps between two files of the rows.
            validation_steps: steps between two previews.
            trackers: who draws curves.
            previews: who draws pictures, if anybody does.
            clip_skip: how many of the text encoder's last layers the rows are learned without.
        """
        self._token, self._store, self._training_key = embedding.placeholder_token, store, training_key
        self._save_steps, self._validation_steps = save_steps, validation_steps
        self._trackers, self._previews, self._clip_skip = trackers, previews, clip_skip

    def begin(self, progress: Sequence[Metrics]) -> None:
        """See `Watcher`."""
        if progress:
            self._keep(progress)
        self._trackers.begin(progress)

    def wants_rows(self, step: int) -> bool:
        """See `Watcher`."""
        return step % self._save_steps == 0 or self._is_drawn(step)

    def see_rows(self, step: int, rows: Rows) -> None:
        """See `Watcher`."""
        header = {"placeholder_token": self._token, "step": str(step), "training_key": self._training_key}
        concept = learned_embeds_bytes(self._token, rows, header, clip_skip=self._clip_skip)
        if step % self._save_steps == 0:
            key = beside.snapshot_key(self._training_key, step)
            _warned(lambda: self._store.write(key, concept))
        if self._previews and self._is_drawn(step):
            self._show_finished()
            self._previews.start(step, concept)

    def see_progress(self, line: Metrics) -> None:
        """See `Watcher`."""
        self._trackers.log(line)
        self._show_finished()

    def see_checkpoint(self, progress: Sequence[Metrics]) -> None:
        """See `Watcher`."""
        self._keep(progress)
        self._trackers.keep()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Waits for the last pictures of a training that is finished, and lets everybody go."""
        if self._previews:
            if kind is None:
                self._previews.wait()
                self._show_finished()
            self._previews.close()
        if kind is None or not issubclass(kind, StorageError):  # else what is away would be waited for once more
            self._trackers.end()

    def _is_drawn(self, step: int) -> bool:
        return self._previews is not None and step % self._validation_steps == 0

    def _show_finished(self) -> None:
        if self._previews and (preview := self._previews.finished()):
            self._trackers.show(preview.pictures, preview.step)

    def _keep(self, progress: Sequence[Metrics]) -> None:
        """Writes all lines anew: an object cannot be appended to, and a training that goes on has those it resumes."""
        _warned(lambda: self._store.write(beside.metrics_key(self._training_key), to_json_lines(progress)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Watched:
    """What is the same for the watchers of all words of a training.

    Attributes:
        config: what is shown.
        trackers: the names of those who draw curves.
        store: the checkpoint root.
        framework: `torch` or `flax`.
        accelerator: where it trains.
        reference: the base model.
    """

    config: WatchConfig
    trackers: Sequence[str]
    store: ObjectStore
    framework: str
    accelerator: str
    reference: ModelReference


def training_watcher(
    watched: Watched, config: TrainConfig, embedding: InitialEmbedding, training_key: str
) -> TrainingWatcher:
    """Who looks on while a word is trained, in the process of rank 0.

    Args:
        watched: what is shown, and where it goes.
        config: how the word is trained.
        embedding: whose rows are trained.
        training_key: the digest that names the training.
    """
    tracked = Tracked(
        training_key=training_key,
        config={**config.as_json(), **watched.config.as_json()},
        placeholder_token=embedding.placeholder_token,
        store=watched.store,
        logging_dir=watched.config.logging_dir,
    )
    return TrainingWatcher(
        embedding=embedding,
        store=watched.store,
        training_key=training_key,
        save_steps=config.save_steps,
        validation_steps=watched.config.validation_steps,
        previews=_previews(watched, config, tracked) if watched.config.draws else None,
        trackers=Trackers(watched.trackers, tracked),
        clip_skip=config.clip_skip,
    )


def _previews(watched: Watched, config: TrainConfig, tracked: Tracked) -> Previews:
    """Who draws pictures while it trains, with the parts of the base model that it needs."""
    return Previews(
        framework=watched.framework,
        model=materialize(watched.reference, (*training_parts(watched.reference.subfolders), "vae")),
        accelerator=watched.accelerator,
        prompt=watched.config.prompt_for(tracked.placeholder_token),
        num_images=watched.config.num_validation_images,
        seed=config.seed,
        store=tracked.store,
        training_key=tracked.training_key,
    )


def _warned(write: Callable[[], object]) -> None:
    try:
        write()
    except StorageError as error:
        logger.warning("the training goes on without: %s", error)
