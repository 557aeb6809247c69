from __future__ import annotations

import dataclasses
import io
import json
import os
import pickletools
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors.numpy import load

from components.common.artifacts import Evaluation, LearnedEmbedding, Sample
from components.common.errors import ArtifactError, InputError
from components.common.registry.entry import Bundle
from components.publish.bundle import make_bundle
from components.publish.torch_file import torch_file
from tests.publish.conftest import REFERENCE, Inputs

SPRITES = Path(__file__).parents[2] / "examples" / "sprites" / "base_model"
OTHER_REFERENCE = dataclasses.replace(REFERENCE, files={"x.json": next(iter(REFERENCE.files.values()))})


def bundle_of(inputs: Inputs, concept: str = "", **options: object) -> Bundle:
    return make_bundle(
        concept,
        reference=options.pop("reference", REFERENCE),  # type: ignore[arg-type]
        learned_embedding=inputs.learned_embedding,
        evaluation=inputs.evaluation,
        **options,  # type: ignore[arg-type]
    )


def test_bundle_holds_the_files_that_programs_look_for(inputs: Inputs) -> None:
    files = bundle_of(inputs).files
    assert {name for name in files if not name.startswith("samples/")} == {
        "learned_embeds.safetensors",
        "cat-toy.safetensors",
        "token_identifier.txt",
        "type_of_concept.txt",
        "README.md",
        "config.json",
        "scores.json",
        "report.html",
    }
    assert files["cat-toy.safetensors"] == files["learned_embeds.safetensors"]
    assert list(load(files["cat-toy.safetensors"])) == ["<cat-toy>"]
    assert (files["token_identifier.txt"], files["type_of_concept.txt"]) == (b"<cat-toy>", b"object")
    assert json.loads(files["scores.json"])["after"]["clip_i"] == 0.78
    config = json.loads(files["config.json"])
    assert (config["steps"], config["training"]["learning_rate"]) == (3000, 5e-4)
    assert config["base_model"]["revision"] == REFERENCE.revision


def rows_of(inputs: Inputs) -> list[np.ndarray]:
    rows = LearnedEmbedding.read(inputs.learned_embedding).rows
    return [rows[name] for name in sorted(rows)]


def loaded_as_numpy(loaded: Mapping[str, torch.Tensor]) -> list[tuple[str, np.ndarray]]:
    return [(name, tensor.numpy()) for name, tensor in loaded.items()]


@pytest.mark.parametrize("sdxl", [False, True])
def test_bin_when_asked_for_has_the_rows_as_torch_reads_them_without_running_code(
    sdxl: bool, make_inputs: Callable[..., Inputs]
) -> None:
    inputs = make_inputs(sdxl=sdxl)
    files = bundle_of(inputs, also_bin=True).files
    assert "learned_embeds.bin" not in bundle_of(inputs).files
    loaded = torch.load(io.BytesIO(files["learned_embeds.bin"]), weights_only=True)
    assert list(loaded) == sorted(load(files["learned_embeds.safetensors"]))
    in_order = [loaded[key] for key in (("clip_l", "clip_g") if sdxl else loaded)]
    for row, expected in zip(in_order, rows_of(inputs), strict=True):
        assert row.dtype == torch.float32 and row.is_contiguous()
        np.testing.assert_array_equal(row.numpy(), expected)
    assert torch_file(dict(reversed(loaded_as_numpy(loaded)))) == files["learned_embeds.bin"]
    card = files["README.md"].decode()
    assert "A pickled file can run code when it is loaded" in card
    assert "pickled" not in bundle_of(inputs).files["README.md"].decode()


def test_bin_has_what_automatic1111_lets_through(make_inputs: Callable[..., Inputs]) -> None:
    """The names in the archive and in its pickle that its `modules/safe.py` allows."""
    names = re.compile(r"[^/]+/((data/\d+)|version|byteorder|\.data/serialization_id|(data\.pkl))")
    globals_ = {"collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch FloatStorage"}
    data = bundle_of(make_inputs(sdxl=True), also_bin=True).files["learned_embeds.bin"]
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert all(names.fullmatch(name) for name in archive.namelist())
        pickled = archive.read("archive/data.pkl")
    assert {argument for opcode, argument, _ in pickletools.genops(pickled) if opcode.name == "GLOBAL"} == globals_


