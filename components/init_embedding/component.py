"""The initialisation step's face in a pipeline."""

from kfp import dsl

from components.common.images import image


@dsl.component(base_image=image("tokenizer"), install_kfp_package=False)
def init_embedding(
    config: str,
    base_model: dsl.Input[dsl.Model],
    start_word: dsl.Input[dsl.Artifact],
    initial_embedding: dsl.Output[dsl.Model],
) -> None:
    """Adds the placeholder to the tokenizer and copies a known word's row for each of its vectors.

    Args:
        config: An InitConfig as JSON; a list of them for several words.
        base_model: Reference of the base model.
        start_word: The word to start from where none is given.
        initial_embedding: The placeholder's tokens and the rows that training starts from.
    """
    from pathlib import Path

    from components.common.cli import step_boundary
    from components.common.words import configs_of, for_each_word, metadata_of
    from components.init_embedding.config import InitConfig
    from components.init_embedding.initialize import init_embedding as step

    with step_boundary("init_embedding"):
        words = configs_of(InitConfig, config)
        embeddings = for_each_word(
            step,
            words,
            base_model=Path(base_model.path),
            output=Path(initial_embedding.path),
            start_word=Path(start_word.path),
        )
        facts = [
            {
                "display_name": "Initial embedding",
                **word.as_json(),
                "initializer_token": embedding.initializer_token,
                "digest": embedding.digest,
            }
            for word, embedding in zip(words, embeddings, strict=True)
        ]
        initial_embedding.metadata.update(metadata_of(facts))
