"""The conditions of a local run's tasks, looked at as a backend does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from kfp.local import status
from kfp.local.orchestrator import task_executor
from kfp.local.orchestrator.orchestrator_utils import OrchestratorUtils

from pipelines.compiled_graph import CONDITION_PARAMETER, RUNS_IF_TOLD


class Conditions:
    """Leaves out the tasks of one run that are told nothing, and what depends on them.

    `kfp.local` (2.17) can evaluate the conditions of groups alone, so this takes those of single tasks upon itself.

    Attributes:
        left_out: the tasks that were left out, by name.
    """

    def __init__(self, pipeline: dict[str, Any]) -> None:
        """Takes the conditions out of a pipeline's specification."""
        self.left_out: list[str] = []
        self._conditional = set()
        for name, task in pipeline["root"]["dag"]["tasks"].items():
            if task.get("triggerPolicy", {}).get("condition") == RUNS_IF_TOLD:
                del task["triggerPolicy"]
                self._conditional.add(name)

    @contextlib.contextmanager
    def of_kfp(self) -> Iterator[None]:
        """While the block runs, `kfp.local` asks here before it starts a task."""
        before = task_executor.execute_single_task

        def execute(**given: Any) -> tuple[dict[str, Any], status.Status]:
            name, task = given["task_name"], given["task_spec"]
            if not self._is_left_out(name, task, given["io_store"]):
                return before(**given)
            self.left_out.append(name)
            outputs = given["components"][task.component_ref.name].output_definitions
            return dict.fromkeys([*outputs.parameters, *outputs.artifacts], ""), status.Status.SUCCESS

        task_executor.execute_single_task = execute
        try:
            yield
        finally:
            task_executor.execute_single_task = before

    def _is_left_out(self, name: str, task: Any, known: Any) -> bool:
        if not set(self.left_out).isdisjoint(task.dependent_tasks):
            return True
        if name not in self._conditional:
            return False
        (told,) = CONDITION_PARAMETER.findall(RUNS_IF_TOLD)
        return OrchestratorUtils.make_task_arguments(task.inputs, known)[told] == ""
