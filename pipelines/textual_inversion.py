"""The pipeline `textual-inversion`: from a handful of pictures to a published word. The graph alone."""

from kfp import dsl

from components.encode_latents.component import encode_latents
from components.evaluate.component import evaluate
from components.import_base_model.component import import_base_model
from components.ingest_images.component import ingest_images
from components.init_embedding.component import init_embedding
from components.preflight.component import preflight
from components.preflight.parameters import EVALUATION, NODES, PICTURES, PLACEHOLDER, TRAINING, fields_of
from components.publish.component import publish
from components.train.flax.component import train_flax
from components.train.nodes.component import launch_trainjob, remove_trainjobs
from components.train.torch.component import train_torch
from pipelines.chosen_embedding import choose_embedding
from pipelines.presets import GUIDE_EXAMPLE as DEFAULT
from pipelines.resources import (
    LIGHT,
    MEDIUM,
    MODEL,
    WATCHING,
    request,
    request_accelerators,
    retry,
    share_memory,
    training,
)


@dsl.pipeline(
    name="textual-inversion",
    display_name="Textual Inversion",
    description="Teaches a Stable Diffusion model a new word from a handful of pictures, and publishes the word's "
    "embedding when samples show that it was learned.",
)
def textual_inversion(
    storage_uri: str,
    images_uri: str = DEFAULT["images_uri"],
    scoring_images_uri: str = DEFAULT["scoring_images_uri"],
    base_model: str = DEFAULT["base_model"],
    base_model_variant: str = DEFAULT["base_model_variant"],
    scorer: str = DEFAULT["scorer"],
    accelerator: str = DEFAULT["accelerator"],
    accelerator_resource: str = DEFAULT["accelerator_resource"],
    accelerator_count: str = DEFAULT["accelerator_count"],
    accelerator_node_selector: dict[str, str] = DEFAULT["accelerator_node_selector"],
    accelerator_tolerations: list[dict[str, str]] = DEFAULT["accelerator_tolerations"],
    evaluation_node_selector: dict[str, str] = DEFAULT["evaluation_node_selector"],
    num_nodes: int = DEFAULT["num_nodes"],
    cpu_per_node: str = DEFAULT["cpu_per_node"],
    memory_per_node: str = DEFAULT["memory_per_node"],
    queue: str = DEFAULT["queue"],
    trainjob_timeout_seconds: int = DEFAULT["trainjob_timeout_seconds"],
    resolution: int = DEFAULT["resolution"],
    interpolation: str = DEFAULT["interpolation"],
    center_crop: bool = DEFAULT["center_crop"],
    small_images: str = DEFAULT["small_images"],
    placeholder_token: str = DEFAULT["placeholder_token"],
    initializer_token: str = DEFAULT["initializer_token"],
    num_vectors: int = DEFAULT["num_vectors"],
    learnable_property: str = DEFAULT["learnable_property"],
    seed: int = DEFAULT["seed"],
    repeats: int = DEFAULT["repeats"],
    flip_probability: float = DEFAULT["flip_probability"],
    train_batch_size: int = DEFAULT["train_batch_size"],
    gradient_accumulation_steps: int = DEFAULT["gradient_accumulation_steps"],
    fuse_micro_batches: bool = DEFAULT["fuse_micro_batches"],
    max_train_steps: int = DEFAULT["max_train_steps"],
    learning_rate: float = DEFAULT["learning_rate"],
    scale_lr: bool = DEFAULT["scale_lr"],
    lr_scheduler: str = DEFAULT["lr_scheduler"],
    lr_warmup_steps: int = DEFAULT["lr_warmup_steps"],
    lr_num_cycles: int = DEFAULT["lr_num_cycles"],
    lr_power: float = DEFAULT["lr_power"],
    adam_beta1: float = DEFAULT["adam_beta1"],
    adam_beta2: float = DEFAULT["adam_beta2"],
    adam_weight_decay: float = DEFAULT["adam_weight_decay"],
    adam_epsilon: float = DEFAULT["adam_epsilon"],
    max_embedding_norm: float = DEFAULT["max_embedding_norm"],
    early_stopping_every: int = DEFAULT["early_stopping_every"],
    early_stopping_window: int = DEFAULT["early_stopping_window"],
    early_stopping_ratio: float = DEFAULT["early_stopping_ratio"],
    mixed_precision: str = DEFAULT["mixed_precision"],
    allow_tf32: bool = DEFAULT["allow_tf32"],
    gradient_checkpointing: bool = DEFAULT["gradient_checkpointing"],
    enable_xformers_memory_efficient_attention: bool = DEFAULT["enable_xformers_memory_efficient_attention"],
    cuda_graphs: bool = DEFAULT["cuda_graphs"],
    checkpointing_steps: int = DEFAULT["checkpointing_steps"],
    checkpoints_total_limit: int = DEFAULT["checkpoints_total_limit"],
    resume_from_checkpoint: str = DEFAULT["resume_from_checkpoint"],
    save_steps: int = DEFAULT["save_steps"],
    log_steps: int = DEFAULT["log_steps"],
    evaluation_prompts: list[str] = DEFAULT["evaluation_prompts"],
    evaluation_reference_prompt: str = DEFAULT["evaluation_reference_prompt"],
    evaluation_images_per_prompt: int = DEFAULT["evaluation_images_per_prompt"],
    evaluation_num_inference_steps: int = DEFAULT["evaluation_num_inference_steps"],
    evaluation_guidance_scale: float = DEFAULT["evaluation_guidance_scale"],
    evaluation_negative_prompt: str = DEFAULT["evaluation_negative_prompt"],
    evaluation_sampling_batch_size: int = DEFAULT["evaluation_sampling_batch_size"],
    evaluation_seed: int = DEFAULT["evaluation_seed"],
    evaluation_min_clip_i_gain: float = DEFAULT["evaluation_min_clip_i_gain"],
    evaluation_min_clip_i: float = DEFAULT["evaluation_min_clip_i"],
    evaluation_min_clip_t: float = DEFAULT["evaluation_min_clip_t"],
    concept_name: str = DEFAULT["concept_name"],
    registry_alias: str = DEFAULT["registry_alias"],
) -> None:
    """Pictures to ImageSet to LatentSet to LearnedEmbedding to Evaluation to registry entry.

    What each parameter means is said beside its default, in the `DESCRIPTIONS` of the steps' configs; compiling puts
    it into the YAML.
    """
    parameters = dict(locals())

    # Looks at what is there now, so it is never answered from the cache. Its fingerprints of the sources are inputs
    # of the steps that read them: as long as a source stays as it is, those are answered from the cache.
    # It is the one step that is not tried again: mostly it fails for a parameter that cannot be right, Kubeflow
    # Pipelines tries any failure again, and a person would wait minutes for the same words. Nothing is lost yet.
    checked = preflight(**parameters).set_display_name("Check everything").set_caching_options(False)
    request(checked, LIGHT)

    # A step that is killed together with its node leaves its TrainJob behind.
    cleaning = remove_trainjobs(run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER).set_display_name("Remove TrainJobs")
    retry(request(cleaning, LIGHT)).set_caching_options(False)
    with dsl.ExitHandler(cleaning, name="Steps"):
        model = import_base_model(
            source=base_model,
            source_fingerprint=checked.outputs["base_model_fingerprint"],
            store_uri=checked.outputs["models_uri"],
            kind="diffusion",
            variant=base_model_variant,
        ).set_display_name("Import base model")
        clip = import_base_model(
            source=scorer,
            source_fingerprint=checked.outputs["scorer_fingerprint"],
            store_uri=checked.outputs["models_uri"],
            kind="clip",
            variant="",
        ).set_display_name("Import scorer")
        pictures = ingest_images(
            images_uri=images_uri,
            fallback_images_uri="",
            images_fingerprint=checked.outputs["images_fingerprint"],
            **fields_of(PICTURES, parameters),
        ).set_display_name("Prepare pictures")
        scoring_pictures = ingest_images(
            images_uri=scoring_images_uri,
            fallback_images_uri=images_uri,
            images_fingerprint=checked.outputs["scoring_images_fingerprint"],
            **fields_of(PICTURES, parameters),
        ).set_display_name("Prepare pictures to score against")
        for task in (model, clip, pictures, scoring_pictures):
            retry(request(task, MEDIUM))

        initial = init_embedding(
            base_model=model.outputs["reference"],
            **fields_of(PLACEHOLDER, parameters),
        ).set_display_name("Add the placeholder")
        retry(request(initial, MEDIUM))

        # Pictures are encoded on a CPU beside TPUs, else on one of the accelerators.
        latents = encode_latents(
            image_set=pictures.outputs["image_set"],
            base_model=model.outputs["reference"],
            accelerator=checked.outputs["encoding_accelerator"],
        ).set_display_name("Encode pictures")
        to_train = {
            "latent_set": latents.outputs["latent_set"],
            "base_model": model.outputs["reference"],
            "initial_embedding": initial.outputs["initial_embedding"],
            "checkpoint_root": checked.outputs["checkpoints_uri"],
            "accelerator": accelerator,
            **fields_of(TRAINING, parameters),
        }
        # Preflight refuses an unknown accelerator before any branch begins.
        with dsl.If(num_nodes > 1, name="On many nodes"):
            learned_on_nodes = launch_trainjob(
                accelerator_count=accelerator_count,
                accelerator_resource=checked.outputs["accelerator_resource"],
                accelerator_node_selector=accelerator_node_selector,
                accelerator_tolerations=accelerator_tolerations,
                **fields_of(NODES, parameters),
                **to_train,
            ).set_display_name("Train on many nodes")
        with dsl.Elif(accelerator == "tpu", name="On TPUs"):
            learned_on_tpus = train_flax(**to_train).set_display_name("Train")
        with dsl.Else(name="On GPUs or CPUs"):
            learned_elsewhere = train_torch(**to_train).set_display_name("Train")
        trained = (learned_on_nodes, learned_on_tpus, learned_elsewhere)
        learned = choose_embedding(uri=dsl.OneOf(*(task.outputs["Output"] for task in trained))).set_display_name(
            "Take the embedding"
        )
        evaluated = evaluate(
            base_model=model.outputs["reference"],
            scorer=clip.outputs["reference"],
            initial_embedding=initial.outputs["initial_embedding"],
            learned_embedding=learned.outputs["learned_embedding"],
            scoring_set=scoring_pictures.outputs["image_set"],
            accelerator=accelerator,
            **fields_of(EVALUATION, parameters),
        ).set_display_name("Sample and score")
        retry(request(learned_on_nodes, WATCHING))
        retry(request(learned, LIGHT))
        for task in (latents, evaluated):
            retry(request(task, MODEL))
        for task in (learned_on_tpus, learned_elsewhere):
            retry(request(task, training(cpu_per_node, memory_per_node)))
            request_accelerators(
                task,
                resource=checked.outputs["accelerator_resource"],
                count=accelerator_count,
                node_selector=accelerator_node_selector,
                tolerations=accelerator_tolerations,
            )
        share_memory(learned_elsewhere)
        request_accelerators(
            latents,
            resource=checked.outputs["encoding_accelerator_resource"],
            count=checked.outputs["encoding_accelerator_count"],
            node_selector=checked.outputs["encoding_node_selector"],
            tolerations=accelerator_tolerations,
        )
        request_accelerators(
            evaluated,
            resource=checked.outputs["accelerator_resource"],
            count=checked.outputs["evaluation_accelerator_count"],
            node_selector=checked.outputs["evaluation_node_selector"],
            tolerations=accelerator_tolerations,
        )

        with dsl.If(evaluated.outputs["Output"] == "pass", name="It was learned"):
            # What it does is in the registry, where others move aliases too: an earlier answer says nothing about now.
            # It may run again at any time: what is published already is found and not published twice.
            published = publish(
                base_model=model.outputs["reference"],
                learned_embedding=learned.outputs["learned_embedding"],
                evaluation=evaluated.outputs["evaluation"],
                registry_uri=checked.outputs["registry_uri"],
                concept_name=concept_name,
                alias=registry_alias,
                run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            ).set_display_name("Publish")
            retry(request(published, LIGHT)).set_caching_options(False)
