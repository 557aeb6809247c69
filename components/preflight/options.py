"""Every option of a run: the fields of the steps' configs, found by name and checked together."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any

from components.common.errors import ConfigError
from components.common.learned_files import CHAMPION
from components.common.options import Config, Option, default_of, option_of, typed_fields
from components.common.prompts import concept_name
from components.common.training.config import TrainConfig
from components.common.training.watch_config import WatchConfig
from components.common.upstream_names import no_such_option
from components.evaluate.config import EvaluateOptions
from components.ingest_images.config import PictureOptions
from components.init_embedding.config import InitOptions
from components.preflight.config import CHANGED, RunOptions
from components.preflight.words import TOKEN, WordsOptions, in_word, values_by_word
from components.publish.config import PublishOptions
from components.publish.destinations.config import DestinationOptions
from components.train.config import TrainStepConfig, mistakes_with_several_words
from components.train.frameworks import FRAMEWORKS, framework_for, mistakes_with_flax
from components.train.nodes.config import MODEL_CPU, MODEL_MEMORY, LaunchConfig, NodesOptions

LONGEST_TOGETHER = 50_000
"""Characters of all options as JSON: a step is told them in one argument of a command, of at most 128 KiB in Linux."""

GROUPS: tuple[type[Config], ...] = (
    RunOptions,
    PictureOptions,
    InitOptions,
    TrainConfig,
    WatchConfig,
    NodesOptions,
    EvaluateOptions,
    PublishOptions,
    DestinationOptions,
    WordsOptions,
)
"""The configs whose fields a person sets."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class KnownOption:
    """An option as a person meets it.

    Attributes:
        group: the config that it is part of.
        field: its name there.
        type: its type there.
        option: what it means, and which values it may have.
        default: the default; `dataclasses.MISSING` where there is none.
    """

    group: type[Config]
    field: str
    type: Any
    option: Option
    default: Any


def known_options() -> dict[str, KnownOption]:
    """Every option of a run by its name, in the order of the groups."""
    return {
        group.prefix + field.name: KnownOption(
            group=group, field=field.name, type=hint, option=option_of(field), default=_as_json(default_of(field))
        )
        for group in GROUPS
        for field, hint in typed_fields(group)
    }


def _as_json(default: Any) -> Any:
    return list(default) if isinstance(default, tuple) else default


def defaults() -> dict[str, Any]:
    """The default of each option that has one, by its name; lists for tuples, as in YAML."""
    options = known_options()
    return {name: known.default for name, known in options.items() if known.default is not dataclasses.MISSING}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckedOptions:
    """Every option of a run, each with a value that can be right, and all of them fitting each other."""

    run: RunOptions
    pictures: PictureOptions
    word: InitOptions
    training: TrainConfig
    watching: WatchConfig
    nodes: NodesOptions
    evaluation: EvaluateOptions
    registry: PublishOptions
    destinations: DestinationOptions
    more_words: WordsOptions
    others: tuple[CheckedOptions, ...] = ()
    """The same for each of `more_words`, as it would be alone."""

    @property
    def words(self) -> tuple[CheckedOptions, ...]:
        """The options of each word, of this one first."""
        return (self, *self.others)

    @property
    def framework(self) -> str:
        """`torch` or `flax`: what trains.

        Raises:
            ConfigError: when the one that is asked for does not train on the accelerator.
        """
        return framework_for(self.run.framework, self.run.accelerator)

    @property
    def num_processes(self) -> int:
        """How many processes train together on all nodes."""
        devices = self.run.training_pod.count if FRAMEWORKS[self.framework].process_per_device else 1
        return self.nodes.num_nodes * max(1, devices)

    def launching(self, *, cpu: str = MODEL_CPU, memory: str = MODEL_MEMORY) -> LaunchConfig:
        """How the cluster is asked for the pods that train, be it one or several.

        Args:
            cpu: processors of each.
            memory: memory of each.
        """
        pod = self.run.training_pod
        return LaunchConfig(
            **vars(self.nodes),
            accelerator_count=pod.count,
            accelerator_resource=pod.resource,
            accelerator_node_selector=pod.node_selector,
            accelerator_tolerations=tuple(pod.tolerations),
            cpu_per_node=cpu,
            memory_per_node=memory,
        )

    def training_step(self, *, cpu: str, memory: str) -> TrainStepConfig:
        """What the training step is told."""
        return TrainStepConfig(
            checkpoint_root=self.run.checkpoints_uri,
            accelerator=self.run.accelerator,
            framework=self.run.framework,
            training=self.training,
            watching=self.watching,
            nodes=self.launching(cpu=cpu, memory=memory) if self.nodes.num_nodes > 1 else None,
        )


def check_options(given: Mapping[str, Any], more_options: Mapping[str, Any] | None = None) -> CheckedOptions:
    """Every option of a run: the given ones, and the others' defaults.

    Args:
        given: options by name.
        more_options: others, from the field of that name on a form; an option stands in one of the two.

    Raises:
        ConfigError: naming every mistake at once, each by its option.
    """
    more = more_options or {}
    mistakes = list(_mistakes_of_names(given, more))
    values = {**given, **more}
    if (length := len(json.dumps(values, default=str))) > LONGEST_TOGETHER:
        mistakes.append(
            f"options: found {length} characters together, expected at most {LONGEST_TOGETHER}: shorten one"
        )
    built = _built_groups(values, mistakes)
    checked = _checked(built, mistakes)
    others = []
    more_words = built["more_words"].more_words if built["more_words"] else {}
    for token, own_values in values_by_word(values, more_words):
        own_mistakes: list[str] = []
        others.append(_checked(_built_groups(own_values, own_mistakes), own_mistakes))
        mistakes += [f"{in_word(token)}{mistake}" for mistake in own_mistakes if mistake not in mistakes]
    if mistakes:
        raise ConfigError(*mistakes)
    assert checked is not None
    checked = dataclasses.replace(checked, others=tuple(filter(None, others)))
    if between := list(_mistakes_between_words(checked)):
        raise ConfigError(*between)
    return checked


