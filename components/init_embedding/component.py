"""The initialisation step's face in a pipeline."""

from kfp import dsl

from components.common.images import image


@dsl.component(base_image=image("tokenizer"), install_kfp_package=False)
def init_embedding(
    base_model: dsl.Input[dsl.Model],
    initial_embedding: dsl.Output[dsl.Model],
    placeholder_token: str,
    initializer_token: str,
    num_vectors: int = 1,
) -> None:
    """Adds the placeholder to the tokenizer and copies the initializer's row for each of its vectors.

    Args:
        base_model: Reference of the base model.
        initial_embedding: The placeholder's tokens and the rows that training starts from.
        placeholder_token: The new word, one that the model does not know, such as <cat-toy>.
        initializer_token: A word of one token that says roughly what the pictures show, such as toy.
        num_vectors: How many vectors the new word has: more hold more detail and are harder to edit.
    """
    from pathlib import Path

    from components.common.cli import step_boundary
    from components.init_embedding.config import InitConfig
    from components.init_embedding.initialize import init_embedding as step

    with step_boundary("init_embedding"):
        config = InitConfig(
            placeholder_token=placeholder_token,
            initializer_token=initializer_token,
            num_vectors=num_vectors,
        )
        embedding = step(config, base_model=Path(base_model.path), output=Path(initial_embedding.path))
        initial_embedding.metadata.update(
            {
                "placeholder_token": placeholder_token,
                "initializer_token": initializer_token,
                "num_vectors": num_vectors,
                "digest": embedding.digest,
            }
        )
