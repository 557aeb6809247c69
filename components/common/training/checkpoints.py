"""Checkpoints of a training: a few kilobytes each, in object storage, found again by the training key.

One checkpoint is one safetensors object `{root}/{training_key}/step-00000500.safetensors`, so that it is there whole or
not at all. It holds all that the next step needs, whichever framework and however many processes take it:

    rows.<text encoder>, first_moment.<..>, second_moment.<..>     float32 [n, d]
    losses                                                         float32 [step]
    fixed_batch_losses                                             float32 [looks]
    progress                                                       float64 [lines, numbers], see `metrics.Metrics`
    snapshot.<step>.<text encoder>                                 float32 [n, d]
    header: format, version, step, micro-batch size, the fields of the training key, and a digest of the tensors

Checkpoints of one key are stations of one and the same training, whichever run wrote them. A run may go back to an
earlier one by name, or start anew, while later ones exist: it leaves those alone and writes over them as it comes to
their steps. If it ends before, `latest` goes on from the furthest of all.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from components.common.artifact_folder import canonical_json, sha256_of
from components.common.artifacts import Rows, Snapshot
from components.common.errors import ArtifactError, ConfigError, ObjectNotFoundError
from components.common.storage import ObjectStore
from components.common.storage.store import run_parallel
from components.common.training import metrics
from components.common.training.config import differing_fields

logger = logging.getLogger(__name__)

_FORMAT = "textual-inversion/checkpoint"
_VERSION = "1"
_SUFFIX = ".safetensors"
CHECKPOINT_KEY = re.compile(rf"(?P<training>[0-9a-f]{{64}})/(?P<name>step-\d{{8,}}){re.escape(_SUFFIX)}")
"""A checkpoint's key below the checkpoint root: the training's key and the checkpoint's name."""
_HISTORY = ("losses", "fixed_batch_losses")
_PROGRESS = "progress"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingState:
    """What an optimizer step changes: float32 [n, d] arrays by text encoder, after `step` steps.

    The moments are AdamW's running means of the gradient and of its square, not corrected for their bias. The
    micro-batch size, samples that a device takes at once, does not determine the rows but how their gradient was
    rounded.
    """

    step: int
    rows: Rows
    first_moment: Rows
    second_moment: Rows
    micro_batch_size: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A training state with the history so far.

    Attributes:
        state: after the last step.
        losses: float32 [step], of every step.
        fixed_batch_losses: float32 [looks], what early stopping has seen.
        snapshots: the rows at some steps.
        progress: the numbers of every progress line.
    """

    state: TrainingState
    losses: np.ndarray
    fixed_batch_losses: np.ndarray
    snapshots: tuple[Snapshot, ...]
    progress: tuple[metrics.Metrics, ...] = ()

    @property
    def name(self) -> str:
        """The object's name, such as `step-00000500`."""
        return f"step-{self.state.step:08d}"


def training_key(key_fields: Mapping[str, Any]) -> str:
    """The digest of all that determines the learned rows: runs with the same key learn the same."""
    return sha256_of(canonical_json(dict(key_fields)))