def _checked(built: Mapping[str, Any], mistakes: list[str]) -> CheckedOptions | None:
    """The options of one word, unless a config of theirs, or what is between them, is a mistake."""
    if mistakes:
        return None
    checked = CheckedOptions(**built)
    mistakes += _mistakes_between(checked)
    return checked


def _built_groups(values: Mapping[str, Any], mistakes: list[str]) -> dict[str, Any]:
    """The configs by their field of `CheckedOptions`; None for one with mistakes."""
    names = [field.name for field in dataclasses.fields(CheckedOptions) if field.name != "others"]
    return {name: _built(group, values, mistakes) for name, group in zip(names, GROUPS, strict=True)}


def _built(group: type[Config], values: Mapping[str, Any], mistakes: list[str]) -> Config | None:
    names = {group.prefix + field.name: field.name for field, _ in typed_fields(group)}
    try:
        return group.from_mapping({field: values[name] for name, field in names.items() if name in values})
    except ConfigError as error:
        mistakes += [group.prefix + mistake for mistake in error.mistakes]
    return None


def _mistakes_of_names(given: Mapping[str, Any], more: Mapping[str, Any]) -> Iterable[str]:
    names = known_options()
    for name in [*given, *more]:
        if name not in names:
            yield no_such_option(name, names)
    for name in given.keys() & more.keys():
        yield f"more_options: found {name} there and on the form, expected it in one of them: set it on the form"


def _mistakes_between(options: CheckedOptions) -> Iterable[str]:
    """What no config can see alone."""
    run, nodes = options.run, options.nodes
    yield from options.watching.mistakes_with(options.word.placeholder_token)
    yield from options.destinations.mistakes_with(
        options.registry.concept_name or concept_name(options.word.placeholder_token)
    )
    if not options.registry.registry_alias:
        for name, value, wanting in (
            ("retrain_if", run.retrain_if, CHANGED),
            ("initializer_embedding", options.word.initializer_embedding, CHAMPION),
        ):
            if value == wanting:
                yield f"{name}: found {wanting} without registry_alias, expected an alias, such as champion"
    try:
        options.launching().pod_accelerators(options.framework, run.accelerator)
    except ConfigError as error:
        yield str(error)
        return
    if run.accelerator == "tpu":
        yield from _mistakes_for_tpus(run, options.training, options.evaluation)
        if nodes.num_nodes > 1 and not run.evaluation_node_selector:
            yield (
                f"evaluation_node_selector: found nothing with accelerator tpu on {nodes.num_nodes} nodes, expected "
                "the labels of a slice of one node: one pod draws the samples, and no pod gets one node of a larger "
                "slice"
            )
    if options.framework == "flax":
        yield from mistakes_with_flax(options.training)


def _mistakes_between_words(options: CheckedOptions) -> Iterable[str]:
    """What the options of one word do not show."""
    if not options.others:
        return
    yield from mistakes_with_several_words(options.training, options.watching)
    if repository := options.destinations.hub_model_id:
        yield (
            f"hub_model_id: found {repository!r} with more_words, expected nothing: each word goes to a repository "
            "that is named as its concept"
        )
    tokens, concepts = list(options.word.tokens), [_concept(options)]
    for word in options.others:
        where = in_word(word.word.placeholder_token)
        for token in word.word.tokens:
            if token.lower() in map(str.lower, tokens):
                yield f"{where}{TOKEN}: found {token}, which is a token of another word, expected another placeholder"
        if _concept(word) in concepts:
            yield (
                f"{where}concept_name: found {_concept(word)!r}, under which another word is published, expected "
                "another name"
            )
        tokens += word.word.tokens
        concepts.append(_concept(word))


def _concept(options: CheckedOptions) -> str:
    return options.registry.concept_name or concept_name(options.word.placeholder_token)


def _mistakes_for_tpus(run: RunOptions, training: TrainConfig, evaluation: EvaluateOptions) -> Iterable[str]:
    if evaluation.sampling_precision == "fp16":
        yield (
            "evaluation_sampling_precision: found fp16 with accelerator tpu, expected bf16, in which TPUs compute, "
            "fp32 or auto"
        )
    if training.mixed_precision == "fp16":
        yield "mixed_precision: found fp16 with accelerator tpu, expected bf16, in which TPUs compute, or no"
    batch, accumulated = training.train_batch_size, training.gradient_accumulation_steps
    samples = batch * accumulated if training.fuse_micro_batches else batch
    chips = run.training_pod.count
    if samples % chips:
        told = f"{batch} x {accumulated} accumulated" if training.fuse_micro_batches else f"{batch} at once"
        yield (
            f"train_batch_size: found {told}, which {chips} TPU chips cannot share equally, expected a "
            f"multiple of {chips}"
        )
