"""The preflight step's face in a pipeline."""

from typing import NamedTuple

from kfp import dsl

from components.common.images import image


@dsl.component(base_image=image("dataset"), install_kfp_package=False)
def preflight(
    storage_uri: str,
    images_uri: str,
    scoring_images_uri: str,
    base_model: str,
    base_model_variant: str,
    scorer: str,
    accelerator: str,
    accelerator_resource: str,
    accelerator_count: str,
    accelerator_node_selector: dict[str, str],
    accelerator_tolerations: list[dict[str, str]],
    evaluation_node_selector: dict[str, str],
    resolution: int,
    interpolation: str,
    center_crop: bool,
    small_images: str,
    placeholder_token: str,
    initializer_token: str,
    num_vectors: int,
    num_nodes: int,
    cpu_per_node: str,
    memory_per_node: str,
    queue: str,
    trainjob_timeout_seconds: int,
    learnable_property: str,
    seed: int,
    repeats: int,
    flip_probability: float,
    train_batch_size: int,
    gradient_accumulation_steps: int,
    fuse_micro_batches: bool,
    max_train_steps: int,
    learning_rate: float,
    scale_lr: bool,
    lr_scheduler: str,
    lr_warmup_steps: int,
    lr_num_cycles: int,
    lr_power: float,
    adam_beta1: float,
    adam_beta2: float,
    adam_weight_decay: float,
    adam_epsilon: float,
    max_embedding_norm: float,
    early_stopping_every: int,
    early_stopping_window: int,
    early_stopping_ratio: float,
    mixed_precision: str,
    allow_tf32: bool,
    gradient_checkpointing: bool,
    enable_xformers_memory_efficient_attention: bool,
    cuda_graphs: bool,
    checkpointing_steps: int,
    checkpoints_total_limit: int,
    resume_from_checkpoint: str,
    save_steps: int,
    log_steps: int,
    evaluation_prompts: list[str],
    evaluation_reference_prompt: str,
    evaluation_images_per_prompt: int,
    evaluation_num_inference_steps: int,
    evaluation_guidance_scale: float,
    evaluation_negative_prompt: str,
    evaluation_sampling_batch_size: int,
    evaluation_seed: int,
    evaluation_min_clip_i_gain: float,
    evaluation_min_clip_i: float,
    evaluation_min_clip_t: float,
    concept_name: str,
    registry_alias: str,
) -> NamedTuple(
    "Checked",
    [
        ("images_fingerprint", str),
        ("scoring_images_fingerprint", str),
        ("base_model_fingerprint", str),
        ("scorer_fingerprint", str),
        ("models_uri", str),
        ("checkpoints_uri", str),
        ("registry_uri", str),
        ("accelerator_resource", str),
        ("encoding_accelerator", str),
        ("encoding_accelerator_resource", str),
        ("encoding_accelerator_count", str),
        ("encoding_node_selector", dict),
        ("evaluation_accelerator_count", str),
        ("evaluation_node_selector", dict),
    ],
):
    """Checks every parameter and source before anything expensive starts.

    It gives a fingerprint of each source's state now, and the addresses below storage_uri. It takes all parameters
    of the pipeline; what they mean is in the configs named by components/preflight/parameters.py.
    """
    parameters = dict(locals())

    import collections
    import dataclasses

    from components.common.cli import step_boundary
    from components.preflight.preflight import preflight as step

    with step_boundary("preflight"):
        checked = dataclasses.asdict(step(parameters))
    return collections.namedtuple("Checked", checked)(**checked)
