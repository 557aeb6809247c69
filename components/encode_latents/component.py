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
        config: An EncodeConfig as JSON.
        image_set: The prepared pictures.
        base_model: Reference of the base model.
        latent_set: The encoded pictures.
    """
    from pathlib import Path

    from components.common.cli import step_boundary
    from components.encode_latents.config import EncodeConfig
    from components.encode_latents.latents import encode_latents as step

    with step_boundary("encode_latents"):
        encoded = step(
            image_set=Path(image_set.path),
            base_model=Path(base_model.path),
            accelerator=EncodeConfig.from_json(config).accelerator,
            output=Path(latent_set.path),
        )
        latent_set.metadata.update(
            {
                "display_name": "Encoded pictures",
                "pictures": len(encoded.latents),
                "shape": str(encoded.latents[0].mean.shape),
            }
        )
