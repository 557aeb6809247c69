"""The command `textual-inversion`: runs the pipeline here, compiles it, draws and looks after what was learned."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components import __version__
from components.common.cli import CommandParser, parse_flags
from components.common.errors import ConfigError, TextualInversionError
from components.common.logs import configure_logging, human_duration, outlive_readers
from components.common.options import mistake_of_text
from components.common.printable import printable
from components.common.storage.local_files import local_errors
from components.preflight.options import check_options, known_options
from components.publish.registry_parser import add_registry_commands
from pipelines.cluster.commands import add_cluster_commands
from pipelines.compiling import COMPILED, PIPELINE, compile_all
from pipelines.concepts_file import read_fleet
from pipelines.form import as_form
from pipelines.local_accelerators import check_accelerator_is_here, stand_in_environment, visible_gpus
from pipelines.local_run import parameter_names, run_pipeline
from pipelines.parameters import add_option_flags, given_options
from pipelines.presets import GUIDE_EXAMPLE, PRESETS
from pipelines.sampling import add_sample_flags, draw, request_from
from pipelines.summary import summarize

PROGRAM = "textual-inversion"
STEP_FAILED = 1
INTERRUPTED = 130  # what a shell reports for Ctrl-C

_REWRITTEN_BY_KFP = {"python3": "the path of its interpreter", "/kfp-workspace": "the folder of a workspace"}
"""What `kfp.local` (2.17) replaces wherever it stands in a step's command line, parameters' values included, and by
what, beside what every backend does (see `mistake_of_text`)."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and gives its exit code; on an error its message is the last line on standard error."""
    outlive_readers()
    parsed = parse_flags(_parser(), arguments, options=known_options())
    try:
        with local_errors(PROGRAM):
            code: int = parsed.command(parsed)
    except TextualInversionError as error:
        return _fail("\n".join(error.mistakes), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted; the same command goes on where this one stopped", INTERRUPTED)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog=PROGRAM, description="Teaches an image generator a new word from a handful of pictures."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run",
        help="run the pipeline on this machine, without a cluster",
        description=run_.__doc__,
        usage="%(prog)s [--preset NAME] [--concepts FILE] [--out FOLDER] [--no-reuse] [--OPTION VALUE ...]",
        allow_abbrev=False,
    )
    run.add_argument(
        "--preset", choices=sorted(PRESETS), default="guide", help="parameters to start from (default: %(default)s)"
    )
    run.add_argument(
        "--out", type=Path, default=Path("out/run"), help="folder for everything that is made (default: %(default)s)"
    )
    run.add_argument(
        "--host-devices",
        type=int,
        default=0,
        metavar="N",
        help="with --accelerator tpu: N devices of this machine's CPU stand in for TPU chips, to try it without any",
    )
    run.add_argument(
        "--concepts",
        type=Path,
        metavar="FILE",
        help="YAML file of a fleet: run each of its concepts, one after the other; one that fails stops no other",
    )
    run.add_argument("--no-reuse", action="store_true", help="run every step, whatever earlier runs in --out have made")
    add_option_flags(run, {**GUIDE_EXAMPLE, "storage_uri": "below --out"})
    run.set_defaults(command=run_)

    compile_ = commands.add_parser("compile", help="write the pipelines as YAML", description=compile_command.__doc__)
    compile_.add_argument("--out", type=Path, default=COMPILED, help="folder (default: %(default)s)")
    compile_.set_defaults(command=compile_command)

    sample = commands.add_parser("sample", help="draw pictures of learned concepts", description=sample_command.__doc__)
    add_sample_flags(sample)
    sample.set_defaults(command=sample_command)
    add_cluster_commands(commands)

    registry = commands.add_parser(
        "registry", help="look after the published concepts", description=registry_command.__doc__
    )
    add_registry_commands(registry.add_subparsers(required=True, metavar="COMMAND"))
    registry.set_defaults(command=registry_command)
    return parser


