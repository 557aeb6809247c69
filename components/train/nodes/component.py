"""The launching step's face in a pipeline, and that of the exit handler that cleans up after it."""

from kfp import dsl

from components.common.images import image


@dsl.component(base_image=image("launcher"), install_kfp_package=False)
def launch_trainjob(
    latent_set: dsl.Input[dsl.Dataset],
    base_model: dsl.Input[dsl.Model],
    initial_embedding: dsl.Input[dsl.Model],
    learned_embedding: dsl.Output[dsl.Model],
    checkpoint_root: str,
    accelerator_node_selector: dict[str, str],
    accelerator_tolerations: list[dict[str, str]],
    cpu_per_node: str = "4",
    memory_per_node: str = "16Gi",
    framework: str = "",
    num_nodes: int = 1,
    processes_per_node: int = 0,
    accelerator: str = "gpu",
    accelerator_count: str = "1",
    accelerator_resource: str = "",
    queue: str = "",
    runtime: str = "",
    trainer_image: str = "",
    service_account: str = "",
    timeout_seconds: int = 86_400,
    run_id: str = "",
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
    """Trains the placeholder rows on many nodes with Kubeflow Trainer; goes on where an earlier attempt stopped.

    The nodes read the inputs and write the learned embedding at the artifacts' own addresses in object storage. Gives
    the address of the learned embedding, by which a pipeline chooses between trainers.
    """
    from components.common.cli import step_boundary
    from components.common.training.command import TrainingCommand
    from components.common.training.config import TrainConfig
    from components.train.nodes.config import LaunchConfig
    from components.train.nodes.launch import launch_trainjob as step

    with step_boundary("launch_trainjob"):
        learned = step(
            LaunchConfig(
                cpu_per_node=cpu_per_node,
                memory_per_node=memory_per_node,
                accelerator_node_selector=accelerator_node_selector,
                accelerator_tolerations=accelerator_tolerations,
                framework=framework,
                num_nodes=num_nodes,
                processes_per_node=processes_per_node,
                accelerator_count=accelerator_count,
                accelerator_resource=accelerator_resource,
                queue=queue,
                runtime=runtime,
                trainer_image=trainer_image,
                service_account=service_account,
                timeout_seconds=timeout_seconds,
                run_id=run_id,
            ),
            TrainingCommand(
                config=TrainConfig(
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
                latent_set=latent_set.uri,
                base_model=base_model.uri,
                initial_embedding=initial_embedding.uri,
                checkpoint_root=checkpoint_root,
                accelerator=accelerator,
                output=learned_embedding.uri,
            ),
        )
        learned_embedding.metadata.update(
            {
                "placeholder_token": learned.placeholder_token,
                "steps": learned.steps,
                "training_key": learned.training_key,
            }
        )
    return learned_embedding.uri


@dsl.component(base_image=image("launcher"), install_kfp_package=False)
def remove_trainjobs(run_id: str):
    """Deletes every TrainJob of the run: an exit handler, for what a step that was killed has left behind."""
    from components.common.cli import step_boundary
    from components.train.nodes.launch import remove_trainjobs as step

    with step_boundary("remove_trainjobs"):
        step(run_id)
