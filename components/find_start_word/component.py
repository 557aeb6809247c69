"""The face in a pipeline of the step that looks for the start word."""

from kfp import dsl

from components.common.images import image


@dsl.component(base_image=image("train-torch"), install_kfp_package=False)
def find_start_word(
    config: str,
    image_set: dsl.Input[dsl.Dataset],
    latent_set: dsl.Input[dsl.Dataset],
    base_model: dsl.Input[dsl.Model],
    scorer: dsl.Input[dsl.Model],
    start_word: dsl.Output[dsl.Artifact],
) -> None:
    """Measures how well words explain the pictures before training, and finds the best one where none is given.

    Args:
        config: A FindStartWordConfig as JSON; a list of them for several words.
        image_set: The prepared pictures.
        latent_set: The same pictures, encoded.
        base_model: Reference of the base model.
        scorer: Reference of the CLIP model, which makes a large vocabulary small.
        start_word: The word to start from, and the losses.
    """
    from pathlib import Path

    from components.common.cli import step_boundary
    from components.common.words import configs_of, for_each_word, metadata_of
    from components.find_start_word.config import FindStartWordConfig
    from components.find_start_word.find import find_start_word as step

    with step_boundary("find_start_word"):
        words = for_each_word(
            step,
            configs_of(FindStartWordConfig, config),
            image_set=Path(image_set.path),
            latent_set=Path(latent_set.path),
            base_model=Path(base_model.path),
            scorer=Path(scorer.path),
            output=Path(start_word.path),
        )
        facts = [
            {
                "display_name": "Start word",
                "word": found.word,
                "loss": found.loss,
                "no_word_loss": found.no_word_loss,
            }
            for found in words
        ]
        start_word.metadata.update(metadata_of(facts))
