"""The picture of a pipeline's graph, and where it is put."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import compiler, dsl

from pipelines.graph_picture import mermaid, replace_between


@dsl.component(base_image="toy:1", install_kfp_package=False)
def check(colour: str) -> str:
    """Says how to paint."""


@dsl.component(base_image="toy:1", install_kfp_package=False)
def paint(how: str, picture: dsl.Output[dsl.Artifact]):
    """Writes a picture."""


@dsl.component(base_image="toy:1", install_kfp_package=False)
def frame(how: str, picture: dsl.Input[dsl.Artifact], framed: dsl.Output[dsl.Artifact]):
    """Frames a picture."""


@dsl.component(base_image="toy:1", install_kfp_package=False)
def hang(how: str, picture: dsl.Input[dsl.Artifact], framed: dsl.Input[dsl.Artifact]):
    """Hangs a picture."""


@dsl.pipeline(name="gallery")
def gallery(colour: str):
    how = check(colour=colour).set_display_name('Check "everything"').output
    painted = paint(how=how).set_display_name("Paint")
    framed = frame(how=how, picture=painted.output)
    hang(how=how, picture=painted.output, framed=framed.output).set_display_name("Hang")
    check(colour=how).after(painted)


@pytest.fixture
def specification(tmp_path: Path) -> dict[str, Any]:
    file = tmp_path / "gallery.yaml"
    compiler.Compiler().compile(gallery, str(file))
    found: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return found


PICTURE = """\
```mermaid
flowchart TD
    step_check["Check #quot;everything#quot;"]
    step_paint["Paint"]
    step_check_2["check-2"]
    step_frame["frame"]
    step_hang["Hang"]
    step_check -.-> step_paint
    step_paint -.-> step_check_2
    step_paint --> step_frame
    step_paint --> step_hang
    step_frame --> step_hang
```"""


def test_picture_shows_the_way_of_the_data_and_few_other_arrows(specification: dict[str, Any]):
    assert mermaid(specification) == PICTURE


def test_picture_is_the_same_when_the_tasks_are_in_another_order(specification: dict[str, Any]):
    dag = specification["root"]["dag"]
    dag["tasks"] = dict(reversed(dag["tasks"].items()))
    assert mermaid(specification) == PICTURE


def test_content_between_markers_is_replaced_and_nothing_else():
    text = "before\n<!-- begin GRAPH -->\nold\nlines\n<!-- end GRAPH -->\nafter <!-- begin OTHER -->\n"
    new = replace_between(text, "GRAPH", "new\n")
    assert new == "before\n<!-- begin GRAPH -->\nnew\n<!-- end GRAPH -->\nafter <!-- begin OTHER -->\n"
    assert replace_between(new, "GRAPH", "new") == new


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("", "found '<!-- begin GRAPH -->' 0 times and '<!-- end GRAPH -->' 0 times"),
        ("<!-- begin GRAPH -->", "'<!-- end GRAPH -->' 0 times"),
        ("<!-- begin GRAPH --><!-- end GRAPH --><!-- end GRAPH -->", "'<!-- end GRAPH -->' 2 times"),
        ("<!-- end GRAPH --> <!-- begin GRAPH -->", "in this order"),
    ],
)
def test_replacing_fails_when_the_markers_are_not_there(text: str, counts: str):
    with pytest.raises(ValueError, match=counts):
        replace_between(text, "GRAPH", "new")
