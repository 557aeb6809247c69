"""A pipeline of two steps for the tests of the local runner: no model, no time."""

from typing import NamedTuple

from kfp import dsl


@dsl.component(base_image="toy:1", install_kfp_package=False)
def draw(colour: str, picture: dsl.Output[dsl.Artifact]):
    """Writes a picture of a colour; fails on three of them, in the ways in which a step can fail.

    For one colour its run is interrupted meanwhile, and it does about it what a step does.
    """
    import os
    import signal
    import sys
    from pathlib import Path

    from components.common.cli import step_boundary
    from components.common.errors import ImageError

    def keep(*_):
        print("kept half a picture")
        sys.exit(143)

    print("drawing", colour, *filter(None, [os.environ.get("TOY_PAINT")]))
    if colour == "interrupted":
        signal.signal(signal.SIGTERM, keep)
        os.kill(int(os.environ["TOY_RUN"]), signal.SIGINT)
        signal.pause()
    with step_boundary("draw"):
        if colour == "invisible":
            raise ImageError("found the colour 'invisible', expected one that can be seen")
        if colour == "wrong":
            raise ImageError("colour: found 'wrong', expected a colour", "width: found none, expected one")
        if colour == "broken":
            raise ZeroDivisionError("the brush\nbroke")
        Path(picture.path).write_text(colour, encoding="utf-8")


@dsl.component(base_image="toy:1", install_kfp_package=False)
def frame(picture: dsl.Input[dsl.Artifact], width: int) -> str:
    """The picture's colour in a frame."""
    from pathlib import Path

    from components.common.cli import step_boundary

    with step_boundary("frame"):
        return f"[{Path(picture.path).read_text(encoding='utf-8')}]" * width


@dsl.component(base_image="toy:1", install_kfp_package=False)
def choose(colour: str) -> str:
    """What the painter is told: the colour, and nothing of none."""
    from components.common.cli import step_boundary

    with step_boundary("choose"):
        return "" if colour == "none" else f"'{colour}'"


@dsl.component(base_image="toy:1", install_kfp_package=False)
def paint(config: str, picture: dsl.Output[dsl.Artifact]):
    """Writes a picture of what it is told."""
    from pathlib import Path

    from components.common.cli import step_boundary

    with step_boundary("paint"):
        Path(picture.path).write_text(config, encoding="utf-8")


class Told(NamedTuple):
    """What the pipeline `told` gives."""

    chosen: str
    picture: dsl.Artifact
    framed: str


@dsl.pipeline(name="told")
def told(colour: str) -> Told:
    """A painting in a frame, if there is a colour to paint."""
    chosen = choose(colour=colour).set_display_name("Choose")
    painted = paint(config=chosen.output).set_display_name("Paint")
    framed = frame(picture=painted.outputs["picture"], width=1).set_display_name("Frame")
    return Told(chosen.output, painted.outputs["picture"], framed.output)


@dsl.pipeline(name="toy", description="Draws and frames.")
def toy(colour: str, width: int = 1) -> NamedTuple("Outputs", [("picture", dsl.Artifact), ("framed", str)]):
    """A drawing in a frame."""
    drawn = draw(colour=colour).set_display_name("Draw the picture").set_retry(3, backoff_duration="60s")
    framed = frame(picture=drawn.outputs["picture"], width=width)
    return NamedTuple("Outputs", [("picture", dsl.Artifact), ("framed", str)])(drawn.outputs["picture"], framed.output)
