"""The numbers of a training at one step: a line of the log, of `metrics.jsonl`, and a point of a tracker's curves."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from components.common.artifacts import Rows

FILE = "metrics.jsonl"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metrics:
    """What is known of a training after `step` steps.

    Attributes:
        step: optimizer steps taken.
        loss: the mean of the losses since the line before.
        lr: the learning rate of this step.
        rows_norm: the mean Euclidean norm of the rows, as a multiple of that of the vocabulary's rows.
        samples_per_second: over all processes, since the line before or since this process began.
        memory_bytes: the most memory that the first process, or its device, has used so far.
        fixed_batch_loss: the newest look at the fixed batch since the line before; NaN where there was none.
    """

    step: int
    loss: float
    lr: float
    rows_norm: float
    samples_per_second: float
    memory_bytes: int
    fixed_batch_loss: float = math.nan

    def known(self) -> dict[str, float]:
        """The numbers by name, without those that there are none of."""
        return {name: value for name, value in dataclasses.asdict(self).items() if not math.isnan(value)}


_NAMES = tuple(field.name for field in dataclasses.fields(Metrics))


def to_array(lines: Sequence[Metrics]) -> np.ndarray:
    """The lines as float64 [lines, numbers], in which whole numbers are exact."""
    return np.array([dataclasses.astuple(line) for line in lines], np.float64).reshape(len(lines), len(_NAMES))


def from_array(values: np.ndarray) -> tuple[Metrics, ...]:
    """The lines that `to_array` has written."""
    named = [dict(zip(_NAMES, line, strict=True)) for line in values.tolist()]
    return tuple(
        Metrics(**{**line, "step": int(line["step"]), "memory_bytes": int(line["memory_bytes"])}) for line in named
    )


def to_json_lines(lines: Iterable[Metrics], word: str = "") -> bytes:
    """The lines as JSON, each an object of the numbers that are known, after the word if one is given."""
    named = {"word": word} if word else {}
    return "".join(json.dumps({**named, **line.known()}) + "\n" for line in lines).encode()


def from_json_lines(data: bytes) -> tuple[Metrics, ...]:
    """The lines that `to_json_lines` has written."""
    return tuple(Metrics(**json.loads(line)) for line in data.splitlines())


def mean_norm(rows: Rows, units: Mapping[str, float]) -> float:
    """The mean Euclidean norm of the rows, float32 [n, d] by text encoder, each in its encoder's unit."""
    norms = [np.linalg.norm(values, axis=1) / units[name] for name, values in rows.items()]
    return float(np.concatenate(norms).mean())