def in_automatic1111(name: str, data: bytes) -> tuple[str, list[np.ndarray]]:
    """The word and the rows of a file in `embeddings/`: `modules/textual_inversion/textual_inversion.py`."""
    word, extension = os.path.splitext(name)
    if extension == ".safetensors":
        tensors = safetensors.torch.load(data)
    else:
        assert extension in (".bin", ".pt")
        tensors = torch.load(io.BytesIO(data), weights_only=True)
    if "clip_g" in tensors and "clip_l" in tensors:
        return word, [tensors["clip_l"].numpy(), tensors["clip_g"].numpy()]
    assert len(tensors) == 1, "embedding file has multiple terms in it"
    [rows] = tensors.values()
    return word, [(rows if rows.dim() > 1 else rows.unsqueeze(0)).numpy()]


def in_comfyui(files: Mapping[str, bytes], prompt: str) -> list[np.ndarray]:
    """The rows of the one embedding in a prompt, from `models/embeddings/`: `comfy/sd1_clip.py`, `load_embed`."""
    [word] = [word for word in prompt.split(" ") if word.startswith("embedding:")]
    name = word.removeprefix("embedding:").strip("\n").strip(",")
    found = next(name + extension for extension in (".safetensors", ".pt", ".bin") if name + extension in files)
    tensors = (
        safetensors.torch.load(files[found])
        if found.endswith(".safetensors")
        else torch.load(io.BytesIO(files[found]), weights_only=True)
    )
    keys = [key for key in ("clip_l", "clip_g") if key in tensors] or list(tensors)[:1]
    return [tensors[key].numpy() for key in keys]


@pytest.mark.parametrize("sdxl", [False, True])
@pytest.mark.parametrize("placeholder", ["<cat-toy>", "<star>", "<🐱>", "sks"])
def test_other_programs_find_the_rows_by_the_word_in_the_card(
    placeholder: str, sdxl: bool, make_inputs: Callable[..., Inputs]
) -> None:
    inputs = make_inputs(placeholder=placeholder, sdxl=sdxl)
    files = bundle_of(inputs, also_bin=True).files
    card = files["README.md"].decode()
    [file] = re.findall(r"put `([^`]+)` into `embeddings/`", card)
    word, rows = in_automatic1111(file, files[file])
    assert f"write `{word}`, the file's name, in the prompt: `a photo of a {word}`" in card
    np.testing.assert_equal(rows, rows_of(inputs))
    [prompt] = re.findall(r"write `embedding:[^`]+` in the prompt: `([^`]+)`", card)
    np.testing.assert_equal(in_comfyui(files, prompt), rows_of(inputs))
    for extension in (".bin", ".safetensors"):
        np.testing.assert_equal(in_automatic1111("x" + extension, files[f"learned_embeds{extension}"])[1], rows)


def test_bin_is_loaded_by_diffusers(tmp_path: Path) -> None:
    from diffusers.loaders import TextualInversionLoaderMixin
    from transformers import CLIPTextModel, CLIPTokenizer

    class Loader(TextualInversionLoaderMixin):
        """What of a pipeline loads embeddings."""

        components: ClassVar[dict[str, object]] = {}
        hf_device_map = None
        tokenizer = CLIPTokenizer.from_pretrained(SPRITES / "tokenizer")
        text_encoder = CLIPTextModel.from_pretrained(SPRITES / "text_encoder", dtype=torch.float32)

    loader = Loader()
    width = loader.text_encoder.get_input_embeddings().weight.shape[1]
    rows = np.random.default_rng(3).normal(size=(2, width)).astype(np.float32)
    (tmp_path / "learned_embeds.bin").write_bytes(torch_file({"<cat-toy>": rows}))
    loader.load_textual_inversion(tmp_path, weight_name="learned_embeds.bin", use_safetensors=False)
    ids = loader.tokenizer.convert_tokens_to_ids(["<cat-toy>", "<cat-toy>_1"])
    with torch.no_grad():
        np.testing.assert_array_equal(loader.text_encoder.get_input_embeddings().weight[ids].numpy(), rows)


def test_bundle_facts_say_where_it_comes_from(inputs: Inputs) -> None:
    facts = bundle_of(inputs).facts
    learned, judged = LearnedEmbedding.read(inputs.learned_embedding), Evaluation.read(inputs.evaluation)
    assert (facts.placeholder_token, facts.tokens) == ("<cat-toy>", ("<cat-toy>", "<cat-toy>_1"))
    assert facts.lineage == {
        "framework": "torch",
        "devices": "1 x cpu",
        "plan_version": 1,
        "base_model": REFERENCE.source,
        "base_model_revision": REFERENCE.revision,
        "base_model_digest": REFERENCE.digest,
        "image_set_digest": "12" * 32,
        "latent_set_digest": "34" * 32,
        "training_key": "key-of-training",
        "learned_embedding_digest": learned.digest,
        "evaluation_digest": judged.digest,
    }


