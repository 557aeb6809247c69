"""The start word from artifacts to artifact: measured by the loss that training is going to make smaller.

Textual Inversion goes wrong first where it starts: from a word that explains less of the pictures than no word does,
every second seed learned nothing on the tiny world. CLIP's likeness of words and pictures alone does not tell: what
counts is what the diffusion model makes of a word.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from components.common.artifacts import ImageSet, LatentSet
from components.common.base_model import ModelReference, materialize, read_reference
from components.common.drawing import progress_line
from components.common.errors import ArtifactError, TokenError
from components.common.families import check_clip_skip, conditioning_layers, family_of, training_parts
from components.common.logs import log_config, versions
from components.common.prompts import templates_for
from components.common.sources.checks import read_configs, read_object
from components.common.start_word import AUTO, StartWord
from components.common.tokenizer import limit_to_text_encoder
from components.common.vocabulary import Tokenizer, initializer_ids, load_tokenizer
from components.find_start_word.candidates import nearest_words, whole_words
from components.find_start_word.config import FindStartWordConfig
from components.torch_models.clip_scorer import ClipScorer
from components.torch_models.denoising_loss import PromptLosses
from components.torch_models.loading import describe_device, device_for

logger = logging.getLogger(__name__)

MAX_PICTURES = 5
STRATA = 8
"""Equal parts of the noise schedule; a word is measured in the middle of each."""

TELLING_STRATA = (5, 6)
"""Those that tell words apart: much noise, so that the prompt decides, but not so much that nothing does."""

NEAREST = 200
"""Words that CLIP leaves of a large vocabulary."""

FINALISTS = 24
SHOWN = 10
GENERIC_WORDS = ("thing", "object", "person", "animal", "toy", "art", "pattern")
"""What a person may start from who does not know better."""


def find_start_word(
    config: FindStartWordConfig,
    *,
    image_set: Path,
    latent_set: Path,
    base_model: Path,
    scorer: Path,
    output: Path,
) -> StartWord:
    """The word to start from with its loss, written to `output`; a given one is only measured.

    Args:
        config: the word, or `auto`.
        image_set: folder of the ImageSet.
        latent_set: folder of the LatentSet of the same pictures.
        base_model: folder of the base model's reference.
        scorer: folder of the reference to a CLIP model, fetched only where the vocabulary is large.
        output: folder for the StartWord.

    Raises:
        TokenError: when the tokenizer does not know the given word, or no word at all.
        ArtifactError, BaseModelError, ConfigError, StorageError: when an input cannot be used.
    """
    log_config(logger, config.as_json())
    device = device_for(config.accelerator)
    logger.info("%s on %s", versions(["torch", "diffusers", "transformers"]), describe_device(device))
    images, latents, reference = ImageSet.read(image_set), LatentSet.read(latent_set), read_reference(base_model)
    _check_that_they_belong_together(images, latents, reference)
    model = materialize(reference, training_parts(reference.subfolders))
    family = family_of(reference.subfolders, read_object(model / "unet" / "config.json"))
    texts = read_configs(model, (each.part for each in family.text_encoders))
    check_clip_skip(config.clip_skip, conditioning_layers(family.text_encoders, texts))
    tokenizers = {
        each.part: limit_to_text_encoder(load_tokenizer(model / each.tokenizer), model / each.part)
        for each in family.text_encoders
    }
    tokenizer = next(iter(tokenizers.values()))  # of the same words as the others
    template = templates_for(config.learnable_property)[0]
    words: list[str] = []
    if config.initializer_token == AUTO:
        words = _words_to_look_at(tokenizer, images, scorer, device=device, template=template)
    else:
        initializer_ids(tokenizer, config.initializer_token)
    measure = PromptLosses(
        model,
        family,
        tokenizers,
        latents,
        device=device,
        strata=STRATA,
        template=template,
        max_pictures=MAX_PICTURES,
        clip_skip=config.clip_skip,
    )
    best = _best_words(measure, words)
    word = next(iter(best)) if config.initializer_token == AUTO else config.initializer_token
    found = StartWord(
        word=word,
        was_given=config.initializer_token != AUTO,
        template=template,
        loss=best[word] if word in best else measure.loss(word),
        no_word_loss=measure.loss(""),
        best=best,
        base_model_digest=reference.digest,
        latent_set_digest=latents.digest,
    )
    found.write(output)
    logger.info("%r has the loss %.4f, no word at all %.4f", found.word, found.loss, found.no_word_loss)
    if found.loss > found.no_word_loss:
        _warn(found, measure, tokenizer)
    return found


def _check_that_they_belong_together(images: ImageSet, latents: LatentSet, reference: ModelReference) -> None:
    for name, found, expected in (
        ("pictures", latents.image_set_digest, images.digest),
        ("base model", latents.base_model_digest, reference.digest),
    ):
        if found != expected:
            raise ArtifactError(
                f"the latent set was made from the {name} {found[:12]}, this step got {expected[:12]}: pass what "
                "the pictures were encoded from, or encode them again"
            )


def _words_to_look_at(
    tokenizer: Tokenizer, images: ImageSet, scorer: Path, *, device: torch.device, template: str
) -> list[str]:
    """The vocabulary's words, no more than `NEAREST`; CLIP is out of memory again before the UNet comes."""
    words = whole_words(tokenizer)
    if not words:
        raise TokenError(
            f"initializer_token: found {AUTO} with a vocabulary in which no whole word is one token, expected a word: "
            "give one"
        )
    if len(words) <= NEAREST:
        return words
    clip = ClipScorer(materialize(read_reference(scorer).without_subfolders), device=device)
    return nearest_words(words, images.pixels, clip, template=template, count=NEAREST)


def _best_words(measure: PromptLosses, words: Sequence[str]) -> dict[str, float]:
    """The best of the words, the best first: all are looked at where it tells, the better of them everywhere."""
    finalists = _ranked(measure, words, strata=TELLING_STRATA, label="first look at words")[:FINALISTS]
    ranked = _ranked(measure, [word for word, _ in finalists], strata=range(STRATA), label="second look at words")
    for word, loss in ranked[:SHOWN]:
        logger.info("%.4f %s", loss, word)
    return dict(ranked[:SHOWN])


def _ranked(
    measure: PromptLosses, words: Sequence[str], *, strata: Sequence[int], label: str
) -> list[tuple[str, float]]:
    """The words with their losses, the best first."""
    losses, started = dict[str, float](), time.monotonic()
    for word in words:
        losses[word] = measure.loss(word, strata)
        if len(losses) % FINALISTS == 0 or len(losses) == len(words):
            seconds = time.monotonic() - started
            logger.info("%s", progress_line(label, len(losses), len(words), seconds, "words/s"))
    return sorted(losses.items(), key=lambda measured: measured[1])


def _warn(found: StartWord, measure: PromptLosses, tokenizer: Tokenizer) -> None:
    known = [word for word in GENERIC_WORDS if len(tokenizer.tokenize(word)) == 1 and word != found.word]
    generic = _ranked(measure, known, strata=range(STRATA), label="generic words")
    told = f"; of some general words {generic[0][0]!r} is best with {generic[0][1]:.4f}" if generic else ""
    logger.warning(
        "initializer_token: %r explains the pictures worse than no word at all (loss %.4f against %.4f)%s: training "
        "may learn nothing from there%s",
        *(found.word, found.loss, found.no_word_loss, told),
        f", so choose another word, or {AUTO}" if found.was_given else "",
    )
