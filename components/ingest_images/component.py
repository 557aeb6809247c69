"""The ingestion step's face in a pipeline."""

from kfp import dsl

from components.common.images import image


@dsl.component(base_image=image("dataset"), install_kfp_package=False)
def ingest_images(config: str, image_set: dsl.Output[dsl.Dataset]) -> None:
    """Reads example pictures from object storage or the Hugging Face Hub, checks, crops and resizes them.

    Args:
        config: An IngestConfig as JSON.
        image_set: The prepared pictures.
    """
    from pathlib import Path

    from components.common.cli import step_boundary
    from components.ingest_images.config import IngestConfig
    from components.ingest_images.ingest import ingest_images as step

    with step_boundary("ingest_images"):
        told = IngestConfig.from_json(config)
        images = step(told, Path(image_set.path))
        image_set.metadata.update(
            {
                "display_name": "Pictures",
                "pictures": len(images.pictures),
                "resolution": told.resolution,
                "source": told.images_uri,
                "digest": images.digest,
            }
        )