class CheckpointFolder:
    """The checkpoints of one training, under `{root}/{training_key}` of an object store."""

    def __init__(self, store: ObjectStore, key_fields: Mapping[str, Any], *, total_limit: int = 0) -> None:
        """Takes the store of the checkpoint root; `total_limit` checkpoints are kept, 0 keeps all."""
        self._store = store
        self._key_fields = dict(key_fields)
        self._total_limit = total_limit
        self._sound: set[str] = set()
        self.training_key = training_key(key_fields)

    def uri_of(self, checkpoint: Checkpoint) -> str:
        """The address of a checkpoint."""
        return self._store.uri_of(self._key(checkpoint.name))

    def save(self, checkpoint: Checkpoint) -> None:
        """Writes a checkpoint, then deletes the oldest beyond the limit.

        The limit is on checkpoints of at most this step; later ones are left alone. Those that this object has written
        or read are kept before others, which may be damaged.

        Raises:
            StorageError: when storage stays away; what was saved before is untouched.
        """
        own = self._key(checkpoint.name)
        self._store.write(own, self._to_bytes(checkpoint))
        self._sound.add(own)
        if self._total_limit:
            reached = [key for key in self._keys() if key <= own]
            for key in sorted(reached, key=lambda key: (key in self._sound, key))[: -self._total_limit]:
                self._store.delete(key)

    def latest(self, *, at_most: int) -> Checkpoint | None:
        """The sound checkpoint of most steps up to `at_most`, or None; damaged ones are passed over with a warning.

        It is the one furthest in the training, not the one written last: see the module's docstring.

        Raises:
            StorageError: when storage cannot be read.
        """
        for key in reversed(self._keys()):
            try:
                checkpoint = self._read(key)
            except ArtifactError as error:
                logger.warning("passing over a damaged checkpoint: %s", error)
                continue
            if checkpoint.state.step <= at_most:
                return checkpoint
        return None

    def named(self, name: str) -> Checkpoint:
        """The checkpoint `name` of this training, such as `step-00000500`.

        Raises:
            ObjectNotFoundError: when there is none of that name.
            ArtifactError: when it is damaged.
            ConfigError: when it is of another training, or there is one of that name of another training alone.
        """
        name = name.removesuffix(_SUFFIX)
        try:
            return self._read(self._key(name))
        except ObjectNotFoundError:
            if other := self.nearest_other(name):
                raise ConfigError(
                    f"resume_from_checkpoint: {name} is not of this training, key {self.training_key[:12]}: {other}: "
                    "give the same values to go on from it, or choose latest or none to train with these"
                ) from None
            raise

    def nearest_other(self, name: str | None = None) -> str | None:
        """Which other training below this root differs least, and in what, as words; None where there is no other.

        Args:
            name: look only at checkpoints of this name.

        Raises:
            StorageError: when storage cannot be read.
        """
        newest: dict[str, str] = {}
        for info in self._store.list():
            found = CHECKPOINT_KEY.fullmatch(info.key)
            if found and found["training"] != self.training_key and name in (None, found["name"]):
                newest[found["training"]] = info.key
        compared = zip(newest.values(), run_parallel(self._differing_fields, zip(newest.values())), strict=True)
        nearest = min(((len(differing), key, differing) for key, differing in compared if differing), default=None)
        return nearest and f"{self._store.uri_of(nearest[1])} differs in {_in_words(nearest[2])}"

    def _differing_fields(self, key: str) -> dict[str, tuple[Any, Any]]:
        """In what another training's checkpoint differs; nothing when it is gone by now, or damaged."""
        try:
            return differing_fields(self._key_fields, json.loads(_header_of(self._store.read(key))["key_fields"]))
        except (ObjectNotFoundError, KeyError, ValueError) as error:
            logger.info("passing over %s: %s", self._store.uri_of(key), error)
            return {}

    def _read(self, key: str) -> Checkpoint:
        checkpoint = self._from_bytes(self._store.read(key), self._store.uri_of(key))
        self._sound.add(key)
        return checkpoint

    def _key(self, name: str) -> str:
        return f"{self.training_key}/{name}{_SUFFIX}"

    def _keys(self) -> list[str]:
        listed = self._store.list(f"{self.training_key}/")
        return sorted(info.key for info in listed if CHECKPOINT_KEY.fullmatch(info.key))

    def _to_bytes(self, checkpoint: Checkpoint) -> bytes:
        state = checkpoint.state
        tensors = {name: np.asarray(getattr(checkpoint, name), np.float32) for name in _HISTORY}
        if checkpoint.progress:
            tensors[_PROGRESS] = metrics.to_array(checkpoint.progress)
        for part in ("rows", "first_moment", "second_moment"):
            tensors |= {f"{part}.{name}": value for name, value in getattr(state, part).items()}
        for snapshot in checkpoint.snapshots:
            tensors |= {f"snapshot.{snapshot.step}.{name}": value for name, value in snapshot.rows.items()}
        header = {
            "format": _FORMAT,
            "version": _VERSION,
            "step": str(state.step),
            "micro_batch_size": json.dumps(state.micro_batch_size),
            "key_fields": json.dumps(self._key_fields, sort_keys=True),
            "tensors_sha256": _digest_of(tensors),
        }
        return safetensors.numpy.save(tensors, metadata=header)

    def _from_bytes(self, data: bytes, uri: str) -> Checkpoint:
        try:
            tensors = safetensors.numpy.load(data)
            header = _header_of(data)
            if (header["format"], header["version"]) != (_FORMAT, _VERSION):
                raise ArtifactError(
                    f"{uri} is a {header['format']} of version {header['version']}, expected {_VERSION}"
                )
            if _digest_of(tensors) != header["tensors_sha256"]:
                raise ArtifactError(f"{uri} does not match its digest: delete it")
            differing = differing_fields(self._key_fields, json.loads(header["key_fields"]))
        except (safetensors.SafetensorError, KeyError, ValueError) as error:
            raise ArtifactError(f"{uri} is no checkpoint ({error}): delete it") from error
        if differing:
            raise ConfigError(
                f"{uri} is of another training, differs in {_in_words(differing)}: give the same values, or delete it"
            )
        return _checkpoint(int(header["step"]), json.loads(header["micro_batch_size"]), tensors)


def _header_of(data: bytes) -> dict[str, str]:
    header: dict[str, str] = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    return header


def _in_words(differing: Mapping[str, tuple[Any, Any]]) -> str:
    return "; ".join(f"{name}: found {theirs!r}, expected {ours!r}" for name, (ours, theirs) in differing.items())


def _checkpoint(step: int, micro_batch_size: int | None, tensors: Mapping[str, np.ndarray]) -> Checkpoint:
    parts: dict[str, dict[str, np.ndarray]] = {"rows": {}, "first_moment": {}, "second_moment": {}}
    snapshots: dict[int, dict[str, np.ndarray]] = {}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        if part in parts:
            parts[part][rest] = value
        elif part == "snapshot":
            at, _, encoder = rest.partition(".")
            snapshots.setdefault(int(at), {})[encoder] = value
    return Checkpoint(
        state=TrainingState(step=step, micro_batch_size=micro_batch_size, **parts),
        **{name: tensors[name] for name in _HISTORY},
        snapshots=tuple(Snapshot(step=at, rows=snapshots[at]) for at in sorted(snapshots)),
        progress=metrics.from_array(tensors[_PROGRESS]) if _PROGRESS in tensors else (),
    )


def _digest_of(tensors: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensors[name]).tobytes())
    return digest.hexdigest()
