"""Checkpoints of a training: a few kilobytes each, in object storage, found again by the training key.

One checkpoint is one safetensors object `{root}/{training_key}/step-00000500.safetensors`, so that it is there whole or
not at all. It holds all that the next step needs, whichever framework and however many processes take it:

    rows.<text encoder>, first_moment.<..>, second_moment.<..>     float32 [n, d]
    ema.<text encoder>                                             float32 [n, d], with ema_decay alone
    losses                                                         float32 [step]
    fixed_batch_losses                                             float32 [looks]
    progress                                                       float64 [lines, numbers], see `metrics.Metrics`
    snapshot.<step>.<text encoder>                                 float32 [n, d]
    header: format, version, step, micro-batch size, the fields of the training key, and a digest of all else

Version 1, which is still read, has a digest of the tensors' names and bytes alone.

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
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from components.common.artifact_folder import canonical_json, sha256_of
from components.common.artifacts import Rows, Snapshot
from components.common.errors import ArtifactError, ConfigError, ObjectNotFoundError
from components.common.foreign_json import parse_json
from components.common.storage import ObjectStore
from components.common.storage.store import run_parallel
from components.common.training import metrics
from components.common.training.key_fields import differing_fields

logger = logging.getLogger(__name__)

_FORMAT = "textual-inversion/checkpoint"
_VERSION = "2"
_SUFFIX = ".safetensors"
CHECKPOINT_KEY = re.compile(rf"(?P<training>[0-9a-f]{{64}})/(?P<name>step-[0-9]{{8,}}){re.escape(_SUFFIX)}")
"""A checkpoint's key below the checkpoint root: the training's key and the checkpoint's name."""
_PARTS = ("rows", "first_moment", "second_moment", "ema")
_HISTORY = ("losses", "fixed_batch_losses")
_PROGRESS = "progress"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingState:
    """What an optimizer step changes: float32 [n, d] arrays by text encoder, after `step` steps.

    The moments are AdamW's running means of the gradient and of its square, not corrected for their bias. The
    micro-batch size, samples that a device takes at once, does not determine the rows but how their gradient was
    rounded. `ema` is the moving average of the rows; empty without `ema_decay`.
    """

    step: int
    rows: Rows
    first_moment: Rows
    second_moment: Rows
    micro_batch_size: int | None = None
    ema: Rows = dataclasses.field(default_factory=dict)

    @property
    def learned(self) -> Rows:
        """What a training that ended here would have learned: the average where there is one, else the rows."""
        return self.ema or self.rows


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
            reached = [key for key in self._keys() if _step_of(key) <= checkpoint.state.step]
            for key in sorted(reached, key=lambda key: (key in self._sound, _step_of(key)))[: -self._total_limit]:
                self._store.delete(key)

    def latest(self, *, at_most: int) -> Checkpoint | None:
        """The sound checkpoint of most steps up to `at_most`, or None; others are passed over with a warning.

        It is the one furthest in the training, not the one written last: see the module's docstring.

        Raises:
            ConfigError: when there is none, but one of another training was put in its place.
            StorageError: when storage cannot be read.
        """
        seen: set[str] = set()
        misplaced: ConfigError | None = None
        # Another training may write and delete: a folder's list may miss both what came and what went.
        while key := self._last_beside(seen) or self._last_beside(seen):
            seen.add(key)
            try:
                checkpoint = self._read(key)
            except ObjectNotFoundError as error:
                logger.info("deleted meanwhile: %s", error)
            except ArtifactError as error:
                logger.warning("passing over a damaged checkpoint: %s", error)
            except ConfigError as error:
                logger.warning("passing over a checkpoint: %s", error)
                misplaced = error
            else:
                if checkpoint.state.step <= at_most:
                    return checkpoint
        if misplaced:
            raise misplaced
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
            return differing_fields(self._key_fields, _header_of(self._store.read(key)).key_fields)
        except (ObjectNotFoundError, ValueError) as error:
            logger.info("passing over %s: %s", self._store.uri_of(key), error)
            return {}

    def _read(self, key: str) -> Checkpoint:
        checkpoint = self._from_bytes(self._store.read(key), self._store.uri_of(key))
        if self._key(checkpoint.name) != key:
            raise ArtifactError(f"{self._store.uri_of(key)} is the checkpoint {checkpoint.name}: rename or delete it")
        self._sound.add(key)
        return checkpoint

    def _key(self, name: str) -> str:
        return f"{self.training_key}/{name}{_SUFFIX}"

    def _keys(self) -> list[str]:
        """The keys of this training's checkpoints, in order of their steps."""
        listed = self._store.list(f"{self.training_key}/")
        return sorted((info.key for info in listed if CHECKPOINT_KEY.fullmatch(info.key)), key=_step_of)

    def _last_beside(self, seen: Collection[str]) -> str | None:
        return next((key for key in reversed(self._keys()) if key not in seen), None)

    def _to_bytes(self, checkpoint: Checkpoint) -> bytes:
        state = checkpoint.state
        tensors = {name: np.asarray(getattr(checkpoint, name), np.float32) for name in _HISTORY}
        if checkpoint.progress:
            tensors[_PROGRESS] = metrics.to_array(checkpoint.progress)
        for part in _PARTS:
            tensors |= {f"{part}.{name}": value for name, value in getattr(state, part).items()}
        for snapshot in checkpoint.snapshots:
            tensors |= {f"snapshot.{snapshot.step}.{name}": value for name, value in snapshot.rows.items()}
        header = {
            "format": _FORMAT,
            "version": _VERSION,
            "step": str(state.step),
            "micro_batch_size": json.dumps(state.micro_batch_size),
            "key_fields": json.dumps(self._key_fields, sort_keys=True),
        }
        return safetensors.numpy.save(tensors, metadata={**header, "digest": _digest_of(header, tensors)})

    def _from_bytes(self, data: bytes, uri: str) -> Checkpoint:
        try:
            header = _header_of(data)
            tensors = safetensors.numpy.load(data)
            if not header.covers(tensors):
                raise ArtifactError(f"{uri} does not match its digest: delete it")
            checkpoint = _checkpoint(header, tensors)
        except (safetensors.SafetensorError, KeyError, ValueError) as error:  # KeyError: a type that numpy has not
            raise ArtifactError(f"{uri} is no checkpoint ({error}): delete it") from error
        if differing := differing_fields(self._key_fields, header.key_fields):
            raise ConfigError(
                f"{uri} is of another training, differs in {_in_words(differing)}: give the same values, or delete it"
            )
        return checkpoint


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Header:
    """A checkpoint's header: its fields as they are written, and what they mean."""

    written: Mapping[str, str]
    step: int
    micro_batch_size: int | None
    key_fields: Mapping[str, Any]

    def covers(self, tensors: Mapping[str, np.ndarray]) -> bool:
        """Whether these tensors are those that it was written with."""
        if self.written["version"] == "1":
            return self.written["tensors_sha256"] == _tensors_sha256(tensors)
        covered = {name: value for name, value in self.written.items() if name != "digest"}
        return self.written["digest"] == _digest_of(covered, tensors)


