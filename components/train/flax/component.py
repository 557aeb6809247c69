"""The training step's face in a pipeline."""

from kfp import dsl

from components.common.images import image


@dsl.component(base_image=image("train-flax"), install_kfp_package=False)
def train_flax(
    latent_set: dsl.Input[dsl.Dataset],
    base_model: dsl.Input[dsl.Model],
    initial_embedding: dsl.Input[dsl.Model],
    learned_embedding: dsl.Output[dsl.Model],
    checkpoint_root: str,
    accelerator: str = "tpu",
    learnable_property: str = "object",
    seed: int = 0,
    repeats: int = 100,
    flip_probability: float = 0.5,
    train_batch_size: int = 16,
    gradient_accumulation_steps: int = 1,
    fuse_micro_batches: bool = True,
    max_train_steps: int = 5000,
    learning_rate: float = 1e-4,
    scale_lr: bool = False,
    lr_scheduler: str = "constant",
    lr_warmup_steps: int = 500,
    lr_num_cycles: int = 1,
    lr_power: float = 1.0,
    adam_beta1: float = 0.9,
    adam_beta2: float = 0.999,
    adam_weight_decay: float = 1e-2,
    adam_epsilon: float = 1e-8,
    max_embedding_norm: float = 0.0,
    early_stopping_every: int = 0,
    early_stopping_window: int = 30,
    early_stopping_ratio: float = 0.15,
    mixed_precision: str = "no",
    allow_tf32: bool = False,
    gradient_checkpointing: bool = False,
    enable_xformers_memory_efficient_attention: bool = False,
    cuda_graphs: bool = False,
    checkpointing_steps: int = 500,
    checkpoints_total_limit: int = 0,
    resume_from_checkpoint: str = "latest",
    save_steps: int = 500,
    log_steps: int = 10,
) -> str:
    """Trains the placeholder rows with JAX and Flax; goes on where an earlier attempt stopped.

    Gives the address of the learned embedding, by which a pipeline chooses between trainers.
    """
    from pathlib import Path

    from components.common.cli import step_boundary
    from components.common.training.config import TrainConfig
    from components.train.flax.train import train_flax as step

    with step_boundary("train_flax"):
        learned = step(
            TrainConfig(
                learnable_property=learnable_property,
                seed=seed,
                repeats=repeats,
                flip_probability=flip_probability,
                train_batch_size=train_batch_size,
                gradient_accumulation_steps=gradient_accumulation_steps,
                fuse_micro_batches=fuse_micro_batches,
                max_train_steps=max_train_steps,
                learning_rate=learning_rate,
                scale_lr=scale_lr,
                lr_scheduler=lr_scheduler,
                lr_warmup_steps=lr_warmup_steps,
                lr_num_cycles=lr_num_cycles,
                lr_power=lr_power,
                adam_beta1=adam_beta1,
                adam_beta2=adam_beta2,
                adam_weight_decay=adam_weight_decay,
                adam_epsilon=adam_epsilon,
                max_embedding_norm=max_embedding_norm,
                early_stopping_every=early_stopping_every,
                early_stopping_window=early_stopping_window,
                early_stopping_ratio=early_stopping_ratio,
                mixed_precision=mixed_precision,
                allow_tf32=allow_tf32,
                gradient_checkpointing=gradient_checkpointing,
                enable_xformers_memory_efficient_attention=enable_xformers_memory_efficient_attention,
                cuda_graphs=cuda_graphs,
                checkpointing_steps=checkpointing_steps,
                checkpoints_total_limit=checkpoints_total_limit,
                resume_from_checkpoint=resume_from_checkpoint,
                save_steps=save_steps,
                log_steps=log_steps,
            ),
            latent_set=Path(latent_set.path),
            base_model=Path(base_model.path),
            initial_embedding=Path(initial_embedding.path),
            checkpoint_root=checkpoint_root,
            accelerator=accelerator,
            output=Path(learned_embedding.path),
        )
        learned_embedding.metadata.update(
            {
                "placeholder_token": learned.placeholder_token,
                "steps": learned.steps,
                "training_key": learned.training_key,
            }
        )
    return learned_embedding.uri