def run_(arguments: argparse.Namespace) -> int:
    """Runs the compiled pipeline, each step as a process of its own.

    A step whose inputs did not change since an earlier run in the same folder is not run again.
    """
    out, given = arguments.out.absolute(), given_options(arguments)
    base = {**PRESETS[arguments.preset], "storage_uri": (out / "storage").as_uri(), **given}
    if "accelerator_count" not in given:
        base["accelerator_count"] = arguments.host_devices or 1
    if arguments.concepts is None:
        return _run_one(arguments, base, out).code
    fleet = read_fleet(arguments.concepts, base)
    ended = {}
    for concept in fleet.concepts:
        print(f"\n{concept.name}", flush=True)
        try:
            ended[concept.name] = _run_one(arguments, concept.options, out / concept.name)
        except TextualInversionError as error:
            ended[concept.name] = _Ended(_fail("\n".join(error.mistakes), error.exit_code), f"failed: {error}")
    width = max(map(len, ended))
    print("\n" + "\n".join(f"{name:{width}}  {printable(end.told)}" for name, end in ended.items()))
    return STEP_FAILED if any(end.code for end in ended.values()) else 0


@dataclasses.dataclass(frozen=True)
class _Ended:
    """How a run ended: the exit code of that, and a line for people."""

    code: int
    told: str


def _run_one(arguments: argparse.Namespace, options: Mapping[str, Any], out: Path) -> _Ended:
    environment = stand_in_environment(options["accelerator"], arguments.host_devices)
    run_options = check_options(options).run
    _check_names(options, out)
    if environment:
        print(f"no TPU is used: {arguments.host_devices} devices of this machine's CPU stand in (--host-devices)")
    else:
        count = run_options.training_pod.count
        check_accelerator_is_here(run_options.accelerator, count)
        environment = visible_gpus(run_options.accelerator, count)
    started = time.monotonic()
    parameters = as_form(options, parameter_names(PIPELINE))
    run = run_pipeline(PIPELINE, parameters, out=out, reuse=not arguments.no_reuse, environment=environment)
    if run.failures:
        message = run.failures[0].message
        return _Ended(_fail(f"{message} (the whole log: {_shown(out / 'run.log')})", STEP_FAILED), f"failed: {message}")
    summary = summarize(run)
    summary.write(out / "summary.json")
    took = human_duration(time.monotonic() - started)
    print(f"\n{summary.for_people(_shown)}\nsummary           {_shown(out / 'summary.json')}\ntook              {took}")
    return _Ended(0, summary.outcome(_shown))


def compile_command(arguments: argparse.Namespace) -> int:
    """Writes the pipelines as YAML files for a cluster, always the same bytes for the same source."""
    for file in compile_all(arguments.out):
        print(_shown(file))
    return 0


def sample_command(arguments: argparse.Namespace) -> int:
    """Draws pictures of concepts that were learned: several in one prompt, or as negative embeddings.

    A concept stands in a prompt as its placeholder, such as <cat-toy>, also when it has several vectors.
    """
    configure_logging()
    files = draw(request_from(arguments), arguments.concept, arguments.base_model, arguments.out)
    print("\n".join(map(_shown, files)))
    return 0


def registry_command(arguments: argparse.Namespace) -> int:
    """Looks after a registry: what there is, where its aliases point, whether it is sound, and what goes.

    A registry is the folder `registry` below a run's storage_uri; with `textual-inversion run` that is OUT/storage.
    """
    configure_logging()
    arguments.run(arguments)
    return 0


def _check_names(options: Mapping[str, Any], out: Path) -> None:
    for name, value in {**options, "--out": out}.items():
        for rewritten, by in _REWRITTEN_BY_KFP.items():
            if rewritten in str(value):
                raise ConfigError(
                    f"{name}: found {str(value)!r}, expected a value without {rewritten!r}, which kfp.local would "
                    f"replace by {by}: choose another name or folder"
                )
    if mistake := mistake_of_text(str(out)):
        raise ConfigError(f"--out: {mistake}")


def _shown(path: Path | str) -> str:
    """A path as a person would type it here; an address as it is."""
    here = Path.cwd()
    return printable(shlex.quote(str(Path(path).relative_to(here) if Path(path).is_relative_to(here) else path)))


def _fail(message: str, code: int) -> int:
    sys.stdout.flush()
    print(f"\n{PROGRAM}: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
