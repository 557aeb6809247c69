"""The pipeline's parameters: each is a field of one step's config, so that name, default and check have one home."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from components.common.cli import default_of
from components.common.errors import ConfigError
from components.common.training.config import DESCRIPTIONS as TRAIN_DESCRIPTIONS
from components.common.training.config import TrainConfig
from components.evaluate.config import DESCRIPTIONS as EVALUATE_DESCRIPTIONS
from components.evaluate.config import EvaluateConfig
from components.ingest_images.config import DESCRIPTIONS as INGEST_DESCRIPTIONS
from components.ingest_images.config import IngestConfig
from components.init_embedding.config import DESCRIPTIONS as INIT_DESCRIPTIONS
from components.init_embedding.config import InitConfig
from components.preflight.config import DESCRIPTIONS as RUN_DESCRIPTIONS
from components.preflight.config import RunConfig
from components.publish.config import DESCRIPTIONS as PUBLISH_DESCRIPTIONS
from components.publish.config import PublishConfig
from components.train.nodes.config import DESCRIPTIONS as LAUNCH_DESCRIPTIONS
from components.train.nodes.config import LaunchConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """The parameters that one config checks.

    Attributes:
        config: the config's class.
        descriptions: what its fields mean.
        fields: the field of each parameter, by the parameter's name.
    """

    config: type
    descriptions: Mapping[str, str]
    fields: Mapping[str, str]


def _group(config: type, descriptions: Mapping[str, str], *, prefix: str = "", only: tuple[str, ...] = ()) -> Group:
    names = [field.name for field in dataclasses.fields(config)]
    return Group(
        config=config,
        descriptions=descriptions,
        fields={prefix + name: name for name in names if not only or name in only},
    )


RUN = _group(RunConfig, RUN_DESCRIPTIONS)
PICTURES = _group(
    IngestConfig, INGEST_DESCRIPTIONS, only=("resolution", "interpolation", "center_crop", "small_images")
)
PLACEHOLDER = _group(InitConfig, INIT_DESCRIPTIONS)
TRAINING = _group(TrainConfig, TRAIN_DESCRIPTIONS)
NODES = Group(
    config=LaunchConfig,
    descriptions=LAUNCH_DESCRIPTIONS,
    fields={
        **{name: name for name in ("num_nodes", "cpu_per_node", "memory_per_node", "queue")},
        "trainjob_timeout_seconds": "timeout_seconds",
    },
)
EVALUATION = _group(EvaluateConfig, EVALUATE_DESCRIPTIONS, prefix="evaluation_")
REGISTRY = Group(
    config=PublishConfig,
    descriptions=PUBLISH_DESCRIPTIONS,
    fields={"concept_name": "concept_name", "registry_alias": "alias"},
)
GROUPS = (RUN, PICTURES, PLACEHOLDER, TRAINING, NODES, EVALUATION, REGISTRY)


def fields_of(group: Group, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a group's parameters, by the names that its step gives them."""
    return {field: parameters[name] for name, field in group.fields.items()}


def descriptions() -> dict[str, str]:
    """What each parameter means, by its name."""
    return {name: group.descriptions[field] for group in GROUPS for name, field in group.fields.items()}


def defaults() -> dict[str, Any]:
    """The default of each parameter that its config has one for, by its name; lists for tuples, as in YAML."""
    found: dict[str, Any] = {}
    for group in GROUPS:
        known = {field.name: default_of(field) for field in dataclasses.fields(group.config)}
        found |= {name: known[field] for name, field in group.fields.items()}
    given = {name: value for name, value in found.items() if value is not dataclasses.MISSING}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}


def complete_parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """Every parameter by its name: the given ones, and the others' defaults.

    Raises:
        ConfigError: when a parameter is unknown, or one without default is missing.
    """
    names, complete = descriptions(), {**defaults(), **given}
    if unknown := sorted(complete.keys() - names.keys()):
        close = {name: difflib.get_close_matches(name, names, n=1) for name in unknown}
        hints = [f"{name} (did you mean {best[0]}?)" if best else name for name, best in close.items()]
        raise ConfigError(f"there is no parameter {', '.join(hints)}")
    if missing := sorted(names.keys() - complete.keys()):
        raise ConfigError("; ".join(f"{name}: found nothing, expected {names[name]}" for name in missing))
    return complete


def check_parameters(parameters: Mapping[str, Any]) -> RunConfig:
    """What the run is about, when every parameter has a value that can be right.

    Args:
        parameters: every parameter by its name.

    Raises:
        ConfigError: naming all groups' first mistakes at once.
    """
    mistakes: list[str] = []

    def build(group: Group, **more: Any) -> Any:
        try:
            return group.config(**fields_of(group, parameters), **more)
        except ConfigError as error:
            mistakes.append(_in_the_pipelines_words(str(error), group))

    run = build(RUN)
    build(PICTURES, images_uri=parameters["images_uri"])
    build(PLACEHOLDER)
    training = build(TRAINING)
    nodes = build(NODES)
    build(EVALUATION)
    build(REGISTRY, registry_uri=run.registry_uri if run else "unknown")
    if run and training and run.accelerator == "tpu":
        mistakes += _mistakes_for_tpus(run, training)
    if run and nodes:
        mistakes += _mistakes_of_nodes(run, nodes.num_nodes)
    if mistakes:
        raise ConfigError("; ".join(dict.fromkeys(mistakes)))
    return run


def _mistakes_of_nodes(run: RunConfig, num_nodes: int) -> list[str]:
    mistakes = []
    try:
        run.training_pod.check_nodes(num_nodes)
    except ConfigError as error:
        mistakes.append(str(error))
    if run.accelerator == "tpu" and num_nodes > 1 and not run.evaluation_node_selector:
        mistakes.append(
            f"evaluation_node_selector: found nothing with accelerator tpu on {num_nodes} nodes, expected the labels "
            "of a slice of one node: one pod draws the samples, and no pod gets one node of a larger slice"
        )
    return mistakes


def _mistakes_for_tpus(run: RunConfig, training: TrainConfig) -> list[str]:
    mistakes = []
    if training.mixed_precision == "fp16":
        mistakes.append("mixed_precision: found fp16 with accelerator tpu, expected bf16, in which TPUs compute, or no")
    for name in ("enable_xformers_memory_efficient_attention", "cuda_graphs"):
        if getattr(training, name):
            mistakes.append(f"{name}: found True with accelerator tpu, expected False")
    batch, accumulated = training.train_batch_size, training.gradient_accumulation_steps
    samples = batch * accumulated if training.fuse_micro_batches else batch
    chips = run.training_pod.count
    if samples % chips:
        told = f"{batch} x {accumulated} accumulated" if training.fuse_micro_batches else f"{batch} at once"
        mistakes.append(
            f"train_batch_size: found {told}, which {chips} TPU chips cannot share equally, expected a "
            f"multiple of {chips}"
        )
    return mistakes


def _in_the_pipelines_words(message: str, group: Group) -> str:
    """The message with the parameter's name instead of the field's, where they differ."""
    field, colon, rest = message.partition(":")
    names = [name for name, own in group.fields.items() if own == field]
    return f"{names[0]}{colon}{rest}" if names else message
