"""The import step's face in a pipeline."""

from kfp import dsl

from components.common.images import image


@dsl.component(base_image=image("dataset"), install_kfp_package=False)
def import_base_model(
    source: str,
    source_fingerprint: str,
    store_uri: str,
    reference: dsl.Output[dsl.Model],
    kind: str = "diffusion",
    variant: str = "",
):
    """Copies what is needed of a base model into the model store once, and gives a reference to it.

    Args:
        source: Folder, gs://, s3:// or hf://owner/name[@revision] of the base model.
        source_fingerprint: What resolve_revision gave for the source when the run was submitted, or nothing;
            a new one makes a cached import invalid, and a source that changed since is refused.
        store_uri: Folder or bucket prefix of the model store.
        reference: The reference to the imported model.
        kind: diffusion or clip.
        variant: Variant of the weights, such as fp16; nothing for the plain ones.
    """
    from pathlib import Path

    from components.common.cli import step_boundary
    from components.import_base_model.importing import import_base_model as step

    with step_boundary("import_base_model"):
        imported = step(
            source, store_uri, Path(reference.path), kind=kind, variant=variant, revision=source_fingerprint
        )
        reference.metadata.update(
            {
                "source": imported.source,
                "revision": imported.revision,
                "digest": imported.digest,
                "gigabytes": round(imported.size / 1e9, 3),
            }
        )
