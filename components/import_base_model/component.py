"""The import step's face in a pipeline."""

from kfp import dsl

from components.common.images import image


@dsl.component(base_image=image("dataset"), install_kfp_package=False)
def import_base_model(config: str, reference: dsl.Output[dsl.Model]):
    """Copies what is needed of a model into the model store once, and gives a reference to it.

    Args:
        config: An ImportConfig as JSON.
        reference: The reference to the imported model.
    """
    from pathlib import Path

    from components.common.cli import step_boundary
    from components.import_base_model.config import ImportConfig
    from components.import_base_model.importing import import_models as step

    with step_boundary("import_base_model"):
        told = ImportConfig.from_json(config)
        imported = step(told, Path(reference.path))
        reference.metadata.update(
            {
                "display_name": "Base model" if told.kind == "diffusion" else "Scorer",
                "source": imported.source,
                "revision": imported.revision,
                "digest": imported.digest,
                "gigabytes": round(imported.size / 1e9, 3),
            }
        )
