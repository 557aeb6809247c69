"""`textual-inversion sample`: pictures from a learned concept's file and from a registry."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

from components.common.artifacts import learned_embeds_bytes
from components.common.base_model import read_reference
from components.common.errors import BaseModelError, ConfigError, InputError, ObjectNotFoundError, TokenError
from components.import_base_model.importing import import_base_model
from components.publish.config import PublishConfig
from components.publish.publish import publish
from examples.sprites.judge import judge
from pipelines.cli import main
from pipelines.sampling import Concept, check_prompts, fetch_concept
from tests.publish.conftest import write_inputs
from tests.tiny_models import with_vae_that_overflows

SPRITES = Path(__file__).parents[2] / "examples" / "sprites"
MODEL = SPRITES / "base_model"
QUICK = ["--accelerator", "cpu", "--num-inference-steps", "12", "--guidance-scale", "2.5"]


def row_of(word: str) -> np.ndarray:
    """The row of a word in the tiny model's vocabulary, float32 [1, d]: a concept whose meaning is known."""
    from transformers import CLIPTokenizer

    [token_id] = CLIPTokenizer.from_pretrained(MODEL / "tokenizer").encode(word, add_special_tokens=False)
    with safe_open(MODEL / "text_encoder" / "model.safetensors", framework="numpy") as weights:
        [name] = [key for key in weights.keys() if key.endswith("token_embedding.weight")]  # noqa: SIM118
        return weights.get_slice(name)[token_id : token_id + 1].astype(np.float32)


