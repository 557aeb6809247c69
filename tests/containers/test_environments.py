"""What runs in each image does so with the packages of its lock alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from components.common.artifacts import InitialEmbedding
from components.common.images import IMAGE_NAMES
from tests.containers.environments import ImageEnvironment
from tests.containers.imports import packages, running
from tests.containers.recipes import LIGHT, ROOT

ABSENT = {
    **dict.fromkeys(LIGHT, ("torch", "jax", "diffusers", "accelerate", "flax")),
    "train-torch": ("jax", "flax"),
    "evaluate": (),
    "train-flax": ("torch", "diffusers", "accelerate"),
    "train-flax-gpu": ("torch", "diffusers", "accelerate", "libtpu"),
}
"""The frameworks that are not in an image."""

TRACKERS_OF_OTHERS = {"wandb", "comet_ml"}
NOT_NEEDED = {
    "tokenizer": {"jax"},
    "launcher": {"transformers"},
    **dict.fromkeys(("train-torch", "train-flax", "train-flax-gpu"), TRACKERS_OF_OTHERS),
}
"""What an image lacks though its code names it.

Preflight takes a noise schedule's settings, not its arrays; the launcher leaves the training to the pods of its
TrainJob. Who wants curves at Weights & Biases or Comet adds their package to an image.
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ImageEnvironment]:
    """The environment of an image, made once."""
    made: dict[str, ImageEnvironment] = {}

    def make(name: str) -> ImageEnvironment:
        if name not in made:
            made[name] = ImageEnvironment(name, tmp_path_factory.mktemp(name))
        return made[name]

    return make


@pytest.mark.parametrize("name", IMAGE_NAMES)
def test_everything_that_runs_in_the_image_can_be_imported(name: str, environment: Callable[[str], ImageEnvironment]):
    modules = sorted(running(name))
    assert any(module.endswith(".__main__") for module in modules)
    done = environment(name).run("-c", "\n".join(f"import {module}" for module in modules))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", IMAGE_NAMES)
def test_image_has_every_package_that_its_code_names(name: str, environment: Callable[[str], ImageEnvironment]):
    code = [
        "import importlib.util, sys",
        "def lacks(name):",
        "    try:",
        "        return importlib.util.find_spec(name) is None",
        "    except ModuleNotFoundError:",
        "        return True",
        f"print(*filter(lacks, {sorted(packages(running(name)))}))",
    ]
    done = environment(name).run("-c", "\n".join(code))
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == NOT_NEEDED.get(name, set())


@pytest.mark.parametrize("name", IMAGE_NAMES)
def test_image_has_no_framework_that_it_does_not_use(name: str, environment: Callable[[str], ImageEnvironment]):
    code = [
        "import importlib.metadata, importlib.util",
        f"absent = set({ABSENT[name]})",
        "assert not [package for package in absent if importlib.util.find_spec(package)]",
        "assert not absent & {package.name.lower() for package in importlib.metadata.distributions()}",
        "assert importlib.util.find_spec('kfp')",
    ]
    done = environment(name).run("-c", "\n".join(code))
    assert done.returncode == 0, done.stderr


def test_tokenizer_image_reads_a_row_of_a_real_model_without_torch(
    tmp_path: Path, environment: Callable[[str], ImageEnvironment]
):
    importing = ("--source", str(ROOT / "examples/sprites/base_model"), "--store-uri", str(tmp_path / "store"))
    imported = environment("dataset").run(
        "-m", "components.import_base_model", *importing, "--output", str(tmp_path / "reference")
    )
    assert imported.returncode == 0, imported.stderr
    word = ("--placeholder-token", "<cat-toy>", "--initializer-token", "circle", "--num-vectors", "2")
    made = environment("tokenizer").run(
        *("-m", "components.init_embedding", "--base-model", str(tmp_path / "reference"), *word),
        *("--output", str(tmp_path / "embedding")),
    )
    assert made.returncode == 0, made.stderr
    rows = InitialEmbedding.read(tmp_path / "embedding").rows["text_encoder"]
    assert rows.shape[0] == 2 and rows.any()
