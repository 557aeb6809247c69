"""Documents of a model that cannot be right, or ask for more than there is: refused by name, and nothing run."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest
import torch

from components.common.errors import BaseModelError
from components.common.families import FAMILIES
from components.common.sources.models import open_source
from components.common.tokenizer import limit_to_text_encoder
from components.common.vocabulary import load_tokenizer
from components.flax_models import loading as flax_loading
from components.flax_models.ddim import load_ddim
from components.preflight.model_files import check_model_files
from components.torch_models import loading as torch_loading
from components.torch_models.clip_scorer import ClipScorer
from components.torch_models.sampling import load_pipeline

CPU = torch.device("cpu")
SPRITES = Path(__file__).parents[2] / "examples" / "sprites"
Load = Callable[[Path], object]


def preflight(model: Path) -> object:
    return check_model_files("model", open_source(str(model)), kind="diffusion", resolution=32)


def pipeline(model: Path) -> object:
    return load_pipeline(model, device=CPU, dtype=torch.float32)


TORCH: dict[str, Load] = {
    "text_encoder": lambda model: torch_loading.load_text_encoder(model, dtype=torch.float32, device=CPU),
    "unet": lambda model: torch_loading.load_unet(model, dtype=torch.float32, device=CPU),
    "vae": lambda model: torch_loading.load_vae(model, device=CPU),
}
FLAX: dict[str, Load] = {
    "text_encoder": lambda model: flax_loading.load_text_encoders(model, FAMILIES[0], dtype=jnp.float32),
    "unet": lambda model: flax_loading.load_unet(model, dtype=jnp.float32),
    "vae": lambda model: flax_loading.load_vae(model),
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The model of the examples, to change, with the scorer in the folder `clip`."""
    shutil.copytree(SPRITES / "base_model", tmp_path / "model")
    return Path(shutil.copytree(SPRITES / "clip", tmp_path / "model" / "clip")).parent


def change(file: Path, fields: dict[str, Any]) -> None:
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**content, **fields}))