def write_concept(folder: Path, token: str, word: str) -> Path:
    """A learned-embedding file whose placeholder means what `word` means."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{token.strip('<>')}.safetensors"
    file.write_bytes(learned_embeds_bytes(token, {"text_encoder": row_of(word)}, {"placeholder_token": token}))
    return file


def pictures(out: Path) -> list[np.ndarray]:
    return [pixels_of(file) for file in sorted(out.glob("0*.png"))]


def pixels_of(file: Path) -> np.ndarray:
    with Image.open(file) as picture:
        return np.asarray(picture)


def sample(out: Path, *flags: Any, count: int = 2) -> list[np.ndarray]:
    places = ["--base-model", str(MODEL), "--out", str(out), "--count", str(count)]
    assert main(["sample", *map(str, flags), *places, *QUICK]) == 0
    return pictures(out)


def test_concepts_mean_what_was_learned_when_several_stand_in_a_prompt(tmp_path: Path) -> None:
    form, tint = write_concept(tmp_path, "<form>", "heart"), write_concept(tmp_path, "<tint>", "blue")
    out = tmp_path / "out"
    prompt = ["--prompt", "a photo of a <tint> plain <form> on the snow"]
    drawn = sample(out, "--concept", form, "--concept", tint, *prompt)

    assert [(judge(picture).shape, judge(picture).colour) for picture in drawn] == [("heart", "blue")] * 2
    assert pixels_of(out / "grid.png").shape == (32, 64, 3)


def test_picture_depends_on_prompt_and_seed_alone(tmp_path: Path) -> None:
    form = write_concept(tmp_path, "<form>", "heart")
    flags = ["--concept", form, "--prompt", "a red <form>"]
    first = sample(tmp_path / "first", *flags, "--prompt", "a blue <form>")
    alone = sample(tmp_path / "alone", *flags)
    np.testing.assert_allclose(np.stack(first[:2]).astype(int), np.stack(alone).astype(int), atol=1)
    assert len(first) == 4


def test_negative_embedding_leads_away(tmp_path: Path) -> None:
    form = write_concept(tmp_path, "<form>", "striped")
    flags = ["--concept", form, "--prompt", "a red circle"]
    plain = sample(tmp_path / "plain", *flags, "--prompt", "a <form>")
    away = sample(tmp_path / "away", *flags, "--negative-prompt", "a red <form> circle")
    assert np.abs(plain[0].astype(int) - away[0].astype(int)).max() > 20


def test_registry_address_stands_for_version_or_alias(tmp_path: Path) -> None:
    import_base_model(str(MODEL), str(tmp_path / "store"), tmp_path / "reference")
    inputs = write_inputs(tmp_path / "inputs", reference=read_reference(tmp_path / "reference"))
    registry = (tmp_path / "registry").as_uri()
    published = publish(
        PublishConfig(registry_uri=registry),
        base_model=inputs.base_model,
        learned_embedding=inputs.learned_embedding,
        evaluation=inputs.evaluation,
        output=tmp_path / "entry",
    )
    addresses = [published.uri, f"{registry}/cat-toy", f"{registry}/cat-toy@champion", f"{registry}/cat-toy@1"]
    for index, address in enumerate(addresses):
        concept = fetch_concept(address, tmp_path / str(index))
        assert (concept.placeholder_token, concept.base_model) == ("<cat-toy>", str(MODEL))
        assert concept.file.read_bytes() == (inputs.learned_embedding / "learned_embeds.safetensors").read_bytes()
    with pytest.raises(ObjectNotFoundError, match="found no alias 'challenger'"):
        fetch_concept(f"{registry}/cat-toy@challenger", tmp_path / "none")


def test_unknown_placeholder_is_refused_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    form = write_concept(tmp_path, "<form>", "heart")
    flags = ["--concept", str(form), "--prompt", "a <from>", "--base-model", "/nowhere", *QUICK]
    assert main(["sample", *flags]) == TokenError.exit_code
    assert "found <from> in 'a <from>', expected one of <form>" in capsys.readouterr().err


def test_word_for_another_family_is_refused_before_weights_are_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    form = write_concept(tmp_path, "<form>", "heart")
    shutil.copytree(SPRITES / "base_model_xl", tmp_path / "xl", ignore=shutil.ignore_patterns("*.safetensors"))
    flags = ["--concept", str(form), "--prompt", "a <form>", "--base-model", str(tmp_path / "xl"), *QUICK]
    assert main(["sample", *flags]) == BaseModelError.exit_code
    told = capsys.readouterr().err
    assert "<form> is a word for Stable Diffusion 1.x or Stable Diffusion 2.x" in told
    assert "expected one for Stable Diffusion XL" in told


def test_one_placeholder_twice_is_refused(tmp_path: Path) -> None:
    concept = Concept(placeholder_token="<x>", file=tmp_path / "x.safetensors", base_model="")
    with pytest.raises(TokenError, match="several concepts with one placeholder"):
        check_prompts(["a <x>"], [concept, concept])


@pytest.mark.parametrize(
    ("token", "prompts", "named"),
    [
        ("<x>", ["a <x>", ""], True),
        ("<x>", ["a photo", "<x>"], True),
        ("EasyNegative", ["a photo", "(easynegative:1.2), bad"], True),
        ("EasyNegative", ["a photo", ""], False),
        ("<x>", ["a photo of x", "x"], False),
    ],
)
def test_concept_that_no_prompt_names_is_refused(token: str, prompts: list[str], named: bool, tmp_path: Path) -> None:
    concept = Concept(placeholder_token=token, file=tmp_path / "x.safetensors", base_model="")
    if named:
        check_prompts(prompts, [concept])
    else:
        with pytest.raises(TokenError, match=f"found no {token} in .*: its concept would change nothing; write"):
            check_prompts(prompts, [concept])


def test_embedding_of_others_when_its_file_names_it_enters_with_every_row(tmp_path: Path) -> None:
    """AUTOMATIC1111's form, of two rows and with capital letters: like both words in the prompt, in lower case."""
    rows = np.concatenate([row_of("blue"), row_of("heart")])
    save_file({"emb_params": rows}, tmp_path / "BlueHeart.safetensors")
    form = write_concept(tmp_path, "<form>", "heart")
    foreign = ["--concept", tmp_path / "BlueHeart.safetensors", "--prompt", "a photo of a plain BlueHeart"]
    ours = ["--concept", form, "--prompt", "a photo of a plain blue <form>"]
    drawn, expected = sample(tmp_path / "foreign", *foreign, count=1), sample(tmp_path / "ours", *ours, count=1)
    np.testing.assert_allclose(drawn[0].astype(int), expected[0].astype(int), atol=2)


@pytest.mark.parametrize(
    ("name", "keys", "width", "expected"),
    [
        ("sd2.safetensors", ["emb_params"], 100, "with width 100 for text_encoder, expected .* width 96 for"),
        ("xl.safetensors", ["clip_l", "clip_g"], 96, r"is a word for Stable Diffusion XL .*, expected one for .* 1\.x"),
        ("bad hands.safetensors", ["emb_params"], 96, "is for 'bad hands', which no prompt can name .*rename the file"),
    ],
)
def test_embedding_of_others_when_it_cannot_be_used_is_refused(
    name: str, keys: list[str], width: int, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / name
    save_file({key: np.ones((1, width), np.float32) for key in keys}, file)
    flags = ["--concept", str(file), "--prompt", f"a {file.stem}", "--base-model", str(MODEL), *QUICK]
    assert main(["sample", *flags]) in (InputError.exit_code, TokenError.exit_code)
    assert re.search(expected, capsys.readouterr().err)


@pytest.mark.parametrize("name", ["x.pt", "x.bin", "X.PT", "folder/learned_embeds.bin"])
def test_embedding_when_pickled_is_refused_by_name(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"\x80\x02}q\x00.")
    address = file.parent if file.parent != tmp_path else file
    with pytest.raises(InputError, match=f"{file} is pickled, which can run code, .*: convert it once"):
        fetch_concept(str(address), tmp_path / "out")


def test_address_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"found the concept 'cat-toy', expected a learned concept"):
        fetch_concept("cat-toy", tmp_path)


