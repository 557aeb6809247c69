"""A compiled pipeline as a picture that GitHub draws: a mermaid flowchart of the root's tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipelines.compiled_graph import Graph, Json, Task, graphs


def mermaid(specification: Json) -> str:
    """The flowchart of a compiled pipeline, the same text for the same pipeline.

    A box is a task with the name that the UI shows. A solid arrow is an artifact. A dotted arrow is parameters or an
    order alone, and is left out where the task is reached by other arrows, so that a step that gives every other one
    its settings does not hide the way of the data.

    Args:
        specification: the pipeline's specification, the first document of the compiled file.

    Returns:
        Lines of mermaid within a fenced block of Markdown.
    """
    graph = next(graphs([specification]))
    names = _in_order(graph)
    # The prefix keeps a task named like a word of mermaid's own, such as `end`, from breaking the picture.
    boxes = {name: f"step_{name.replace('-', '_')}" for name in names}
    lines = [f'    {boxes[name]}["{_label(graph.tasks[name])}"]' for name in names]
    for name in names:
        task = graph.tasks[name]
        outputs = [source.get("taskOutputArtifact", {}) for source in task.given("artifacts").values()]
        data = {output["producerTask"] for output in outputs if output}
        if data:
            lines += [f"    {boxes[parent]} --> {boxes[name]}" for parent in names if parent in data]
        else:
            lines += [f"    {boxes[parent]} -.-> {boxes[name]}" for parent in _nearest(graph, names, task)]
    return "\n".join(["```mermaid", "flowchart TD", *lines, "```"])


def replace_between(text: str, marker: str, content: str) -> str:
    """The text with other lines between `<!-- begin MARKER -->` and `<!-- end MARKER -->`, which stay.

    Args:
        text: the text, such as a Markdown page.
        marker: the markers' name.
        content: the lines that take the place of what stands between the markers.

    Raises:
        ValueError: when the text does not have each marker once, the beginning before the end.
    """
    begin, end = f"<!-- begin {marker} -->", f"<!-- end {marker} -->"
    counts = text.count(begin), text.count(end)
    if counts != (1, 1) or text.index(begin) > text.index(end):
        raise ValueError(
            f"found {begin!r} {counts[0]} times and {end!r} {counts[1]} times, expected each once and in this order; "
            "put both on lines of their own where the content belongs"
        )
    before, after = text[: text.index(begin)], text[text.index(end) :]
    return f"{before}{begin}\n{content.strip()}\n{after}"


def _in_order(graph: Graph) -> list[str]:
    """The tasks, each after those that it depends on, else by name."""
    return sorted(graph.tasks, key=lambda name: (len(graph.upstream(name)), name))


def _nearest(graph: Graph, names: Sequence[str], task: Task) -> list[str]:
    """The dependencies that no other dependency waits for."""
    behind: set[str] = set().union(*(graph.upstream(name) for name in task.dependencies))
    return [name for name in names if name in task.dependencies and name not in behind]


def _label(task: Task) -> str:
    info: Mapping[str, str] = task.specification.get("taskInfo", {})
    return info.get("name", task.name).replace('"', "#quot;")
