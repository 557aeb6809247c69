"""The publishing step's face in a pipeline."""

from kfp import dsl

from components.common.images import image


@dsl.component(base_image=image("publish"), install_kfp_package=False)
def publish(
    config: str,
    base_model: dsl.Input[dsl.Model],
    learned_embedding: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    registry_entry: dsl.Output[dsl.Artifact],
    run_id: str = "",
) -> str:
    """Publishes an embedding that was learned as an immutable version of its concept, and says what it did.

    It gives the version's address, with the reason where the alias does not move to it, or `not published: ...` with
    the reasons; of several words a line for each. A retry or a repeated run finds the version that it has published
    already. The alias moves as promote_if says, and not if it has pointed at a newer version or was moved since the
    evaluation began.

    Args:
        config: A PublishConfig as JSON; a list of them for several words.
        base_model: Reference of the base model.
        learned_embedding: The learned rows.
        evaluation: Samples, scores and the verdict.
        registry_entry: The version's manifest and address, or that there is none and why.
        run_id: The pipeline run, kept as lineage.
    """
    import dataclasses
    from pathlib import Path

    from components.common.cli import step_boundary
    from components.common.words import configs_of, for_each_word, metadata_of
    from components.publish.config import PublishConfig
    from components.publish.step import answer
    from components.publish.step import publish_if_learned as step

    with step_boundary("publish"):
        words = for_each_word(
            step,
            [dataclasses.replace(each, run_id=run_id) for each in configs_of(PublishConfig, config)],
            base_model=Path(base_model.path),
            learned_embedding=Path(learned_embedding.path),
            evaluation=Path(evaluation.path),
            output=Path(registry_entry.path),
        )
        facts = metadata_of([said.metadata for said in words])
        registry_entry.metadata.update({"display_name": "Registry entry", **facts})
    return answer(words)