def test_concepts_that_want_other_layers_left_out_are_not_drawn_together(tmp_path: Path, capsys: Any) -> None:
    files = [write_concept(tmp_path, "<a>", "star"), tmp_path / "b.safetensors"]
    header = {"placeholder_token": "<b>", "clip_skip": "1"}
    files[1].write_bytes(learned_embeds_bytes("<b>", {"text_encoder": row_of("star")}, header))
    plain, skipped = (
        sample(tmp_path / str(i), "--concept", file, "--prompt", f"a photo of a {token}", count=1)
        for i, (file, token) in enumerate(zip(files, ("<a>", "<b>"), strict=True))
    )
    assert (plain[0] != skipped[0]).any()
    flags = [word for file in files for word in ("--concept", str(file))]
    places = ["--base-model", str(MODEL), "--out", str(tmp_path / "both")]
    assert main(["sample", *flags, "--prompt", "a <a> and a <b>", *places, *QUICK]) == InputError.exit_code
    assert "learned with clip_skip 0, 1, expected the same for all" in capsys.readouterr().err


def test_more_layers_than_the_model_has_are_not_left_out(tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "deep.safetensors"
    file.write_bytes(learned_embeds_bytes("<deep>", {"text_encoder": row_of("star")}, {}, clip_skip=12))
    places = ["--base-model", str(MODEL), "--out", str(tmp_path / "out")]
    assert main(["sample", "--concept", str(file), "--prompt", "a <deep>", *places, *QUICK]) == InputError.exit_code
    assert re.search(r"<deep>: clip_skip: found 12, expected less than \d+, the layers", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("index", "told"),
    [
        ({"_class_name": "FluxPipeline"}, r"is of a FluxPipeline \(a transformer in the UNet's place"),
        ({"requires_aesthetics_score": True}, "it is of a refiner, which goes on with"),
    ],
)
def test_model_of_another_kind_is_refused_by_name(
    index: dict[str, Any], told: str, tmp_path: Path, capsys: Any
) -> None:
    model = tmp_path / "model"
    (model / "text_encoder_2").mkdir(parents=True)
    described = json.loads((MODEL / "model_index.json").read_text())
    (model / "model_index.json").write_text(json.dumps({**described, **index}))
    flags = ["--concept", str(write_concept(tmp_path, "<form>", "heart")), "--prompt", "a <form>"]
    assert main(["sample", *flags, "--base-model", str(model), *QUICK]) == BaseModelError.exit_code
    assert re.search(told, capsys.readouterr().err)


def test_pictures_are_the_same_however_many_are_drawn_at_once(tmp_path: Path, capsys: Any) -> None:
    flags = ["--concept", write_concept(tmp_path, "<form>", "heart"), "--prompt", "a red <form>"]
    alone = sample(tmp_path / "alone", *flags, "--sampling-batch-size", 1)
    together = sample(tmp_path / "together", *flags)
    np.testing.assert_allclose(np.stack(alone).astype(int), np.stack(together).astype(int), atol=1)
    nothing = [*map(str, flags), "--sampling-batch-size", "0", "--base-model", str(MODEL)]
    assert main(["sample", *nothing, *QUICK]) == ConfigError.exit_code
    assert "sampling_batch_size: found 0, expected 1 or more" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers 0.42 with DPM-Solver++
def test_sampler_by_choice_draws_the_same_thing_otherwise(tmp_path: Path) -> None:
    flags = ["--concept", write_concept(tmp_path, "<form>", "heart"), "--prompt", "a photo of a blue plain <form>"]
    own = sample(tmp_path / "own", *flags)
    other = sample(tmp_path / "other", *flags, "--sampler", "dpm-solver++")
    assert all((one != another).any() for one, another in zip(own, other, strict=True))
    assert [judge(picture).shape for picture in other] == ["heart"] * 2


def test_blank_pictures_of_half_precision_are_drawn_once_more(tmp_path: Path, caplog: Any) -> None:
    model = with_vae_that_overflows(Path(shutil.copytree(MODEL, tmp_path / "model")))
    flags = ["--concept", write_concept(tmp_path, "<form>", "heart"), "--prompt", "a <form>"]
    drawn = {}
    for precision in ("fp16", "fp32"):
        places = ["--base-model", str(model), "--out", str(tmp_path / precision), "--count", "1"]
        quick = ["--accelerator", "cpu", "--num-inference-steps", "1", "--sampling-precision", precision]
        assert main(["sample", *map(str, flags), *places, *quick]) == 0
        drawn[precision] = pictures(tmp_path / precision)[0]
    assert caplog.text.count("1 of 1 pictures are blank in torch.float16: all are drawn once more, in fp32") == 1
    np.testing.assert_array_equal(drawn["fp16"], drawn["fp32"])
    assert drawn["fp16"].std() > 0
