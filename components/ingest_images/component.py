"""The ingestion step's face in a pipeline."""

from kfp import dsl

from components.common.images import image


@dsl.component(base_image=image("dataset"), install_kfp_package=False)
def ingest_images(
    image_set: dsl.Output[dsl.Dataset],
    images_uri: str = "",
    fallback_images_uri: str = "",
    images_fingerprint: str = "",
    resolution: int = 512,
    interpolation: str = "bicubic",
    center_crop: bool = False,
    small_images: str = "warn",
) -> None:
    """Reads example pictures from object storage or the Hugging Face Hub, checks, crops and resizes them.

    Args:
        image_set: The prepared pictures.
        images_uri: Folder of example pictures: gs://, s3://, a local folder, or
            hf://datasets/owner/name[@revision].
        fallback_images_uri: Used when images_uri is empty.
        images_fingerprint: Listing that the source must still have, from the preflight step; empty: any.
        resolution: Side of the square that every picture becomes, in pixels.
        interpolation: How pictures are resized: linear, bilinear, bicubic, lanczos or nearest.
        center_crop: Cut the largest square out of the middle; otherwise the picture is squeezed into one.
        small_images: What to do with a picture smaller than the resolution: warn or refuse.
    """
    from pathlib import Path

    from components.common.cli import step_boundary
    from components.ingest_images.config import IngestConfig
    from components.ingest_images.ingest import ingest_images as step

    with step_boundary("ingest_images"):
        config = IngestConfig(
            images_uri=images_uri,
            fallback_images_uri=fallback_images_uri,
            images_fingerprint=images_fingerprint,
            resolution=resolution,
            interpolation=interpolation,
            center_crop=center_crop,
            small_images=small_images,
        )
        images = step(config, Path(image_set.path))
        image_set.metadata.update(
            {
                "pictures": len(images.pictures),
                "resolution": resolution,
                "source": config.source,
                "digest": images.digest,
            }
        )