def _header_of(data: bytes) -> _Header:
    """The header of a checkpoint's bytes. Raises `ValueError` when they have none of a version that is known."""
    described = parse_json(data[8 : 8 + int.from_bytes(data[:8], "little")])
    written = described.get("__metadata__") if isinstance(described, dict) else None
    if not isinstance(written, dict) or not all(isinstance(value, str) for value in written.values()):
        raise ValueError("it has no header")
    if (written.get("format"), written.get("version")) not in ((_FORMAT, "1"), (_FORMAT, _VERSION)):
        raise ValueError(
            f"found format {written.get('format')!r} version {written.get('version')!r}, "
            f"expected {_FORMAT} up to version {_VERSION}"
        )
    digest = "tensors_sha256" if written["version"] == "1" else "digest"
    if lacking := {"step", "micro_batch_size", "key_fields", digest} - set(written):
        raise ValueError(f"its header lacks {', '.join(sorted(lacking))}")
    step, micro_batch_size, key_fields = (
        parse_json(written[name]) for name in ("step", "micro_batch_size", "key_fields")
    )
    for name, value in (("step", step), ("micro_batch_size", 0 if micro_batch_size is None else micro_batch_size)):
        if type(value) is not int or value < 0:
            raise ValueError(f"found {name} {written[name][:40]!r}, expected a whole number")
    if not isinstance(key_fields, dict):
        raise ValueError(f"found key_fields {written['key_fields'][:40]!r}, expected an object")
    return _Header(written=written, step=step, micro_batch_size=micro_batch_size, key_fields=key_fields)