def test_bundle_shows_different_prompts_first_each_beside_its_before(inputs: Inputs) -> None:
    samples = {name for name in bundle_of(inputs).files if name.startswith("samples/")}
    # the samples are 0-5 before, 6-11 after; three seeds of the first prompt, then three of the second
    assert samples == {
        *(f"samples/{index:04d}-after.png" for index in (6, 9, 7, 8)),
        *(f"samples/{index:04d}-before.png" for index in (0, 3, 1, 2)),
    }


def test_bundle_when_the_evaluation_has_no_samples(inputs: Inputs) -> None:
    judged = Evaluation.read(inputs.evaluation)
    dataclasses.replace(judged, samples=()).write(inputs.evaluation)
    bundle = bundle_of(inputs)
    assert not [name for name in bundle.files if name.startswith("samples/")]
    assert "<img" not in bundle.files["README.md"].decode()


def test_bundle_when_samples_have_no_before(inputs: Inputs) -> None:
    judged = Evaluation.read(inputs.evaluation)
    after: tuple[Sample, ...] = tuple(sample for sample in judged.samples if sample.variant == "after")
    dataclasses.replace(judged, samples=after).write(inputs.evaluation)
    card = bundle_of(inputs).files["README.md"].decode()
    assert "| prompt | learned concept |\n" in card


def test_bundle_is_the_same_for_the_same_inputs(make_inputs: Callable[..., Inputs]) -> None:
    one, same, other = (bundle_of(make_inputs(seed=seed)) for seed in (1, 1, 2))
    assert one.files == same.files
    assert one.digest == same.digest
    assert one.digest != other.digest


def test_bundle_digest_covers_name_facts_and_files(inputs: Inputs) -> None:
    bundle = bundle_of(inputs)
    facts = dataclasses.replace(bundle.facts, learnable_property="style")
    others = [
        dataclasses.replace(bundle, concept="other"),
        dataclasses.replace(bundle, facts=facts),
        dataclasses.replace(bundle, files={**bundle.files, "README.md": b"changed"}),
    ]
    assert len({bundle.digest, *(other.digest for other in others)}) == 4


def test_concept_name_when_none_is_given(make_inputs: Callable[..., Inputs]) -> None:
    assert bundle_of(make_inputs()).concept == "cat-toy"
    assert bundle_of(make_inputs(placeholder="<my/art!>")).concept == "my-art-bc8299f9"
    assert bundle_of(make_inputs(), "toys").concept == "toys"


def test_bundle_when_the_placeholder_is_an_ordinary_word_has_a_file_of_another_name(
    make_inputs: Callable[..., Inputs],
) -> None:
    bundle = bundle_of(make_inputs(placeholder="<star>"))
    assert bundle.concept == "star"
    assert bundle.files["star-concept.safetensors"] == bundle.files["learned_embeds.safetensors"]
    assert "star.safetensors" not in bundle.files
    assert "a photo of a star-concept" in bundle.files["README.md"].decode()


def test_bundle_when_the_evaluation_did_not_pass(make_inputs: Callable[..., Inputs]) -> None:
    inputs = make_inputs(passed=False)
    with pytest.raises(InputError, match=r"<cat-toy> did not pass its evaluation .*: CLIP-I 0\.61 is below"):
        bundle_of(inputs)
    bundle = bundle_of(inputs, force=True)
    assert (bundle.facts.passed, len(bundle.facts.reasons)) == (False, 1)
    assert "published by force.** CLIP-I 0.61" in bundle.files["README.md"].decode()


def test_bundle_when_the_evaluation_is_of_another_embedding(make_inputs: Callable[..., Inputs]) -> None:
    inputs = dataclasses.replace(make_inputs(seed=1), evaluation=make_inputs(seed=2).evaluation)
    with pytest.raises(InputError, match=r"the evaluation is of the embedding .*, found the embedding"):
        bundle_of(inputs, force=True)


def test_bundle_when_the_base_model_is_another(inputs: Inputs) -> None:
    with pytest.raises(InputError, match=r"was trained on the base model .* give the one it was trained on"):
        bundle_of(inputs, reference=OTHER_REFERENCE)


def test_bundle_when_an_artifact_is_damaged(inputs: Inputs) -> None:
    sample = next(inputs.evaluation.glob("samples/*.png"))
    sample.write_bytes(sample.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=str(sample)):
        bundle_of(inputs)


def test_bundle_when_the_folders_are_exchanged(inputs: Inputs) -> None:
    exchanged = dataclasses.replace(inputs, evaluation=Path(inputs.learned_embedding))
    with pytest.raises(ArtifactError, match="expected 'textual-inversion/evaluation'"):
        bundle_of(exchanged)
