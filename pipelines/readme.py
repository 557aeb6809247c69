"""What the README shows of the compiled pipeline: its graph and the list of all options.

`python -m pipelines.readme` writes both between their markers; `make compile` does so.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pipelines.compiling import COMPILED
from pipelines.describing import option_lists
from pipelines.graph_picture import mermaid, replace_between
from pipelines.local_run import read_pipeline

README = Path(__file__).resolve().parents[1] / "README.md"


def with_pipeline(text: str, compiled: Path = COMPILED / "textual_inversion.yaml") -> str:
    """The README with the graph and the options of a compiled pipeline.

    Args:
        text: the README.
        compiled: the pipeline's YAML file.

    Raises:
        ValueError: when the README lacks a marker.
    """
    pipeline = read_pipeline(compiled)
    options = option_lists(pipeline["root"]["inputDefinitions"]["parameters"])
    return replace_between(replace_between(text, "GRAPH", mermaid(pipeline)), "OPTIONS", options)


def main() -> None:
    """Writes the README."""
    README.write_text(with_pipeline(README.read_text(encoding="utf-8")), encoding="utf-8")
    print(README.name, file=sys.stdout)


if __name__ == "__main__":
    main()
