"""The rules of the house that hold for every step."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

import pytest

from components.common.images import IMAGE_NAMES, image
from components.common.options import Config
from components.preflight.options import known_options

ROOT = Path(__file__).resolve().parents[1]
COMPONENTS = ROOT / "components"
LIBRARIES = ("common", "torch_models", "flax_models")
STEPS = sorted(
    folder.name
    for folder in COMPONENTS.iterdir()
    if (folder / "__init__.py").is_file() and folder.name not in LIBRARIES
)
HEAVY = ("torch", "jax", "diffusers", "transformers", "accelerate")
CONFIGS = {
    "encode_latents": "EncodeConfig",
    "evaluate": "EvaluateConfig",
    "find_start_word": "FindStartWordConfig",
    "import_base_model": "ImportConfig",
    "ingest_images": "IngestConfig",
    "init_embedding": "InitConfig",
    "publish": "PublishConfig",
    "train": "TrainStepConfig",
}
"""The config of each step, in its config.py: what the step is told as one text. Preflight's options are all of them."""


def modules(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def imports(file: Path) -> Iterator[str]:
    """Every module that a file imports, at its top or within a function."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield node.module or ""


def component(step: str) -> ModuleType:
    return importlib.import_module(f"components.{step}.component")


@pytest.mark.parametrize("step", STEPS)
def test_step_is_a_package_with_a_component_and_a_command(step: str):
    for name in ("__init__.py", "__main__.py", "component.py"):
        assert (COMPONENTS / step / name).is_file(), name


@pytest.mark.parametrize("step", STEPS)
def test_step_imports_no_other_step(step: str):
    others = {f"components.{other}" for other in STEPS if other != step}
    for file in modules(COMPONENTS / step):
        for name in imports(file):
            other = ".".join(name.split(".")[:2])
            # Preflight checks the values that the others check again: it reads their configs and what trains where.
            allowed = step == "preflight" and name.endswith((".config", ".train.frameworks"))
            assert other not in others or allowed, f"{file.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("library", [name for name in LIBRARIES if (COMPONENTS / name).is_dir()])
def test_library_imports_no_step(library: str):
    steps = {f"components.{step}" for step in STEPS}
    for file in modules(COMPONENTS / library):
        for name in imports(file):
            assert ".".join(name.split(".")[:2]) not in steps, f"{file.relative_to(ROOT)} imports {name}"


def test_common_imports_no_framework():
    frameworks = set(HEAVY) - {"transformers"}  # whose tokenizers need no framework
    for file in modules(COMPONENTS / "common"):
        for name in imports(file):
            assert name.split(".")[0] not in frameworks, f"{file.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("folder", ["flax_models", "train/flax"])
def test_flax_code_imports_no_torch(folder: str):
    torch_side = {"torch", "diffusers", "accelerate"}
    for file in modules(COMPONENTS / folder):
        for name in imports(file):
            assert name.split(".")[0] not in torch_side, f"{file.relative_to(ROOT)} imports {name}"
            assert not name.startswith("components.torch_models"), f"{file.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("folder", ["torch_models", "train/torch"])
def test_torch_code_imports_no_jax(folder: str):
    for file in modules(COMPONENTS / folder):
        for name in imports(file):
            assert name.split(".")[0] not in {"jax", "flax", "optax"}, f"{file.relative_to(ROOT)} imports {name}"
            assert not name.startswith("components.flax_models"), f"{file.relative_to(ROOT)} imports {name}"


def test_training_enters_the_room_of_its_framework_alone():
    rooms = {f"components.train.{room}" for room in ("torch", "flax")}
    for file in modules(COMPONENTS / "train"):
        own = f"components.train.{file.parent.name}"
        for name in imports(file):
            is_other = ".".join(name.split(".")[:3]) in rooms - {own}
            assert file.parent.name == "train" or not is_other, f"{file.relative_to(ROOT)} imports {name}"


def test_light_modules_load_no_framework():
    faces = [f"components.{step}.component" for step in STEPS]
    configs = [f"components.{step}.config" for step in CONFIGS]
    beside_the_rooms = [f"components.train.{file.stem}" for file in (COMPONENTS / "train").glob("*.py")]
    names = [*faces, *configs, *beside_the_rooms, "components.preflight.preflight", "pipelines.textual_inversion"]
    code = [
        "import importlib, sys",
        f"for name in {names}:",
        "    importlib.import_module(name)",
        f"    loaded = [heavy for heavy in {HEAVY} if heavy in sys.modules]",
        "    assert not loaded, f'{name} loads {loaded}'",
    ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(code)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("step", [step for step in STEPS if step != "preflight"])
def test_step_is_told_its_whole_config_as_one_text(step: str):
    config = getattr(importlib.import_module(f"components.{step}.config"), CONFIGS[step])
    assert issubclass(config, Config)
    face = getattr(component(step), step)
    assert face.component_spec.inputs["config"].type == "String"
    others = {name for name, given in face.component_spec.inputs.items() if not given.type.startswith("system.")}
    assert others <= {"config", "run_id"}, "every other option is in the config"
    of_the_run, of_each_word = f"{CONFIGS[step]}.from_json(config)", f"configs_of({CONFIGS[step]}, config)"
    body = inspect.getsource(face.python_func)
    assert (of_the_run if step == "import_base_model" else of_each_word) in body


def test_form_asks_for_options_of_the_right_type_alone():
    parameters = dict(inspect.signature(component("preflight").preflight.python_func).parameters)
    for name in ("more_options", "training_images"):
        assert parameters.pop(name).annotation == dict[str, str]
    plain = {tuple[str, ...]: list[str], Mapping[str, str]: dict[str, str]}
    for name, parameter in parameters.items():
        known = known_options()[name]
        assert parameter.annotation == plain.get(known.type, known.type), name


@pytest.mark.parametrize("step", STEPS)
def test_component_runs_in_an_image_that_is_built(step: str):
    container = getattr(component(step), step).component_spec.implementation.container
    assert container.image in [image(name) for name in IMAGE_NAMES]
    assert "pip install" not in " ".join(container.command), "the image has everything"


@pytest.mark.parametrize("step", STEPS)
def test_body_and_command_of_a_step_run_within_the_boundary(step: str):
    for name in ("component.py", "__main__.py"):
        assert "with step_boundary(" in (COMPONENTS / step / name).read_text(encoding="utf-8"), name


@pytest.mark.parametrize("package", ["components", "pipelines"])
def test_every_module_says_what_it_is(package: str):
    for file in modules(ROOT / package):
        docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
        assert docstring, f"{file.relative_to(ROOT)} has no docstring"
        assert re.match(r"[A-Z`]", docstring), f"{file.relative_to(ROOT)}: {docstring.splitlines()[0]}"


@pytest.mark.parametrize("package", ["components", "pipelines"])
def test_every_folder_with_modules_is_a_package(package: str):
    for folder in {file.parent for file in modules(ROOT / package)}:
        init = folder / "__init__.py"
        assert init.is_file(), folder.relative_to(ROOT)


def test_no_module_is_called_utils():
    assert not [file for file in (*modules(COMPONENTS), *modules(ROOT / "pipelines")) if "util" in file.stem]
