"""The preflight step's face in a pipeline: what stands here but for `training_images` is a run's form."""

from typing import NamedTuple

from kfp import dsl

from components.common.images import image


@dsl.component(base_image=image("tokenizer"), install_kfp_package=False)
def preflight(
    storage_uri: str,
    images_uri: str,
    scoring_images_uri: str,
    base_model: str,
    placeholder_token: str,
    initializer_token: str,
    learnable_property: str,
    num_vectors: int,
    resolution: int,
    center_crop: bool,
    seed: int,
    max_train_steps: int,
    learning_rate: float,
    scale_lr: bool,
    train_batch_size: int,
    gradient_accumulation_steps: int,
    mixed_precision: str,
    accelerator: str,
    accelerator_count: int,
    accelerator_node_selector: dict[str, str],
    num_nodes: int,
    evaluation_prompts: list[str],
    more_options: dict[str, str],
    training_images: dict[str, str],
) -> NamedTuple(
    "Checked",
    [
        ("decision", str),
        ("import_base_model", str),
        ("import_scorer", str),
        ("prepare_pictures", str),
        ("prepare_scoring_set", str),
        ("encode_pictures", str),
        ("find_the_start_word", str),
        ("add_the_new_word", str),
        ("train", str),
        ("sample_and_score", str),
        ("publish", str),
        ("encoding_cpu", str),
        ("encoding_memory", str),
        ("encoding_accelerator", str),
        ("encoding_accelerator_count", str),
        ("encoding_node_selector", dict),
        ("training_image", str),
        ("training_cpu", str),
        ("training_memory", str),
        ("training_accelerator", str),
        ("training_accelerator_count", str),
        ("training_node_selector", dict),
        ("evaluation_cpu", str),
        ("evaluation_memory", str),
        ("evaluation_accelerator", str),
        ("evaluation_accelerator_count", str),
        ("evaluation_node_selector", dict),
        ("tolerations", list),
    ],
):
    """Checks every option and source before anything expensive starts, and gives each step its whole config.

    What an option means is said where it stands, in the steps' configs; see components/preflight/options.py. All but
    training_images, references by name, is on the form.
    """
    given = dict(locals())
    more_options, training_images = given.pop("more_options"), given.pop("training_images")

    import collections
    import dataclasses

    from components.common.cli import step_boundary
    from components.preflight.preflight import preflight as step

    with step_boundary("preflight"):
        checked = dataclasses.asdict(step(given, more_options, training_images))
    return collections.namedtuple("Checked", checked)(**checked)
