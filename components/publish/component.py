"""The publishing step's face in a pipeline."""

from kfp import dsl

from components.common.images import image


@dsl.component(base_image=image("publish"), install_kfp_package=False)
def publish(
    base_model: dsl.Input[dsl.Model],
    learned_embedding: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    registry_entry: dsl.Output[dsl.Artifact],
    registry_uri: str,
    concept_name: str = "",
    alias: str = "champion",
    run_id: str = "",
) -> str:
    """Publishes the embedding as an immutable version of its concept and gives the version's address.

    A retry or a repeated run finds the version that it has published already. The alias moves to the new
    version unless it has pointed at a newer one.
    """
    from pathlib import Path

    from components.common.cli import step_boundary
    from components.publish.config import PublishConfig
    from components.publish.publish import publish as step

    with step_boundary("publish"):
        entry = step(
            PublishConfig(registry_uri=registry_uri, concept_name=concept_name, alias=alias, run_id=run_id),
            base_model=Path(base_model.path),
            learned_embedding=Path(learned_embedding.path),
            evaluation=Path(evaluation.path),
            output=Path(registry_entry.path),
        )
        registry_entry.metadata.update(
            {
                "entry_uri": entry.uri,
                "concept": entry.concept,
                "version": entry.version,
                "placeholder_token": entry.facts.placeholder_token,
            }
        )
    return entry.uri
