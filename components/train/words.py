"""The words of a training: what is known of each before the models are loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from components.common.artifacts import InitialEmbedding, LatentSet
from components.common.errors import ArtifactError, ConfigError
from components.common.training.config import TrainConfig
from components.common.training.run_artifacts import check_that_they_belong_together
from components.common.training.watch_config import WatchConfig
from components.common.words import word_folders
from components.train.config import mistakes_with_several_words


@dataclasses.dataclass(frozen=True, kw_only=True)
class Word:
    """A word that is learned.

    Attributes:
        config: how to train it; words differ in what was learned and in the number of steps of an epoch alone.
        latents: all pictures.
        embedding: the rows to start from.
    """

    config: TrainConfig
    latents: LatentSet
    embedding: InitialEmbedding

    @property
    def token(self) -> str:
        """The placeholder."""
        return self.embedding.placeholder_token


def read_words(
    config: TrainConfig,
    *,
    latent_set: Path,
    initial_embedding: Path,
    learnable_properties: Sequence[str],
    num_processes: int,
) -> list[Word]:
    """The words of a training.

    Args:
        config: how to train.
        latent_set: folder of the LatentSet, or of those of several words.
        initial_embedding: folder of the InitialEmbedding, or of those of several words.
        learnable_properties: `object` or `style` for each word; none: as `config` says for all.
        num_processes: how many train together.

    Raises:
        ArtifactError: when an artifact is damaged or there is not the same number of each.
        ConfigError: when there is another number of properties.
    """
    latent_sets, embeddings = word_folders(latent_set), word_folders(initial_embedding)
    if len(latent_sets) != len(embeddings):
        raise ArtifactError(
            f"found latent sets of {len(latent_sets)} words and initial embeddings of {len(embeddings)}, expected the "
            "same words: pass what the steps before have made in one run"
        )
    properties = learnable_properties or [config.learnable_property] * len(embeddings)
    if len(properties) != len(embeddings):
        raise ConfigError(
            f"learnable_properties: found {', '.join(properties)} with {len(embeddings)} words, expected one for each"
        )
    return [
        _read_word(dataclasses.replace(config, learnable_property=each), latents, embedding, num_processes)
        for each, latents, embedding in zip(properties, latent_sets, embeddings, strict=True)
    ]


def _read_word(config: TrainConfig, latent_set: Path, initial_embedding: Path, num_processes: int) -> Word:
    latents = LatentSet.read(latent_set)
    return Word(
        config=config.with_steps(num_pictures=len(latents.latents), num_processes=num_processes),
        latents=latents,
        embedding=InitialEmbedding.read(initial_embedding),
    )


def check_words(words: Sequence[Word], base_model_digest: str, watching: WatchConfig) -> None:
    """Returns when these words can be trained together with a base model, and watched.

    Raises:
        ArtifactError, BaseModelError: when inputs are not of one base model, size and kind.
        ConfigError: when an option does not fit the words, naming each.
    """
    for word in words:
        check_that_they_belong_together(word.latents, word.embedding, base_model_digest)
    shapes = {word.latents.latents[0].mean.shape for word in words}
    if len(shapes) > 1:
        raise ArtifactError(
            f"the latent sets of the words have the shapes {sorted(shapes)}, expected one: prepare all pictures at one "
            "resolution"
        )
    tokens = [word.token for word in words]
    if len(set(tokens)) < len(tokens):
        raise ArtifactError(f"found the words {', '.join(tokens)}, expected each once")
    mistakes = [mistake for word in words for mistake in watching.mistakes_with(word.token)]
    if len(words) > 1:
        mistakes += mistakes_with_several_words(words[0].config, watching)
    if mistakes:
        raise ConfigError(*dict.fromkeys(mistakes))
