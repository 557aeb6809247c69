"""The printed lines run as they are printed, with models stored in every way."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from components.common.artifacts import LEARNED_EMBEDS, learned_embeds_bytes
from components.common.base_model import ModelFile, ModelReference
from components.common.usage import drawing_line, usage_script
from components.import_base_model.importing import import_base_model
from tests.tiny_models import make_tiny_sdxl

MODEL = Path(__file__).parents[2] / "examples" / "sprites" / "base_model"
PARTS = ("text_encoder", "unet", "vae")
pytestmark = pytest.mark.filterwarnings("ignore:`torch_dtype` is deprecated:FutureWarning")


def stored(folder: Path, dtype: type, *, variant_of: tuple[str, ...] = ()) -> Path:
    """The tiny model with weights of `dtype`, which some parts have as the variant fp16."""
    shutil.copytree(MODEL, folder)
    for part in PARTS:
        [file] = (folder / part).glob("*.safetensors")
        tensors = load_file(file)
        file.unlink()
        name = file.with_suffix(".fp16.safetensors") if part in variant_of else file
        as_stored = {key: value.astype(dtype) for key, value in tensors.items()}
        save_file(as_stored, name, metadata={"format": "pt"})
    return folder


def write_concept(folder: Path, vectors: int) -> None:
    rows = np.random.default_rng(0).normal(0, 0.3, (vectors, 96)).astype(np.float32)
    (folder / LEARNED_EMBEDS).write_bytes(learned_embeds_bytes("<x>", {"text_encoder": rows}, {}))


def seeded(script: str) -> str:
    return script.replace("import torch\n", "import torch; torch.manual_seed(0)\n", 1)


def draw(script: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """The picture that a script draws in a folder, run in this process."""
    monkeypatch.chdir(folder)
    exec(compile(seeded(script), "script", "exec"), {})
    with Image.open(folder / "picture.png") as picture:
        return np.asarray(picture).astype(int)


def draw_elsewhere(script: str, folder: Path) -> np.ndarray:
    """The picture that a script draws in a process of its own: it has nothing of this project."""
    command = [sys.executable, "-c", seeded(script)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with Image.open(folder / "picture.png") as picture:
        return np.asarray(picture).astype(int)


@pytest.mark.parametrize(
    ("dtype", "variant_of", "variant"),
    [
        (np.float32, (), ""),
        (np.float16, (), ""),
        (np.float16, PARTS, "fp16"),
        (np.float16, ("unet",), "fp16"),
    ],
)
def test_script_when_run_as_printed_draws_the_concept(
    dtype: type, variant_of: tuple[str, ...], variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = stored(tmp_path / "my model", dtype, variant_of=variant_of)
    reference = import_base_model(str(model), str(tmp_path / "store"), tmp_path / "reference", variant=variant)
    write_concept(tmp_path, vectors=2)
    scripts = [
        usage_script(
            reference,
            encoders=["text_encoder"],
            placeholder_token="<x>",
            prompt=prompt,
            num_inference_steps=2,
            guidance_scale=2.5,
        )
        for prompt in ('a "<x>" photo', 'a "circle" photo')
    ]
    pictures = [draw(script, tmp_path, monkeypatch) for script in scripts]
    assert pictures[0].shape == (32, 32, 3)
    assert np.abs(pictures[0] - pictures[1]).max() > 10
    if variant_of == ("unet",):  # one process of its own is enough to show that nothing of this one is needed
        np.testing.assert_array_equal(draw_elsewhere(scripts[0], tmp_path), pictures[0])


def test_script_with_clip_skip_draws_another_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = import_base_model(str(MODEL), str(tmp_path / "store"), tmp_path / "reference")
    write_concept(tmp_path, vectors=1)
    drawn = {"placeholder_token": "<x>", "prompt": "a <x>", "num_inference_steps": 2, "guidance_scale": 2.5}
    pictures = []
    for clip_skip in (0, 1):
        script = usage_script(reference, encoders=["text_encoder"], **drawn, clip_skip=clip_skip)
        assert (", clip_skip=1)" in script) is bool(clip_skip)
        pictures.append(draw(script, tmp_path, monkeypatch))
    assert np.abs(pictures[0] - pictures[1]).max() > 3


def with_last_line(script: str, line: str) -> str:
    return "\n".join([*script.splitlines()[:-1], line])


def test_script_that_keeps_a_concept_out_draws_another_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = import_base_model(str(MODEL), str(tmp_path / "store"), tmp_path / "reference")
    write_concept(tmp_path, vectors=2)
    settings = {"num_inference_steps": 2, "guidance_scale": 2.5}
    script = usage_script(reference, encoders=["text_encoder"], placeholder_token="<x>", prompt="a circle", **settings)
    pictures = [
        draw(
            with_last_line(script, drawing_line("a circle", negative_prompt=negative, **settings)),
            tmp_path,
            monkeypatch,
        )
        for negative in ("", "<x>", "circle")
    ]
    assert [np.abs(pictures[1] - other).max() > 3 for other in pictures] == [True, False, True]


def test_script_of_sdxl_draws_the_concept_and_keeps_it_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_tiny_sdxl(tmp_path / "model")
    reference = ModelReference(
        source=str(model),
        repository=model.as_uri(),
        revision="abc",
        kind="diffusion",
        variant="",
        store="/store",
        files={"model_index.json": ModelFile(sha256="ab" * 32, size=1)},
    )
    generator = np.random.default_rng(0)
    widths = {"text_encoder": 32, "text_encoder_2": 48}
    rows = {name: generator.normal(0, 3, (2, width)).astype(np.float32) for name, width in widths.items()}
    (tmp_path / LEARNED_EMBEDS).write_bytes(learned_embeds_bytes("<x>", rows, {}))
    settings = {"num_inference_steps": 1, "guidance_scale": 2.5}
    script = usage_script(reference, encoders=rows, placeholder_token="<x>", prompt="a <x>", **settings)
    last_lines = [
        script.splitlines()[-1],
        drawing_line("a toy", **settings),
        drawing_line("a toy", negative_prompt="<x>", **settings),
        drawing_line("a <x>", clip_skip=1, **settings),
    ]
    with_it, without, kept_out, skipped = (
        draw(with_last_line(script, line), tmp_path, monkeypatch) for line in last_lines
    )
    for one, other in ((with_it, without), (kept_out, without), (skipped, with_it)):
        assert np.abs(one - other).max() > 0


@pytest.mark.parametrize(
    ("source", "repository", "variant", "expected"),
    [
        ("hf://owner/sd@main", "owner/sd", "", r'"owner/sd", revision="abc", torch_dtype=torch\.float32'),
        ("hf://owner/sd", "owner/sd", "fp16", r'"owner/sd", revision="abc", variant="fp16", torch_dtype='),
        ("/my models/sd", "file:///my%20models/sd", "fp16", r'"/my models/sd", variant="fp16", torch_dtype='),
        (
            "gs://bucket/sd",
            "gs://bucket/sd",
            "",
            r'(?s)base model of gs://bucket/sd\n.*"path/to/base_model", torch_dty',
        ),
    ],
)
def test_script_when_made_loads_the_model_from_where_it_is(
    source: str, repository: str, variant: str, expected: str
) -> None:
    reference = ModelReference(
        source=source,
        repository=repository,
        revision="abc",
        kind="diffusion",
        variant=variant,
        store="/store",
        files={"model_index.json": ModelFile(sha256="ab" * 32, size=1)},
    )
    for encoders in (["text_encoder"], ["text_encoder", "text_encoder_2"]):
        script = usage_script(
            reference,
            encoders=encoders,
            placeholder_token="<x>",
            prompt="<x>",
            num_inference_steps=50,
            guidance_scale=7.5,
        )
        compile(script, "script", "exec")
        assert re.search(expected, script)
        assert script.count('token="<x>"') == (2 if len(encoders) == 2 else 0)
