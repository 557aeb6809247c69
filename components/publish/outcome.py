"""What a run came to, for machines: as an event of the log, and in Prometheus' text format."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.common.artifacts import Evaluation, LearnedEmbedding
from components.common.prompts import concept_name
from components.common.storage import open_store
from components.publish.config import PublishConfig
from components.publish.publish import Published

Labels = Mapping[str, str]

_PREFIX = "textual_inversion_last_run"
_ESCAPED = {"\\": r"\\", '"': r"\"", "\n": r"\n"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run came to, of one word.

    Attributes:
        concept: its name in the registry.
        placeholder_token: what stands in a prompt.
        run_id: the run; empty when there is none.
        passed: whether the evaluation accepted it; else nothing was published.
        version: what was published; None when nothing was.
        promoted: whether the alias points at that version.
        reason: why the alias moved or did not, or why nothing was published.
        steps: of the optimizer, taken for these rows.
        scores: by variant and score.
        norms: mean Euclidean norm of the rows by text encoder.
    """

    concept: str
    placeholder_token: str
    run_id: str
    passed: bool
    version: int | None
    promoted: bool
    reason: str
    steps: int
    scores: Mapping[str, Mapping[str, float]]
    norms: Mapping[str, float]

    @classmethod
    def of(
        cls, config: PublishConfig, published: Published | None, *, learned_embedding: Path, evaluation: Path
    ) -> Outcome:
        """The outcome of a run.

        Args:
            config: of the publishing step.
            published: what it published; None when the evaluation did not pass.
            learned_embedding: folder of the `LearnedEmbedding`.
            evaluation: folder of its `Evaluation`.

        Raises:
            ArtifactError: when an artifact is damaged.
        """
        learned, judged = LearnedEmbedding.read(learned_embedding), Evaluation.read(evaluation)
        return cls(
            concept=config.concept_name or concept_name(learned.placeholder_token),
            placeholder_token=learned.placeholder_token,
            run_id=config.run_id,
            passed=judged.passed,
            version=published.entry.version if published else None,
            promoted=published is not None and published.promotion.promoted,
            reason=published.promotion.sentence if published else " ".join(judged.reasons),
            steps=learned.steps,
            scores=judged.scores,
            norms={name: float(np.linalg.norm(rows, axis=1).mean()) for name, rows in learned.rows.items()},
        )

    def as_json(self) -> dict[str, Any]:
        """The outcome by field name, as JSON values."""
        return dataclasses.asdict(self)

    def as_prometheus(self, now: float) -> str:
        """The outcome in Prometheus' text format, version 0.0.4; no sample has a time of its own, as collectors ask.

        Args:
            now: Unix time, seconds.
        """
        own = {"concept": self.concept}
        scores = [
            ({**own, "variant": variant, "score": name}, value)
            for variant, values in self.scores.items()
            for name, value in values.items()
        ]
        return "".join(
            [
                *_gauge("timestamp_seconds", "Unix time at which the last run was published or refused.", [(own, now)]),
                *_gauge("passed", "1 if the evaluation accepted the embedding, else 0.", [(own, self.passed)]),
                *_gauge("promoted", "1 if the alias points at the version of the run.", [(own, self.promoted)]),
                *_gauge("version", "Version in the registry; 0 if none was published.", [(own, self.version or 0)]),
                *_gauge("training_steps", "Optimizer steps taken.", [(own, self.steps)]),
                *_gauge(
                    "embedding_norm",
                    "Mean Euclidean norm of the learned rows.",
                    [({**own, "encoder": name}, norm) for name, norm in self.norms.items()],
                ),
                *_gauge("score", "Scores of the evaluation by what was scored.", scores),
            ]
        )

    def write_metrics(self, metrics_uri: str, now: float) -> str:
        """The address of the file `CONCEPT.prom`, written anew in a folder.

        Raises:
            StorageError: when it cannot be written.
        """
        store, name = open_store(metrics_uri), f"{self.concept}.prom"
        store.write(name, self.as_prometheus(now).encode())
        return store.uri_of(name)


def _gauge(name: str, meaning: str, samples: Sequence[tuple[Labels, float]]) -> Iterator[str]:
    yield f"# HELP {_PREFIX}_{name} {meaning}\n# TYPE {_PREFIX}_{name} gauge\n"
    for labels, value in samples:
        told = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        yield f"{_PREFIX}_{name}{{{told}}} {float(value)!r}\n"


def _escaped(text: str) -> str:
    return re.sub(r'[\\"\n]', lambda found: _ESCAPED[found[0]], text)