def refused(call: Callable[[], object], *told: str) -> None:
    with pytest.raises(BaseModelError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 3000
    for words in told:
        assert words in message, message


# What a part says of itself: refused before its weights are read, by every loader.

QUANTISED = {"load_in_8bit": True, "quant_method": "bitsandbytes"}
CODE = {"AutoModel": "evil.EvilModel"}
CONFIGS: list[tuple[str, dict[str, Any], str]] = [
    ("text_encoder", {"quantization_config": QUANTISED}, "quantization_config"),
    ("unet", {"quantization_config": {"quant_method": "torchao"}}, "quantization_config"),
    ("vae", {"quantization_config": {}}, "quantization_config"),
    ("text_encoder", {"auto_map": CODE}, "auto_map"),
    ("unet", {"auto_map": CODE}, "auto_map"),
    ("vae", {"trust_remote_code": True}, "trust_remote_code"),
    ("text_encoder", {"model_type": "t5"}, "t5"),
    ("text_encoder", {"model_type": ["clip_text_model"]}, "clip_text_model"),
    ("text_encoder", {"model_type": 7}, "7"),
    ("unet", {"_class_name": "FluxTransformer2DModel"}, "FluxTransformer2DModel"),
    ("unet", {"_class_name": ["evil", "UNet2DConditionModel"]}, "evil"),
    ("vae", {"_class_name": "../../evil"}, "evil"),
    ("vae", {"_class_name": 3}, "3"),
    ("vae", {"_class_name": "a\nb" * 1000}, "vae"),
    ("text_encoder", {"hidden_size": "x"}, "hidden_size"),
    ("text_encoder", {"hidden_size": -96}, "hidden_size"),
    ("text_encoder", {"hidden_size": 96.5}, "hidden_size"),
    ("text_encoder", {"hidden_size": True}, "hidden_size"),
    ("text_encoder", {"num_attention_heads": 0}, "num_attention_heads"),
    ("text_encoder", {"num_hidden_layers": [2]}, "num_hidden_layers"),
    ("text_encoder", {"vocab_size": {}}, "vocab_size"),
    ("unet", {"block_out_channels": "wide"}, "block_out_channels"),
    ("unet", {"block_out_channels": []}, "block_out_channels"),
    ("unet", {"block_out_channels": [32] * 10_000}, "block_out_channels"),
    ("unet", {"block_out_channels": [32, None, 128]}, "block_out_channels"),
    ("unet", {"cross_attention_dim": "96"}, "cross_attention_dim"),
    ("unet", {"sample_size": 10**6}, "sample_size"),
    ("unet", {"sample_size": [16, 10**9]}, "sample_size"),
    ("vae", {"latent_channels": 0}, "latent_channels"),
    ("vae", {"scaling_factor": "x"}, "scaling_factor"),
    ("vae", {"scaling_factor": 0}, "scaling_factor"),
    ("vae", {"scaling_factor": -0.18}, "scaling_factor"),
]


@pytest.mark.parametrize("loader", ["preflight", "torch", "flax", "pipeline"])
@pytest.mark.parametrize(
    ("part", "fields", "told"), CONFIGS, ids=[f"{c[0]} {next(iter(c[1]))} {n}" for n, c in enumerate(CONFIGS)]
)
def test_part_that_cannot_be_right_is_refused(
    model: Path, part: str, fields: dict[str, Any], told: str, loader: str
) -> None:
    change(model / part / "config.json", fields)
    loaders = {"preflight": preflight, "torch": TORCH[part], "flax": FLAX[part], "pipeline": pipeline}
    refused(lambda: loaders[loader](model), told)


@pytest.mark.parametrize("loader", ["torch", "flax"])
@pytest.mark.parametrize(
    ("part", "fields", "told"),
    [
        ("text_encoder", {"hidden_size": 2**40, "num_attention_heads": 4}, "hidden_size"),
        ("text_encoder", {"hidden_size": 96_000, "num_attention_heads": 4}, "has the shape"),
        ("text_encoder", {"vocab_size": 10**9}, "vocab_size"),
        ("text_encoder", {"vocab_size": 100_000}, "has the shape [570, 96], expected [100000, 96]"),
        ("text_encoder", {"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ("text_encoder", {"num_hidden_layers": 30}, " missing: "),
        ("text_encoder", {"num_hidden_layers": 1}, " unexpected: "),
        ("unet", {"block_out_channels": [32, 80, 2**50]}, "block_out_channels"),
        ("unet", {"block_out_channels": [32, 80, 128_000]}, "has the shape"),
        ("unet", {"cross_attention_dim": 400_000}, "has the shape"),
        ("unet", {"layers_per_block": 10**8}, "layers_per_block"),
        ("vae", {"block_out_channels": [16, 64_000]}, "has the shape"),
        ("vae", {"layers_per_block": 10**8}, "layers_per_block"),
    ],
)
def test_part_larger_than_its_weights_is_refused_without_memory_for_it(
    model: Path, part: str, fields: dict[str, Any], told: str, loader: str
) -> None:
    change(model / part / "config.json", fields)
    refused(lambda: {"torch": TORCH, "flax": FLAX}[loader][part](model), told)


@pytest.mark.parametrize(
    ("part", "fields"),
    [
        ("text_encoder", {"hidden_act": "evil"}),
        ("text_encoder", {"hidden_act": ["gelu"]}),
        ("text_encoder", {"layer_norm_eps": "small"}),
        ("text_encoder", {"num_attention_heads": 7}),
        ("unet", {"down_block_types": ["Evil", "DownBlock2D", "DownBlock2D"]}),
        ("unet", {"down_block_types": 3}),
        ("unet", {"up_block_types": ["UpBlock2D"]}),
        ("unet", {"act_fn": "os.system"}),
        ("unet", {"mid_block_type": {"a": 1}}),
        ("unet", {"norm_num_groups": 7}),
        ("unet", {"attention_head_dim": [1]}),
        ("unet", {"time_embedding_type": "spiral"}),
        ("vae", {"up_block_types": ["Evil", "Evil"]}),
        ("vae", {"act_fn": 5}),
        ("vae", {"norm_num_groups": 5}),
    ],
)
@pytest.mark.parametrize("loader", ["torch", "flax"])
def test_part_that_no_module_computes_is_refused(model: Path, part: str, fields: dict[str, Any], loader: str) -> None:
    change(model / part / "config.json", fields)
    refused(lambda: {"torch": TORCH, "flax": FLAX}[loader][part](model), part)


@pytest.mark.parametrize(
    "fields",
    [
        {"quantization_config": QUANTISED},
        {"auto_map": CODE},
        {"model_type": "siglip"},
        {"text_config": []},
        {"text_config": {"hidden_size": "x"}},
        {"vision_config": {"hidden_size": 2**50}},
        {"vision_config": {"num_hidden_layers": 10**9}},
        {"vision_config": {"patch_size": 0}},
        {"projection_dim": 10**12},
    ],
    ids=str,
)
def test_scorer_that_cannot_be_right_is_refused(model: Path, fields: dict[str, Any]) -> None:
    change(model / "clip" / "config.json", fields)
    refused(lambda: ClipScorer(model / "clip", device=CPU), "no folder of a CLIP model")


@pytest.mark.parametrize("content", ["", "[]", "{cut off", "NaN", "[" * 10**5, '{"a": 1, "a": 2}', '"\\ud800"', "null"])
@pytest.mark.parametrize(
    "file",
    ["unet/config.json", "scheduler/scheduler_config.json", "model_index.json", "tokenizer/vocab.json"],
)
def test_document_that_is_no_object_is_refused(model: Path, file: str, content: str) -> None:
    (model / "tokenizer" / "tokenizer.json").unlink()
    (model / file).write_text(content)
    refused(lambda: pipeline(model), file)


# The pipeline's index.


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"_class_name": ["evil", "StableDiffusionPipeline"]}, "evil"),
        ({"_class_name": 5}, "is of a 5"),
        ({"_class_name": {}}, "is of a {}"),
        ({"_class_name": "/etc/passwd"}, "passwd"),
        ({"_class_name": "a\nb"}, "expected one of"),
        ({"_class_name": "x" * 10**6}, "expected one of"),
        ({"unet": ["evil_module", "UNet2DConditionModel"]}, "evil_module"),
        ({"unet": ["../evil", "UNet2DConditionModel"]}, "evil"),
        ({"unet": ["diffusers", ["UNet2DConditionModel"]]}, "unet"),
        ({"unet": ["diffusers"]}, "unet"),
        ({"unet": ["diffusers", "UNet2DConditionModel", "evil"]}, "unet"),
        ({"vae": [["diffusers"], "AutoencoderKL"]}, "vae"),
        ({"text_encoder": [5, "CLIPTextModel"]}, "text_encoder"),
        ({"tokenizer": ["transformers", "EvilTokenizer"]}, "EvilTokenizer"),
        ({"scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"]}, "FlowMatchEulerDiscreteScheduler"),
        ({"scheduler": ["diffusers", "os.system"]}, "os.system"),
        ({"scheduler": ["scheduling_evil", "DDIMScheduler"]}, "scheduling_evil"),
        ({"feature_extractor": ["evil_module", "Evil"]}, "evil_module"),
        ({"more": ["evil_module", "Evil"]}, "evil_module"),
    ],
    ids=lambda value: str(value)[:60],
)
@pytest.mark.parametrize("load", [preflight, pipeline])
def test_index_that_names_something_else_is_refused(model: Path, fields: dict[str, Any], told: str, load: Load) -> None:
    change(model / "model_index.json", fields)
    refused(lambda: load(model), told)