def _in_words(differing: Mapping[str, tuple[Any, Any]]) -> str:
    return "; ".join(
        f"{repr(name)[1:-1]}: found {theirs!r}, expected {ours!r}" for name, (ours, theirs) in differing.items()
    )


def _checkpoint(header: _Header, tensors: Mapping[str, np.ndarray]) -> Checkpoint:
    """The checkpoint of these tensors. Raises `ValueError` when they do not fit the header or each other."""
    parts: dict[str, dict[str, np.ndarray]] = {part: {} for part in _PARTS}
    snapshots: dict[int, dict[str, np.ndarray]] = {}
    history: dict[str, np.ndarray] = {}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        if name == _PROGRESS:
            continue
        if value.dtype != np.float32:
            raise ValueError(f"{name!r} is {value.dtype}, expected float32")
        if name != "fixed_batch_losses" and not np.isfinite(value).all():  # a look that is not finite stops no training
            raise ValueError(f"{name!r} is not finite")
        if part in parts:
            parts[part][rest] = value
        elif found := re.fullmatch(r"snapshot\.(0|[1-9][0-9]{0,17})\.(.+)", name, re.DOTALL):
            snapshots.setdefault(int(found[1]), {})[found[2]] = value
        elif name in _HISTORY and value.ndim == 1:
            history[name] = value
        else:
            raise ValueError(f"found the tensor {name!r} {list(value.shape)}, which no checkpoint has")
    _check_shapes([*(rows for part, rows in parts.items() if rows or part != "ema"), *snapshots.values()])
    if lacking := set(_HISTORY) - set(history):
        raise ValueError(f"it lacks {', '.join(sorted(lacking))}")
    if len(history["losses"]) != header.step or max(snapshots, default=0) > header.step:
        raise ValueError(
            f"its header says step {header.step}, found {len(history['losses'])} losses "
            f"and snapshots up to step {max(snapshots, default=0)}"
        )
    return Checkpoint(
        state=TrainingState(step=header.step, micro_batch_size=header.micro_batch_size, **parts),
        **history,
        snapshots=tuple(Snapshot(step=at, rows=snapshots[at]) for at in sorted(snapshots)),
        progress=metrics.from_array(tensors[_PROGRESS]) if _PROGRESS in tensors else (),
    )


def _check_shapes(all_rows: Collection[Mapping[str, np.ndarray]]) -> None:
    """Raises `ValueError` unless rows, moments and snapshots are of the same encoders and shapes [n, d]."""
    shapes = [{name: list(value.shape) for name, value in rows.items()} for rows in all_rows]
    for found in shapes:
        if found != shapes[0] or not found or any(len(shape) != 2 for shape in found.values()):
            raise ValueError(f"found rows of {found} beside {shapes[0]}, expected the same [n, d] of each text encoder")


def _step_of(key: str) -> int:
    return int(key.rpartition("/")[2].removeprefix("step-").removesuffix(_SUFFIX))


def _digest_of(header: Mapping[str, str], tensors: Mapping[str, np.ndarray]) -> str:
    """The digest of a header without it, and of the tensors' names, types, shapes and bytes."""
    described = {
        name: [str(value.dtype), list(value.shape), sha256_of(np.ascontiguousarray(value).tobytes())]
        for name, value in tensors.items()
    }
    return sha256_of(canonical_json({"header": dict(header), "tensors": described}))


def _tensors_sha256(tensors: Mapping[str, np.ndarray]) -> str:
    """The digest of version 1."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensors[name]).tobytes())
    return digest.hexdigest()
