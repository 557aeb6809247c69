"""The ingestion step's face in a pipeline."""

from kfp import dsl

from components.common.images import image


@dsl.component(base_image=image("dataset"), install_kfp_package=False)
def ingest_images(config: str, image_set: dsl.Output[dsl.Dataset]) -> None:
    """Reads example pictures from object storage or the Hugging Face Hub, checks, crops and resizes them.

    Args:
        config: An IngestConfig as JSON; a list of them for several words.
        image_set: The prepared pictures.
    """
    from pathlib import Path

    from components.common.cli import step_boundary
    from components.common.words import configs_of, for_each_word, metadata_of
    from components.ingest_images.config import IngestConfig
    from components.ingest_images.ingest import ingest_images as step

    with step_boundary("ingest_images"):
        told = configs_of(IngestConfig, config)
        sets = for_each_word(step, told, output=Path(image_set.path))
        facts = [
            {
                "display_name": "Pictures",
                "pictures": len(images.pictures),
                "resolution": each.resolution,
                "source": each.images_uri,
                "digest": images.digest,
            }
            for each, images in zip(told, sets, strict=True)
        ]
        image_set.metadata.update(metadata_of(facts))
