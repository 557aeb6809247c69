"""What a backend of Kubeflow Pipelines 2.17 refuses or loses in a compiled pipeline, found before there is a cluster.

`kfp.local` runs pipelines that a cluster's driver fails on, for it looks neither at resources and node selectors nor at
where a graph's inputs come from. The rules are those of the driver (`backend/src/v2/driver/` in kubeflow/pipelines:
`resolve.go`, `driver.go`, `container.go`, `k8s.go`) and of the workflow that it belongs to
(`compiler/argocompiler/dag.go`): there a task waits for `Succeeded` of each task that it depends on, so that it is
omitted when one of them is skipped by its condition; to Argo a workflow of skipped and omitted tasks has succeeded.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from pipelines.compiled_graph import CONDITION_PARAMETER, Graph, Json, Task, graphs

_PARAMETER = re.compile(r"\{\{\$\.inputs\.parameters\['(.+?)'\]\}\}")
_QUANTITY = re.compile(r"(\d+\.?\d*|\.\d+)(?:[eE]([+-]?\d+)|([numkMGTPE]|[KMGTPE]i)?)")
_FACTORS = {
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate(["n", "u", "m", "", "k", *"MGTPE"], -3)},
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", 1)},
}
_PLATFORM_TYPES = {"nodeSelectorJson": ["STRUCT"], "nodeAffinityJson": ["STRUCT"], "tolerationJson": ["STRUCT", "LIST"]}
"""What the driver takes in a field of the platform's document; every other field takes a text."""


def problems(documents: Sequence[Json]) -> list[str]:
    """What a backend would fail on, or silently lose, in a compiled pipeline.

    Of a step's Python source only what is embedded in the pipeline is read: a function elsewhere that re-points an
    output is not seen.

    Args:
        documents: the compiled pipeline: its specification, and, if there is one, that of the platform.

    Returns:
        One sentence a problem, with its graph, task and field; none where the rules hold.
    """
    found = []
    for graph in graphs(documents):
        found += [f"{graph.name}, {problem}" for problem in _output_problems(graph)]
        for task in graph.tasks.values():
            for rule in (
                _sources,
                _missing_inputs,
                _conditional_dependencies,
                _condition_of_importer,
                _placeholders,
                _platform,
            ):
                found += [f"{graph.name}, task {task.name!r}, {problem}" for problem in rule(graph, task)]
            found += [f"{graph.name}, task {task.name!r}, {problem}" for problem in _repointed_outputs(task)]
    return found


def shape_problems(documents: Sequence[Json]) -> list[str]:
    """What runs on a backend but costs more, or does less, than it seems to: conditional groups and exit handlers.

    The condition of a step of its own costs nothing: the step's driver looks at it.

    Args:
        documents: the compiled pipeline, as for `problems`.

    Returns:
        One sentence for each group behind a condition and each exit handler, with its graph and task.
    """
    found = []
    for graph in graphs(documents):
        for task in graph.tasks.values():
            where = f"{graph.name}, task {task.name!r}, triggerPolicy"
            if task.condition is not None and not task.container:
                found.append(
                    f"{where}.condition: runs only if {task.condition}, which costs a driver's pod and leaves out "
                    "whatever depends on it; let the step itself see what there is to do"
                )
            if task.specification.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED":
                found.append(
                    f"{where}.strategy: an exit handler of {', '.join(task.dependencies)}, which does not run if a "
                    "task before its group fails; let nothing depend on its having run"
                )
    return found


