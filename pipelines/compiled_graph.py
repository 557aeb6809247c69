"""A compiled pipeline as graphs of tasks: the root's graph, and those of its branches, loops and nested pipelines."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]

ROOT = "root"

RUNS_IF_TOLD = "inputs.parameter_values['config'] != ''"
"""The condition of a task that runs if it is told what to do."""

CONDITION_PARAMETER = re.compile(r"inputs\.parameter_values\['(.+?)'\]")
"""An input of the task that its condition looks at."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A task of a graph, with what it runs.

    Attributes:
        name: its name in the graph.
        specification: its `PipelineTaskSpec`.
        component: the `ComponentSpec` that it runs.
        container: the container of that component's executor; empty for a graph and for an importer.
        importer: the importer of that component's executor; empty for others.
        platform: what the platform's document says of that executor.
    """

    name: str
    specification: Json
    component: Json
    container: Json
    importer: Json
    platform: Json

    @property
    def dependencies(self) -> Sequence[str]:
        """The tasks that must succeed before this one starts."""
        dependencies: Sequence[str] = self.specification.get("dependentTasks", [])
        return dependencies

    @property
    def condition(self) -> str | None:
        """What the task runs for; None if it always runs."""
        condition: str | None = self.specification.get("triggerPolicy", {}).get("condition")
        return condition

    @property
    def gate(self) -> tuple[str, tuple[str, ...]] | None:
        """The condition with where the inputs come from that it looks at, equal for tasks that run or not together.

        Of another task's outputs that is the task: what it tells, it tells all of them, or none.
        """
        if self.condition is None:
            return None
        sources = [self.given("parameters").get(name, {}) for name in CONDITION_PARAMETER.findall(self.condition)]
        told_by = (source.get("taskOutputParameter", {}).get("producerTask") or str(source) for source in sources)
        return self.condition, tuple(told_by)

    def given(self, kind: str) -> Json:
        """Where each input comes from; `kind` is `parameters` or `artifacts`."""
        given: Json = self.specification.get("inputs", {}).get(kind, {})
        return given

    def declared(self, direction: str, kind: str) -> Json:
        """The component's `inputDefinitions` or `outputDefinitions` of a kind."""
        declared: Json = self.component.get(direction, {}).get(kind, {})
        return declared


@dataclasses.dataclass(frozen=True, kw_only=True)
class Graph:
    """A graph of tasks.

    Attributes:
        name: `ROOT`, or the name of its component.
        inputs: its `inputDefinitions`.
        outputs: where its outputs come from, its `DagOutputsSpec`.
        tasks: its tasks by name.
    """

    name: str
    inputs: Json
    outputs: Json
    tasks: Mapping[str, Task]

    def upstream(self, task: str) -> set[str]:
        """Every task that must succeed before this one starts."""
        found: set[str] = set()
        left = [task]
        while left:
            new = (set(self.tasks[left.pop()].dependencies) & self.tasks.keys()) - found
            found |= new
            left += new
        return found

    def ends_at(self, gate: tuple[str, tuple[str, ...]]) -> bool:
        """Whether a run is over when the tasks of a gate do not run: nothing else would but what they wait for.

        A backend leaves out what depends on them, and the run succeeds.
        """
        behind = {name for name, task in self.tasks.items() if task.gate == gate}
        left_out = behind | {name for name in self.tasks if self.upstream(name) & behind}
        before = set[str]().union(*map(self.upstream, behind))
        return self.name == ROOT and left_out | before == self.tasks.keys()

    def source_problem(self, task: Task, source: Json) -> str | None:
        """Why an input of a task cannot be resolved within this graph; None if it can.

        Args:
            task: the task that reads it.
            source: where it comes from: an `InputParameterSpec` or an `InputArtifactSpec`.
        """
        for kind in ("parameter", "artifact"):
            if (name := source.get(f"componentInput{kind.title()}")) is not None:
                if name in self.inputs.get(f"{kind}s", {}):
                    return None
                return (
                    f"parent DAG {self.name} does not have input {kind} {name}; pass it to the DAG (in a branch by "
                    "`task.register_pipeline_channels`) or take it from a task of the same DAG"
                )
            if output := source.get(f"taskOutput{kind.title()}"):
                producer, key = output.get("producerTask"), output.get(f"output{kind.title()}Key")
                problem = self.output_problem(producer, kind, key)
                if problem is None and producer not in self.upstream(task.name):
                    return f"reads {key!r} of {producer!r} without waiting for it; add that to the task's dependencies"
                return problem
        if "runtimeValue" in source or "taskFinalStatus" in source:
            return None
        return f"comes from {dict(source)}, expected a constant, an input of {self.name} or another task's output"

    def output_problem(self, producer: str, kind: str, output: str) -> str | None:
        """Why a task of this graph has no such output; None if it has.

        Args:
            producer: the task's name.
            kind: `parameter` or `artifact`.
            output: the output's name.
        """
        if producer not in self.tasks:
            return f"comes from task {producer!r}, but {self.name} has only {', '.join(sorted(self.tasks))}"
        declared = self.tasks[producer].declared("outputDefinitions", f"{kind}s")
        if output not in declared:
            return f"{producer!r} has no output {kind} {output!r}, only {', '.join(sorted(declared)) or 'none'}"
        return None

    def type_of(self, source: Json) -> str | None:
        """The `parameterType` of what an input comes from.

        Returns:
            None for a constant, for what is selected from a larger value, and for a source that does not exist.
        """
        definition: Json = {}
        if "parameterExpressionSelector" in source:
            return None
        if "componentInputParameter" in source:
            definition = self.inputs.get("parameters", {}).get(source["componentInputParameter"], {})
        elif output := source.get("taskOutputParameter"):
            producer = self.tasks.get(output.get("producerTask"))
            outputs = producer.declared("outputDefinitions", "parameters") if producer else {}
            definition = outputs.get(output.get("outputParameterKey"), {})
        return definition.get("parameterType")


def graphs(documents: Sequence[Json]) -> Iterator[Graph]:
    """The graphs of a compiled pipeline, the root's first.

    Args:
        documents: its specification, and, if there is one, that of the platform.
    """
    specification = documents[0]
    components = specification.get("components", {})
    executors = specification["deploymentSpec"]["executors"]
    platforms = documents[1].get("platforms", {}) if len(documents) > 1 else {}
    platform = platforms.get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})

    def task(name: str, specification: Json) -> Task:
        component = components[specification["componentRef"]["name"]]
        label = component.get("executorLabel", "")
        executor = executors.get(label, {})
        return Task(
            name=name,
            specification=specification,
            component=component,
            container=executor.get("container", {}),
            importer=executor.get("importer", {}),
            platform=platform.get(label, {}),
        )

    for name, component in {ROOT: specification["root"], **components}.items():
        if dag := component.get("dag"):
            yield Graph(
                name=name,
                inputs=component.get("inputDefinitions", {}),
                outputs=dag.get("outputs", {}),
                tasks={key: task(key, value) for key, value in dag["tasks"].items()},
            )
