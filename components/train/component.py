"""The training step's face in a pipeline, whichever framework trains and on however many nodes."""

from kfp import dsl

from components.common.images import image


@dsl.component(base_image=image("train-torch"), install_kfp_package=False)
def train(
    config: str,
    latent_set: dsl.Input[dsl.Dataset],
    base_model: dsl.Input[dsl.Model],
    initial_embedding: dsl.Input[dsl.Model],
    learned_embedding: dsl.Output[dsl.Model],
) -> None:
    """Trains the placeholder rows; goes on where an earlier attempt stopped.

    Args:
        config: A TrainStepConfig as JSON.
        latent_set: The encoded pictures.
        base_model: Reference of the base model.
        initial_embedding: The rows that training starts from.
        learned_embedding: The learned rows.
    """
    from components.common.cli import step_boundary
    from components.train.config import TrainStepConfig
    from components.train.step import run_step

    with step_boundary("train"):
        learned = run_step(
            TrainStepConfig.from_json(config),
            latent_set=latent_set,
            base_model=base_model,
            initial_embedding=initial_embedding,
            learned_embedding=learned_embedding,
        )
        learned_embedding.metadata.update(
            {
                "display_name": "Learned embedding",
                "placeholder_token": learned.placeholder_token,
                "steps": learned.steps,
                "training_key": learned.training_key,
            }
        )
