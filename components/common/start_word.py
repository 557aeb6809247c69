"""The word that training starts from: how it is written, and the artifact that says how it was found."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.common.artifact_folder import ArtifactFolder, read_artifact, write_artifact

AUTO = "auto"
"""The initializer token that stands for the word which explains the pictures best."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Word:
    """A word as the manifest holds it."""

    word: str
    loss: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Measured:
    """The words that the manifest lists."""

    best: tuple[_Word, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StartWord:
    """What words explain of the pictures before training: the mean squared error of the prediction, less is better.

    Attributes:
        word: the word, or words, to start from.
        was_given: whether a person chose it, so that others were not looked for.
        template: the prompt that every word was measured in.
        loss: of `word`.
        no_word_loss: of the same prompt with the word left out.
        best: the best words measured with their losses, the best first; empty where none was looked for.
        base_model_digest: of the model that they were measured with.
        latent_set_digest: of the pictures.
        digest: of the artifact it was read from.
    """

    word: str
    was_given: bool
    template: str
    loss: float
    no_word_loss: float
    best: Mapping[str, float]
    base_model_digest: str
    latent_set_digest: str
    digest: str = ""

    KIND = "start-word"
    VERSION = 1

    def write(self, path: Path) -> ArtifactFolder:
        """Writes `artifact.json`, which holds all of it, under `path`."""
        content: dict[str, Any] = {name: value for name, value in vars(self).items() if name != "digest"}
        content["best"] = [{"word": word, "loss": loss} for word, loss in self.best.items()]  # objects lose their order
        return write_artifact(path, kind=self.KIND, version=self.VERSION, content=content, files={})

    @classmethod
    def read(cls, path: Path) -> StartWord:
        """The start word at `path`. Raises `ArtifactError` when it is missing, damaged or something else."""
        folder = read_artifact(path, kind=cls.KIND, version=cls.VERSION)
        measured = folder.record(_Measured, folder.content).best
        best = {each.word: each.loss for each in measured}
        return folder.record(cls, folder.content, best=best, digest=folder.digest)