def requests_that_do_not_fit(documents: Sequence[Json], *, cpu: float, memory_gib: float) -> list[str]:
    """The tasks that a node of this size cannot hold, by what they request as constants.

    A limit without a request is the request, as in Kubernetes. What a parameter or another task's output asks for is
    known only in a run, and passed over.

    Args:
        documents: the compiled pipeline, as for `problems`.
        cpu: processors that pods may have on the node.
        memory_gib: memory that pods may have on the node, in GiB.

    Returns:
        One sentence a request, with its graph, task and field; none where all fit.
    """
    sizes = (
        ("Cpu", "", Decimal(str(cpu)), f"{cpu:g} processors"),
        ("Memory", "G", Decimal(str(memory_gib)) * _FACTORS["Gi"], f"{memory_gib:g} GiB"),
    )
    found = []
    for graph in graphs(documents):
        for task in graph.tasks.values():
            for resource, unit, room, node in sizes:
                field, asked = _request(task, resource, unit)
                if not asked or _PARAMETER.search(asked):
                    continue
                where = f"{graph.name}, task {task.name!r}, resources.{field}: {asked!r}"
                amount = _amount(asked)
                if amount is None:
                    found.append(f"{where} is not a quantity of Kubernetes, such as '500m', '2', '1Gi' or '1G'")
                elif amount > room:
                    found.append(f"{where} does not fit a node with {node}; ask for less, or have a larger node")
    return found


def _request(task: Task, resource: str, unit: str) -> tuple[str, str]:
    """The field that is a task's request of `Cpu` or `Memory`, and its quantity; empty if there is none."""
    resources = task.container.get("resources", {})
    for bound in ("Request", "Limit"):
        # The driver reads the number, of processors or of 10^9 bytes, only where there is no text.
        text, number = f"resource{resource}{bound}", f"{resource.lower()}{bound}"
        if resources.get(text):
            return text, str(resources[text])
        if resources.get(number):
            return number, f"{Decimal(str(resources[number])):f}{unit}"
    return "", ""


def _amount(quantity: str) -> Decimal | None:
    """A quantity of Kubernetes as a number; None if it is none."""
    match = _QUANTITY.fullmatch(quantity)
    if match is None:
        return None
    number, exponent, suffix = match.groups()
    return Decimal(number) * (Decimal(10) ** int(exponent) if exponent else _FACTORS[suffix or ""])


def _sources(graph: Graph, task: Task) -> Iterator[str]:
    for kind in ("parameters", "artifacts"):
        for name, source in task.given(kind).items():
            if problem := graph.source_problem(task, source):
                yield f"inputs.{kind}.{name}: {problem}"


def _missing_inputs(graph: Graph, task: Task) -> Iterator[str]:
    """What the component, the condition or the loop needs and the task does not give."""
    iterator = task.specification.get("parameterIterator", {})
    for kind in ("parameters", "artifacts"):
        for name, definition in task.declared("inputDefinitions", kind).items():
            spared = definition.get("isOptional") or "defaultValue" in definition or name == iterator.get("itemInput")
            if name not in task.given(kind) and not spared:
                yield f"inputs.{kind}.{name}: its component needs it and the task does not give it"
    needed = [("triggerPolicy.condition", name) for name in CONDITION_PARAMETER.findall(task.condition or "")]
    if items := iterator.get("items", {}).get("inputParameter"):
        needed.append(("parameterIterator.items", items))
    if uri := task.importer.get("artifactUri", {}).get("runtimeParameter"):
        needed.append(("importer.artifactUri", uri))
    for field, name in needed:
        if name not in task.given("parameters"):
            yield f"{field}: looks at {name!r}, which is no input of the task"


def _conditional_dependencies(graph: Graph, task: Task) -> Iterator[str]:
    for name in task.dependencies:
        if name not in graph.tasks:
            yield f"dependentTasks: {graph.name} has no task {name!r}"
        elif (gate := graph.tasks[name].gate) is not None and gate != task.gate and not graph.ends_at(gate):
            yield (
                f"dependentTasks: {name!r} runs only if {gate[0]}, and this task is left out when it does not; "
                "let it depend on what always runs, put it behind the same condition, or end the whole run with it"
            )


def _condition_of_importer(graph: Graph, task: Task) -> Iterator[str]:
    if task.importer and task.condition is not None:
        yield "triggerPolicy.condition: an importer with a condition is refused; put it on what depends on the importer"


