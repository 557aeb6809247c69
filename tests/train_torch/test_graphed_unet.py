"""`cuda_graphs` changes how the UNet is carried out, not what is learned; on a CPU its tracing can be tried."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.conftest import imported
from tests.flax_runs import make_micro_model
from tests.train_torch.conftest import make_inputs

REPOSITORY = Path(__file__).parents[2]
GRADIENT = "first_moment.text_encoder"


@pytest.mark.timeout(900)
def test_graphed_unet_gives_the_same_gradient(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    model = make_micro_model(tmp_path / "model")
    inputs = make_inputs(tmp_path, imported(model, tmp_path_factory), num_vectors=2)

    def first_step(name: str, *flags: str) -> dict[str, np.ndarray]:
        """The first checkpoint of the command, in a process of its own: compilers warn and log where tests listen."""
        artifacts = [part for key, path in inputs.items() for part in (f"--{key.replace('_', '-')}", str(path))]
        places = ["--checkpoint-root", str(tmp_path / name), "--output", str(tmp_path / f"learned-{name}")]
        command = [sys.executable, "-m", "components.train_torch", *artifacts, *places, "--accelerator", "cpu"]
        training = ["--max-train-steps=1", "--train-batch-size=1", "--early-stopping-every=1", *flags]
        ended = subprocess.run([*command, *training], cwd=REPOSITORY, stderr=subprocess.PIPE, text=True, timeout=600)
        assert ended.returncode == 0, ended.stderr
        assert ("records the UNet" in ended.stderr) == bool(flags)
        (checkpoint,) = (tmp_path / name).glob("*/step-00000001.safetensors")
        return load_file(checkpoint)

    plain, graphed = first_step("plain"), first_step("graphed", "--cuda-graphs")
    np.testing.assert_allclose(graphed["losses"], plain["losses"], rtol=1e-5)
    gradient, difference = (np.linalg.norm(x) for x in (plain[GRADIENT], graphed[GRADIENT] - plain[GRADIENT]))
    assert difference < 1e-4 * gradient
