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
    training_metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Trains the placeholder rows; goes on where an earlier attempt stopped.

    Args:
        config: A TrainStepConfig as JSON; a list of them for several words.
        latent_set: The encoded pictures.
        base_model: Reference of the base model.
        initial_embedding: The rows that training starts from.
        learned_embedding: The learned rows.
        training_metrics: The numbers of its last progress line as a table; the file has all of them as JSON lines.
    """
    from pathlib import Path

    from components.common.cli import step_boundary
    from components.common.training.beside import events_uri
    from components.common.training.metrics import to_json_lines
    from components.common.words import by_word, configs_of, metadata_of
    from components.train.config import TrainStepConfig
    from components.train.step import metrics_of, run_step

    with step_boundary("train"):
        told = configs_of(TrainStepConfig, config)
        words = run_step(
            told,
            latent_set=latent_set,
            base_model=base_model,
            initial_embedding=initial_embedding,
            learned_embedding=learned_embedding,
        )
        facts = [
            {
                "display_name": "Learned embedding",
                "placeholder_token": learned.placeholder_token,
                "steps": learned.steps,
                "training_key": learned.training_key,
            }
            for learned in words
        ]
        learned_embedding.metadata.update(metadata_of(facts))
        root, watching = told[0].checkpoint_root, told[0].watching
        lines = {learned.placeholder_token: metrics_of(learned, root) for learned in words}
        named = lines.items() if len(words) > 1 else [("", own) for own in lines.values()]
        Path(training_metrics.path).write_bytes(b"".join(to_json_lines(own, word) for word, own in named))
        training_metrics.metadata["display_name"] = "Training metrics"
        if watching.writes_event_files:
            # Of several words it is the folder in which each training has its own.
            training_metrics.metadata["tensorboard_logdir"] = (
                events_uri(root, words[0].training_key, watching.logging_dir)
                if len(words) == 1
                else watching.logging_dir or root
            )
        for name, value in by_word({token: own[-1].known() for token, own in lines.items() if own}).items():
            training_metrics.log_metric(name, value)
