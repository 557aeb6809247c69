"""A local run of three quick steps that can be stopped at any moment, the second of them a training.

python -m tests.hostile.stoppable_run FOLDER MANNER
"""

import os
import sys
from pathlib import Path

from kfp import dsl

from components.common.errors import TextualInversionError
from components.common.logs import outlive_readers
from pipelines.compiling import compile_pipeline, to_yaml
from pipelines.local_run import run_pipeline


@dsl.component(base_image="toy:1", install_kfp_package=False)
def paint(folder: str, manner: str, picture: dsl.Output[dsl.Artifact]):
    """Paints; it may take its time the first time, or not listen, or wait for a file, or talk."""
    import signal
    import time
    from pathlib import Path

    from components.common.artifact_folder import write_artifact
    from components.common.cli import step_boundary

    with step_boundary("paint"):
        again = Path(folder, "painted")
        if manner == "deaf":
            signal.signal(signal.SIGTERM, lambda *_: None)
        if manner in ("slow", "deaf") and not again.exists():
            again.touch()
            print("painting")
            time.sleep(60)
        while manner == "waiting" and not Path(folder, "go").exists():
            time.sleep(0.05)
        if manner == "talkative":
            for line in range(20000):
                print("line", line)
        write_artifact(Path(picture.path), kind="picture", version=1, content={}, files={"colour.txt": b"red"})


@dsl.component(base_image="toy:1", install_kfp_package=False)
def practise(folder: str, manner: str, picture: dsl.Input[dsl.Artifact]) -> str:
    """Trains; gives the digest of what was learned. It may do so by a process that hears none of the step's signals."""
    import signal
    import subprocess
    import sys

    from components.common.cli import step_boundary

    train = [sys.executable, "-m", "tests.hostile.stoppable_training", folder, "0.2"]
    with step_boundary("practise"):
        if manner == "apart":
            signal.signal(signal.SIGTERM, lambda *_: None)
            return subprocess.run(train, start_new_session=True, stdout=subprocess.PIPE, check=True).stdout.decode()
        from tests.hostile.stoppable_training import learn

        return learn(folder)


@dsl.component(base_image="toy:1", install_kfp_package=False)
def frame(digest: str) -> str:
    """The digest in a frame."""
    return f"[{digest.strip()}]"


@dsl.pipeline(name="stoppable", description="Paints, practises and frames.")
def stoppable(folder: str, manner: str) -> str:
    """What was learned, in a frame."""
    painted = paint(folder=folder, manner=manner).set_display_name("Paint")
    practised = practise(folder=folder, manner=manner, picture=painted.outputs["picture"]).set_display_name("Practise")
    return frame(digest=practised.output).set_display_name("Frame").output


def main() -> None:
    """Runs the pipeline, and says what it gives, as the command line does."""
    folder, manner = Path(sys.argv[1]), sys.argv[2]
    outlive_readers()
    compiled = folder / f"stoppable-{os.getpid()}.yaml"
    compiled.write_text(to_yaml(compile_pipeline(stoppable)), encoding="utf-8")
    try:
        run = run_pipeline(compiled, {"folder": str(folder), "manner": manner}, out=folder / "out")
    except TextualInversionError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    if run.failures:
        sys.exit(run.failures[0].message)
    print(run.outputs["Output"])


if __name__ == "__main__":
    main()