def _output_problems(graph: Graph) -> Iterator[str]:
    for kind in ("parameters", "artifacts"):
        for name, output in graph.outputs.get(kind, {}).items():
            selectors = output.get("artifactSelectors") or output.get("valueFromOneof", {}).get("parameterSelectors")
            selectors = selectors or [output["valueFromParameter"]]
            for selector in selectors:
                key = selector.get("outputParameterKey") or selector.get("outputArtifactKey")
                producer = selector["producerSubtask"]
                problem = graph.output_problem(producer, kind.removesuffix("s"), key)
                gate = graph.tasks[producer].gate if problem is None and len(selectors) == 1 else None
                if gate is not None and not graph.ends_at(gate):
                    problem = f"comes from {producer!r}, which may not run: only if {graph.tasks[producer].condition}"
                if problem:
                    yield f"outputs.{kind}.{name}: {problem}"
            if len(selectors) > 1 or "valueFromOneof" in output:
                branches = ", ".join(selector["producerSubtask"] for selector in selectors)
                yield (
                    f"outputs.{kind}.{name}: is one of {branches} (OneOf), which fails when the branch that ran is "
                    "answered from the cache; let one task make the output"
                )


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Every text in a value, with its place."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(item, f"{path}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, f"{path}[{index}]")


def _placeholders(graph: Graph, task: Task) -> Iterator[str]:
    """Placeholders of the executor and of the task's constants that nothing fills, or not with a text."""
    given = task.given("parameters")
    declared = task.declared("inputDefinitions", "parameters")
    constants = {name: source["runtimeValue"] for name, source in given.items() if "runtimeValue" in source}
    executor = {"container": task.container, "importer": task.importer, "inputs": {"parameters": constants}}
    for part, content in executor.items():
        for path, text in _texts(content, part):
            of_pod = path.startswith(("container.image", "container.resources"))
            # The driver fills these without a component's defaults, which the launcher alone knows.
            of_driver = path.startswith("container.") and "$.outputs" not in text and '{"IfPresent":' not in text
            for name in _PARAMETER.findall(text):
                definition = declared.get(name, {})
                spared = not of_driver and (definition.get("isOptional") or "defaultValue" in definition)
                if name not in given and not spared:
                    yield f"{path}: reads {name!r}, which the task does not give it; a default does not reach here"
                elif of_pod:
                    found = definition.get("parameterType") or graph.type_of(given[name])
                    if found not in ("STRING", None):
                        yield f"{path}: reads {name!r}, a {found}: the driver takes a STRING, and others as empty"


def _platform(graph: Graph, task: Task) -> Iterator[str]:
    """Fields of the platform's document that come from nowhere, or have a type that the driver does not take."""

    def references(value: Any, path: str) -> Iterator[tuple[str, Json]]:
        if isinstance(value, Mapping):
            if {"componentInputParameter", "taskOutputParameter", "runtimeValue"} & value.keys():
                yield path, value
            else:
                for key, item in value.items():
                    yield from references(item, f"{path}.{key}")
        elif isinstance(value, list):
            for index, item in enumerate(value):
                yield from references(item, f"{path}[{index}]")

    for path, source in references(task.platform, "kubernetes"):
        expected = _PLATFORM_TYPES.get(path.rpartition(".")[2], ["STRING"])
        if problem := graph.source_problem(task, source):
            yield f"{path}: {problem}"
        elif (found := graph.type_of(source)) not in (*expected, None):
            yield f"{path}: is a {found}, and the driver takes a {' or a '.join(expected)}"


def _repointed_outputs(task: Task) -> Iterator[str]:
    """Assignments of the step's embedded source to an output's address, which must stay under the run's root."""
    outputs = task.declared("outputDefinitions", "artifacts")
    for index, text in enumerate(task.container.get("command", [])):
        try:
            source = ast.parse(text)
        except SyntaxError:  # a command of the shell
            continue
        for node in ast.walk(source):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.ctx, ast.Store)
                and node.attr in ("uri", "path")
                and isinstance(node.value, ast.Name)
                and node.value.id in outputs
            ):
                yield (
                    f"container.command[{index}], line {node.lineno}: assigns to {ast.unparse(node)}, and an output's "
                    "address must lie under this run's root; write to where it points"
                )