def test_code_beside_a_model_is_never_run(model: Path) -> None:
    """Files that the libraries would import, had they been told to trust them."""
    for name in ("evil_module.py", "unet/evil_module.py", "pipeline.py", "tokenizer/evil.py", "clip/evil.py"):
        (model / name).write_text("raise SystemExit('code of a model was run')\n")
    change(model / "tokenizer" / "tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}})
    before = set(sys.modules)
    pipeline(model)
    ClipScorer(model / "clip", device=CPU)
    assert not [name for name in set(sys.modules) - before if "evil" in name]


# The noise schedule.


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "_class_name"),
        ({"_class_name": ["DDIMScheduler"]}, "_class_name"),
        ({"_class_name": 1}, "_class_name"),
        ({"prediction_type": "sample"}, "prediction_type"),
        ({"prediction_type": None}, "prediction_type"),
        ({"prediction_type": ["epsilon"]}, "prediction_type"),
        ({"beta_schedule": "nonsense"}, "beta_schedule"),
        ({"beta_schedule": {"a": 1}}, "beta_schedule"),
        ({"timestep_spacing": "sideways"}, "timestep_spacing"),
        ({"num_train_timesteps": 0}, "num_train_timesteps"),
        ({"num_train_timesteps": -1}, "num_train_timesteps"),
        ({"num_train_timesteps": 10**9}, "num_train_timesteps"),
        ({"num_train_timesteps": 1000.0}, "num_train_timesteps"),
        ({"num_train_timesteps": "1000"}, "num_train_timesteps"),
        ({"num_train_timesteps": True}, "num_train_timesteps"),
        ({"steps_offset": -1}, "steps_offset"),
        ({"steps_offset": 5000}, "steps_offset"),
        ({"beta_start": -0.1}, "beta_start"),
        ({"beta_start": "small"}, "beta_start"),
        ({"beta_end": 7}, "beta_end"),
        ({"beta_end": None}, "beta_end"),
        ({"trained_betas": [0.1] * 999}, "trained_betas"),
        ({"trained_betas": []}, "trained_betas"),
        ({"trained_betas": "many"}, "trained_betas"),
        ({"trained_betas": [0.1] * 999 + ["x"]}, "trained_betas"),
        ({"trained_betas": [0.1] * 999 + [2]}, "trained_betas"),
    ],
    ids=lambda value: str(value)[:50],
)
@pytest.mark.parametrize(
    "load", [preflight, torch_loading.load_noise_scheduler, load_ddim, pipeline], ids=lambda load: load.__name__
)
def test_schedule_that_cannot_be_right_is_refused(model: Path, fields: dict[str, Any], told: str, load: Load) -> None:
    change(model / "scheduler" / "scheduler_config.json", fields)
    refused(lambda: load(model), "scheduler", f"found {told} ")


