"""The encoding step's face in a pipeline."""

from kfp import dsl

from components.common.images import image


@dsl.component(base_image=image("train-torch"), install_kfp_package=False)
def encode_latents(
    config: str,
    image_set: dsl.Input[dsl.Dataset],
    base_model: dsl.Input[dsl.Model],
    latent_set: dsl.Output[dsl.Dataset],
):
    """Encodes each picture and its mirror image into the VAE's posterior mean and standard deviation.

    Args:
        config: An EncodeConfig as JSON; a list of them for several words.
        image_set: The prepared pictures.
        base_model: Reference of the base model.
        latent_set: The encoded pictures.
    """
    from pathlib import Path

    from components.common.cli import step_boundary
    from components.common.words import configs_of, for_each_word, metadata_of
    from components.encode_latents.config import EncodeConfig
    from components.encode_latents.latents import encode_latents as step

    with step_boundary("encode_latents"):
        sets = for_each_word(
            lambda told, **folders: step(accelerator=told.accelerator, **folders),
            configs_of(EncodeConfig, config),
            image_set=Path(image_set.path),
            base_model=Path(base_model.path),
            output=Path(latent_set.path),
        )
        facts = [
            {
                "display_name": "Encoded pictures",
                "pictures": len(encoded.latents),
                "shape": str(encoded.latents[0].mean.shape),
            }
            for encoded in sets
        ]
        latent_set.metadata.update(metadata_of(facts))
