"""What a run came to, for a person and as `summary.json` for a program."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from components.common.artifacts import LEARNED_EMBEDS, Evaluation, LearnedEmbedding
from components.common.base_model import materialize, read_reference
from components.common.champion import judged_in
from components.common.printable import printable
from components.common.score_labels import METRICS, in_order, metric
from components.common.words import word_folders
from pipelines.local_run import LocalRun


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """What a run of the pipeline came to.

    Attributes:
        decision: why it has trained.
        embedding: the learned embedding, for `load_textual_inversion`.
        report: the evaluation's report, a web page.
        registry_entry: the published version's folder or address; None when nothing was published.
        alias_stays: why the registry's alias does not point at that version; empty when it does, or there is none.
        champion: how the samples compare with those of the version that the alias pointed at; empty when nobody looked.
        base_model: the base model's folder, for `from_pretrained`.
        placeholder_token: what stands in a prompt.
        initializer_token: what training started from.
        trained_by: what took the last training steps: framework and devices.
        scores: by variant (before, after, true_caption) and score (clip_i, clip_t).
        seconds: wall-clock seconds by step, of the steps that ran.
        passed: whether the quality gate let the embedding pass.
        reasons: why it did not.
        more_words: the same for each further word of the run.
    """

    decision: str
    embedding: str
    report: str
    registry_entry: str | None
    alias_stays: str
    champion: str
    base_model: str
    placeholder_token: str
    initializer_token: str
    trained_by: str
    scores: Mapping[str, Mapping[str, float]]
    seconds: Mapping[str, float]
    passed: bool
    reasons: tuple[str, ...]
    more_words: tuple[Summary, ...] = ()

    def write(self, file: Path) -> None:
        """Writes the summary as JSON."""
        content = dataclasses.asdict(self)
        if not self.more_words:
            del content["more_words"]
        _write(content, file)

    def outcome(self, shown: Callable[[str], str]) -> str:
        """In one line whether it was published; `shown` writes an address."""
        entry = self.registry_entry
        return f"published: {shown(entry)}" if entry else f"not published: {' '.join(self.reasons)}"

    def for_people(self, shown: Callable[[str], str]) -> str:
        """A few lines that say where things are and how good they are; `shown` writes a path or an address."""
        if not self.more_words:
            return "\n".join(self._lines(shown))
        words = (self, *self.more_words)
        return "\n\n".join("\n".join([printable(word.placeholder_token), *word._lines(shown)]) for word in words)

    def _lines(self, shown: Callable[[str], str]) -> list[str]:
        lines = [f"not published     {printable(reason)}" for reason in self.reasons]
        if self.registry_entry:
            lines.append(f"published         {shown(self.registry_entry)}")
        if self.alias_stays or self.champion:
            lines.append(f"champion          {printable(self.alias_stays or self.champion)}")
        lines.append(f"decision          {printable(self.decision)}")
        lines.append(f"trained by        {printable(self.trained_by)}")
        lines += [f"learned embedding {shown(self.embedding)}", f"report            {shown(self.report)}"]
        for variant, scores in self.scores.items():
            values = "   ".join(f"{metric(name).name} {scores[name]:.3f}" for name in in_order(scores, METRICS))
            lines.append(f"{variant.replace('_', ' '):<17} {values}")
        return lines


@dataclasses.dataclass(frozen=True, kw_only=True)
class NothingDone:
    """What a run came to that had nothing to do.

    Attributes:
        decision: why not.
        seconds: wall-clock seconds by step, of the steps that ran.
    """

    decision: str
    seconds: Mapping[str, float]

    def write(self, file: Path) -> None:
        """Writes the summary as JSON."""
        _write(dataclasses.asdict(self), file)

    def outcome(self, shown: Callable[[str], str]) -> str:
        """The decision; no address is in it that `shown` would write."""
        return self.decision

    def for_people(self, shown: Callable[[str], str]) -> str:
        """See `outcome`."""
        return printable(self.decision)


def _write(content: Mapping[str, Any], file: Path) -> None:
    file.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def summarize(run: LocalRun) -> Summary | NothingDone:
    """The summary of a local run of the pipeline in which no step failed.

    Raises:
        ArtifactError: when an artifact of the run is damaged.
    """
    if run.left_out:
        return NothingDone(decision=run.outputs["decision"], seconds=run.seconds)
    embeddings = word_folders(Path(run.outputs["learned_embedding"]))
    evaluations = word_folders(Path(run.outputs["evaluation"]))
    published = [run.outputs["published"]]
    if len(embeddings) > 1:  # a line for each, which begins with its placeholder
        published = [line.partition(": ")[2] for line in run.outputs["published"].split("\n")]
    model = str(materialize(read_reference(Path(run.outputs["base_model"]))))
    first, *others = (
        _summary_of_word(*each, model, run) for each in zip(embeddings, evaluations, published, strict=True)
    )
    return dataclasses.replace(first, more_words=tuple(others))


def _summary_of_word(embedding: Path, evaluation_folder: Path, published: str, model: str, run: LocalRun) -> Summary:
    learned, evaluation = LearnedEmbedding.read(embedding), Evaluation.read(evaluation_folder)
    judged = judged_in(evaluation.settings)
    address, _, alias_stays = published.partition(" ") if evaluation.passed else ("", "", "")
    return Summary(
        decision=run.outputs["decision"],
        embedding=str(embedding / LEARNED_EMBEDS),
        report=str(evaluation_folder / Evaluation.REPORT),
        registry_entry=local_path(address) or None,
        alias_stays=alias_stays,
        champion=judged.sentence if judged else "",
        base_model=model,
        placeholder_token=learned.placeholder_token,
        initializer_token=learned.initializer_token,
        trained_by=f"{learned.lineage['framework']} on {learned.lineage['devices']}",
        scores=evaluation.scores,
        seconds=run.seconds,
        passed=evaluation.passed,
        reasons=evaluation.reasons,
    )


def local_path(uri: str) -> str:
    """The path that a `file://` URI stands for; any other address as it is."""
    parts = urlsplit(uri)
    return unquote(parts.path) if parts.scheme == "file" else uri