# The tokenizer.


def edit(file: str, **fields: Any) -> Callable[[Path], None]:
    return lambda folder: change(folder / file, fields)


def write(file: str, text: str | bytes) -> Callable[[Path], None]:
    data = text if isinstance(text, bytes) else text.encode()
    return lambda folder: (folder / file).write_bytes(data) and None


def without_end(folder: Path) -> None:
    vocabulary = json.loads((folder / "vocab.json").read_text())
    last = max(vocabulary.values())
    del vocabulary["<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({**vocabulary, "more": last + 5}))


def edit_tokenizer_json(**model: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / "tokenizer.json").write_bytes((SPRITES / "base_model/tokenizer/tokenizer.json").read_bytes())
        content = json.loads((folder / "tokenizer.json").read_text())
        content["model"].update(model)
        (folder / "tokenizer.json").write_text(json.dumps(content))

    return damage


TOKENIZERS: dict[str, Callable[[Path], None]] = {
    "id is a text": edit("vocab.json", a="x"),
    "id is a fraction": edit("vocab.json", a=1.5),
    "id is negative": edit("vocab.json", a=-1),
    "id is null": edit("vocab.json", a=None),
    "id far beyond": edit("vocab.json", a=2**31),
    "id beyond 32 bits": edit("vocab.json", a=2**40),
    "id of two tokens": edit("vocab.json", a=5),
    "token twice": write("vocab.json", '{"a": 0, "b": 1, "a": 2}'),
    "vocabulary is a list": write("vocab.json", "[]"),
    "vocabulary is empty": write("vocab.json", "{}"),
    "vocabulary is deep": write("vocab.json", "[" * 10**5),
    "ids with a hole": without_end,
    "merge of one": write("merges.txt", "#version: 0.2\nabc\n"),
    "merge of three": write("merges.txt", "#version: 0.2\na b c\n"),
    "merge of unknown tokens": write("merges.txt", "#version: 0.2\nzz qq\n"),
    "merges are no text": write("merges.txt", b"\xff\xfe\x00"),
    "no merges": lambda folder: (folder / "merges.txt").unlink(),
    "added tokens are a list": write("added_tokens.json", "[1, 2]"),
    "special tokens are a list": write("special_tokens_map.json", "[5]"),
    "special token is a number": edit("special_tokens_map.json", eos_token=5),
    "start is a number": edit("tokenizer_config.json", bos_token=7),
    "end is a list": edit("tokenizer_config.json", eos_token=["a"]),
    "unknown is an object": edit("tokenizer_config.json", unk_token={"content": 3}),
    "length is a text": edit("tokenizer_config.json", model_max_length="x"),
    "length is negative": edit("tokenizer_config.json", model_max_length=-5),
    "length is 0": edit("tokenizer_config.json", model_max_length=0),
    "decoder is a list": edit("tokenizer_config.json", added_tokens_decoder=[1]),
    "decoder of no ids": edit("tokenizer_config.json", added_tokens_decoder={"x": {"content": "y"}}),
    "decoder of no texts": edit("tokenizer_config.json", added_tokens_decoder={"3": {"content": 5}}),
    "config is a list": write("tokenizer_config.json", "[]"),
    "tokenizer.json is empty": write("tokenizer.json", "{}"),
    "tokenizer.json: id is a text": edit_tokenizer_json(vocab={"a": "x"}),
    "tokenizer.json: merge of a number": edit_tokenizer_json(merges=[5]),
    "tokenizer.json: merge of unknown tokens": edit_tokenizer_json(merges=[["zz", "qq"]]),
    "tokenizer.json: no vocabulary": edit_tokenizer_json(vocab=None),
    "more tokens than the text encoder": edit("added_tokens.json", **{f"<{n}>": 570 + n for n in range(9)}),
}


@pytest.mark.parametrize("case", TOKENIZERS)
def test_tokenizer_that_cannot_be_right_is_refused(model: Path, case: str) -> None:
    (model / "tokenizer" / "tokenizer.json").unlink()
    TOKENIZERS[case](model / "tokenizer")
    refused(
        lambda: limit_to_text_encoder(load_tokenizer(model / "tokenizer"), model / "text_encoder"),
        "tokenizer",
    )


@pytest.mark.parametrize("positions", [None, 0, 1, -5, "24", 24.5, True, [24], {}])
def test_text_encoder_that_takes_no_prompt_is_refused(model: Path, positions: Any) -> None:
    change(model / "text_encoder" / "config.json", {"max_position_embeddings": positions})
    refused(
        lambda: limit_to_text_encoder(load_tokenizer(model / "tokenizer"), model / "text_encoder"),
        "max_position_embeddings",
    )
