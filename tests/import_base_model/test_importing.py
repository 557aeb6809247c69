"""Imports from every kind of source into every kind of store, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download
from kfp import dsl

from components.common.artifact_folder import sha256_of_file
from components.common.base_model import blob_key, materialize, read_reference
from components.common.errors import BaseModelError, ConfigError, InputError, StorageError
from components.common.sources.models import open_source
from components.common.storage import open_store, retries
from components.import_base_model.component import import_base_model as import_component
from components.import_base_model.config import ImportConfig
from components.import_base_model.importing import import_base_model
from tests.model_folders import (
    make_clip_folder,
    make_diffusion_folder,
    write_json,
    write_weights,
)
from tests.servers import AnsweringServer, HubServer, Proxy, S3Server, free_ports, running

ROOT = Path(__file__).resolve().parents[2]

DIFFUSION_FILES = [
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/merges.txt",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
]
CLIP_FILES = [
    "config.json",
    "merges.txt",
    "model.safetensors",
    "preprocessor_config.json",
    "tokenizer_config.json",
    "vocab.json",
]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_diffusion_folder(tmp_path / "sd")


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "store")


@pytest.fixture(params=["folder", "file", "gs", "s3", "hf"])
def source(request: pytest.FixtureRequest, model: Path) -> str:
    """The same model at every kind of place."""
    match request.param:
        case "folder":
            return str(model)
        case "file":
            return model.as_uri()
        case "hf":
            hub: HubServer = request.getfixturevalue("hub_server")
            hub.add_repository("owner/sd", model)
            return "hf://owner/sd"
        case scheme:
            uri = str(request.getfixturevalue({"gs": "gcs_bucket_uri", "s3": "s3_bucket_uri"}[scheme]))
            open_store(uri).upload_folder(model, "models/sd")
            return f"{uri}/models/sd"


def test_import_when_the_source_is_complete_takes_what_is_needed(
    source: str, store: str, model: Path, tmp_path: Path
) -> None:
    reference = import_base_model(source, store, tmp_path / "reference")

    assert sorted(reference.files) == DIFFUSION_FILES
    assert read_reference(tmp_path / "reference") == reference
    assert (reference.source, reference.kind, reference.variant) == (source, "diffusion", "")
    assert reference.revision == open_source(source).revision
    folder = materialize(reference, None, tmp_path / "cache")
    for name, file in reference.files.items():
        assert (folder / name).read_bytes() == (model / name).read_bytes()
        assert (file.sha256, file.size) == (sha256_of_file(model / name), (model / name).stat().st_size)


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_import_when_the_store_is_a_bucket_fills_it(
    scheme: str, request: pytest.FixtureRequest, model: Path, tmp_path: Path
) -> None:
    store = request.getfixturevalue({"gs": "gcs_bucket_uri", "s3": "s3_bucket_uri"}[scheme])

    reference = import_base_model(str(model), store, tmp_path / "reference")

    assert (reference.store, reference.repository) == (store, model.as_uri())
    keys = {info.key for info in open_store(store).list("blobs/")}
    assert keys == {blob_key(file.sha256) for file in reference.files.values()}
    assert sorted(materialize(reference, ["vae"], tmp_path / "cache").rglob("*.safetensors")) != []


def test_import_when_repeated_downloads_nothing_from_the_hub(
    hub_server: HubServer, model: Path, store: str, tmp_path: Path
) -> None:
    commit = hub_server.add_repository("owner/sd", model)
    first = import_base_model("hf://owner/sd", store, tmp_path / "1")
    downloads = hub_server.downloads()
    hub_server.requests.clear()

    again = import_base_model(f"hf://owner/sd@{commit}", store, tmp_path / "2")

    assert len(downloads) == len(DIFFUSION_FILES)
    assert hub_server.downloads() == []
    assert len(hub_server.requests) == 1
    assert (again.digest, again.revision, again.repository) == (first.digest, commit, "owner/sd")
    assert again.source == f"hf://owner/sd@{commit}"


def test_import_when_repeated_downloads_nothing_from_a_bucket(
    s3_bucket_uri: str, s3_server: S3Server, model: Path, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store(s3_bucket_uri).upload_folder(model, "sd")
    with running(Proxy(s3_server.url)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        first = import_base_model(f"{s3_bucket_uri}/sd", store, tmp_path / "1")
        downloads = [path for method, path in proxy.requests if method == "GET" and "list-type" not in path]
        proxy.requests.clear()
        again = import_base_model(f"{s3_bucket_uri}/sd", store, tmp_path / "2")

    assert len(downloads) == len(DIFFUSION_FILES)
    assert [method for method, path in proxy.requests] == ["GET"]  # the listing
    assert again == first


def test_import_when_a_new_commit_changes_one_file_downloads_that_file(
    hub_server: HubServer, model: Path, store: str, tmp_path: Path
) -> None:
    hub_server.add_repository("owner/sd", model)
    first = import_base_model("hf://owner/sd", store, tmp_path / "1")
    changed = make_diffusion_folder(tmp_path / "changed")
    write_weights(changed / "unet" / "diffusion_pytorch_model.safetensors", seed="better")
    hub_server.add_repository("owner/sd", changed)
    hub_server.requests.clear()

    second = import_base_model("hf://owner/sd", store, tmp_path / "2")

    # The Hub tells digests of weights beforehand, not of small files.
    assert [path for path in hub_server.downloads() if path.endswith(".safetensors")] == [
        f"/owner/sd/resolve/{second.revision}/unet/diffusion_pytorch_model.safetensors"
    ]
    assert {name for name in first.files if first.files[name] != second.files[name]} == {
        "unet/diffusion_pytorch_model.safetensors"
    }
    assert first.digest != second.digest


def test_import_when_the_store_lost_a_file_brings_it_back(model: Path, store: str, tmp_path: Path) -> None:
    first = import_base_model(str(model), store, tmp_path / "1")
    lost = blob_key(first.files["vae/config.json"].sha256)
    open_store(store).delete(lost)

    assert import_base_model(str(model), store, tmp_path / "2") == first
    assert open_store(store).exists(lost)


def test_import_when_the_known_reference_is_damaged_is_done_again(model: Path, store: str, tmp_path: Path) -> None:
    first = import_base_model(str(model), store, tmp_path / "1")
    (known,) = open_store(store).list("references/")
    open_store(store).write(known.key, b'{"files": 1}')

    assert import_base_model(str(model), store, tmp_path / "2") == first


def test_import_when_pinned_takes_that_commit_though_the_branch_moved(
    hub_server: HubServer, model: Path, store: str, tmp_path: Path
) -> None:
    pinned = hub_server.add_repository("owner/sd", model)
    moved = make_diffusion_folder(tmp_path / "moved", variants=["", "fp16"])
    assert hub_server.add_repository("owner/sd", moved) != pinned

    reference = import_base_model("hf://owner/sd", store, tmp_path / "reference", revision=pinned)

    assert reference.revision == pinned
    assert open_source("hf://owner/sd").revision != pinned


def test_import_when_a_folder_changed_since_is_refused(model: Path, store: str, tmp_path: Path) -> None:
    before = open_source(str(model)).revision
    write_json(model / "unet" / "config.json", {"part": "another"})

    with pytest.raises(BaseModelError, match="it changed since this run was submitted"):
        import_base_model(str(model), store, tmp_path / "reference", revision=before)


def test_revision_when_something_beside_the_model_changes_stays(model: Path) -> None:
    before = open_source(str(model)).revision
    (model / "README.md").write_text("more words", encoding="utf-8")
    (model / "pictures" / "dog.png").write_bytes(b"another picture")

    assert open_source(str(model)).revision == before
    write_weights(model / "vae" / "diffusion_pytorch_model.safetensors", seed="another")
    assert open_source(str(model)).revision != before


def test_import_when_a_variant_is_asked_for_drops_it_from_the_names(store: str, tmp_path: Path) -> None:
    model = make_diffusion_folder(tmp_path / "sd", variants=["", "fp16"])

    plain = import_base_model(str(model), store, tmp_path / "plain")
    half = import_base_model(str(model), store, tmp_path / "half", variant="fp16")

    assert sorted(plain.files) == sorted(half.files) == DIFFUSION_FILES
    assert half.files["unet/diffusion_pytorch_model.safetensors"].sha256 == sha256_of_file(
        model / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    )
    assert plain.files["unet/config.json"] == half.files["unet/config.json"]


def test_import_when_there_is_a_second_encoder_takes_it(store: str, tmp_path: Path) -> None:
    model = make_diffusion_folder(tmp_path / "sdxl", second_encoder=True)

    reference = import_base_model(str(model), store, tmp_path / "reference")

    assert set(reference.subfolders) >= {"text_encoder_2", "tokenizer_2"}
    (model / "text_encoder_2" / "config.json").unlink()
    (model / "tokenizer_2" / "merges.txt").unlink()
    with pytest.raises(
        BaseModelError, match=r"tokenizer_2/tokenizer.json, or .*; text_encoder_2/config.json is missing"
    ):
        import_base_model(str(model), store, tmp_path / "reference")


def test_import_when_the_kind_is_clip_takes_the_top_level(store: str, tmp_path: Path) -> None:
    model = make_clip_folder(tmp_path / "clip")
    write_json(model / "generation_config.json", {})

    reference = import_base_model(str(model), store, tmp_path / "reference", kind="clip")

    assert sorted(reference.files) == CLIP_FILES
    assert reference.subfolders == ()
    assert sorted(path.name for path in materialize(reference, None, tmp_path / "cache").iterdir()) == CLIP_FILES


@pytest.mark.parametrize(
    "index_name",
    ["diffusion_pytorch_model.safetensors.index.fp16.json", "diffusion_pytorch_model.safetensors.fp16.index.json"],
)
def test_import_when_weights_are_in_shards_takes_all_of_them(index_name: str, store: str, tmp_path: Path) -> None:
    model = make_diffusion_folder(tmp_path / "sd", variants=["fp16"])
    unet = model / "unet"
    (unet / "diffusion_pytorch_model.fp16.safetensors").unlink()
    shards = [f"diffusion_pytorch_model.fp16-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for shard in shards:
        write_weights(unet / shard, seed=shard)
    write_json(unet / index_name, {"weight_map": {"a": shards[0], "b": shards[1], "c": shards[0]}})

    reference = import_base_model(str(model), store, tmp_path / "reference", variant="fp16")

    assert sorted(name for name in reference.files if name.startswith("unet/")) == [
        "unet/config.json",
        *(f"unet/{shard}" for shard in shards),
        "unet/diffusion_pytorch_model.safetensors.index.json",
    ]
    (unet / shards[1]).unlink()
    with pytest.raises(BaseModelError, match=f"unet/{shards[1]} is missing"):
        import_base_model(str(model), store, tmp_path / "reference", variant="fp16")


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ("model_index.json", "model_index.json is missing, and v1-5-pruned.ckpt looks like a single-file checkpoint"),
        ("vae/config.json", "vae/config.json is missing"),
        ("scheduler/scheduler_config.json", "scheduler/scheduler_config.json is missing"),
        ("tokenizer/vocab.json", "tokenizer/tokenizer.json, or vocab.json and merges.txt beside it, is missing"),
        ("tokenizer/tokenizer_config.json", "tokenizer/tokenizer_config.json is missing"),
        ("text_encoder/model.safetensors", "text_encoder/model.safetensors is missing"),
        (
            "unet/diffusion_pytorch_model.safetensors",
            r"unet/diffusion_pytorch_model.bin is pickled, .*save_pretrained\(FOLDER\)",
        ),
    ],
)
def test_import_when_a_part_is_missing_names_it(
    missing: str, expected: str, model: Path, store: str, tmp_path: Path
) -> None:
    (model / missing).unlink()

    with pytest.raises(BaseModelError, match=rf"{model} cannot be imported: .*{expected}") as caught:
        import_base_model(str(model), store, tmp_path / "reference")
    assert "\n" not in str(caught.value)
    assert not Path(store).exists()


def test_import_when_several_parts_are_missing_names_all(model: Path, store: str, tmp_path: Path) -> None:
    (model / "unet" / "config.json").unlink()
    (model / "vae" / "config.json").unlink()

    with pytest.raises(BaseModelError, match=r"unet/config\.json is missing; vae/config\.json is missing"):
        import_base_model(str(model), store, tmp_path / "reference")


def change_json(path: Path, **changes: object) -> None:
    write_json(path, {**json.loads(path.read_text()), **changes})


@pytest.mark.parametrize(
    "name", ["StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionPipelineSafe"]
)
def test_import_when_the_pipeline_has_the_same_parts_takes_it(
    name: str, model: Path, store: str, tmp_path: Path
) -> None:
    change_json(model / "model_index.json", _class_name=name)

    assert sorted(import_base_model(str(model), store, tmp_path / "reference").files) == DIFFUSION_FILES


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("FluxPipeline", r"FluxPipeline \(a transformer .*T5.*\), expected one of .*choose a model of .* 2\.x, .* XL"),
        ("PixArtAlphaPipeline", r"PixArtAlphaPipeline \(a transformer .*\), expected"),
        ("KandinskyV22Pipeline", r"KandinskyV22Pipeline \(drawing by pictures' embeddings\), expected"),
        ("LatentConsistencyModelPipeline", r"ModelPipeline \(distilled to a few steps\), expected"),
        ("StableDiffusionInpaintPipeline", r"is of a StableDiffusionInpaintPipeline \(inpainting\), expected"),
        ("StableDiffusionInstructPix2PixPipeline", r"Pix2PixPipeline \(editing\), expected"),
        ("StableDiffusionControlNetPipeline", r"ControlNetPipeline \(steering by a ControlNet\), expected"),
        ("StableDiffusion3Pipeline", r"is of a StableDiffusion3Pipeline \(a transformer .*\), expected"),
        ("HunyuanDiTPipeline", "is of a HunyuanDiTPipeline, expected"),
        (None, "is of a None, expected"),
    ],
)
def test_import_when_the_pipeline_is_of_another_family_names_it(
    name: str | None, expected: str, model: Path, store: str, tmp_path: Path
) -> None:
    change_json(model / "model_index.json", _class_name=name)

    with pytest.raises(BaseModelError, match=rf"cannot be imported: model_index\.json .*{expected}"):
        import_base_model(str(model), store, tmp_path / "reference")


@pytest.mark.parametrize(
    ("file", "change", "expected"),
    [
        ("model_index.json", {"unet": [None, None]}, r"model_index\.json names no unet; a Stable Diffusion model has"),
        ("model_index.json", {"text_encoder": ["transformers", "T5EncoderModel"]}, "text_encoder is a T5EncoderModel"),
        ("model_index.json", {"vae": ["diffusers", "AutoencoderTiny"]}, "vae is a AutoencoderTiny, expected a Auto"),
        ("model_index.json", {"requires_aesthetics_score": True}, "it is of a refiner, .*; choose that model"),
        ("unet/config.json", {"time_cond_proj_dim": 256}, "unet/config.json has time_cond_proj_dim: .* few steps"),
        ("unet/config.json", {"cross_attention_dim": 768}, "found cross_attention_dim 768, expected 96, which is what"),
        ("vae/config.json", {"latents_std": [0.9] * 4}, "vae/config.json has latents_std: only latents that are"),
        ("vae/config.json", {"latents_mean": [0, 0.1]}, "vae/config.json has latents_mean: only latents that are"),
        ("unet/config.json", {"addition_time_embed_dim": "256"}, "found addition_time_embed_dim '256', expected whole"),
        ("unet/config.json", {"in_channels": 9}, "the UNet takes 9 channels, the VAE's latents have 4: .*inpainting"),
    ],
)
def test_import_when_a_part_is_of_another_kind_names_it(
    file: str, change: dict[str, object], expected: str, model: Path, store: str, tmp_path: Path
) -> None:
    change_json(model / "unet" / "config.json", in_channels=4)
    change_json(model / "vae" / "config.json", latent_channels=4)
    change_json(model / "vae" / "config.json", latents_mean=[0.0] * 4, latents_std=[1.0] * 4)
    change_json(model / "text_encoder" / "config.json", hidden_size=96)
    import_base_model(str(model), store, tmp_path / "reference")
    change_json(model / file, **change)

    with pytest.raises(BaseModelError, match=expected):
        import_base_model(str(model), store, tmp_path / "reference")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"pytorch_lora_weights.safetensors": "x"}, "the folder is a LoRA"),
        ({"adapter_config.json": "{}", "adapter_model.safetensors": "x"}, "the folder is a LoRA of peft"),
        ({"config.json": '{"_class_name": "ControlNetModel"}'}, "the folder is a ControlNet"),
        ({"config.json": '{"_class_name": "AutoencoderKL"}'}, "the folder is a VAE alone"),
        ({"config.json": '{"_class_name": "UNet2DConditionModel"}'}, "the folder is a UNet alone"),
        ({"config.json": '{"architectures": ["CLIPTextModel"]}'}, "the folder is a text encoder alone"),
        ({"config.json": '{"architectures": ["LlamaForCausalLM"]}'}, "the folder is a LlamaForCausalLM alone"),
        ({"learned_embeds.safetensors": "x"}, "the folder is a learned embedding, not a base model"),
        ({"tokenizer_config.json": "{}"}, "the folder is a tokenizer alone"),
        ({"dreamshaper_8.safetensors": "x"}, "dreamshaper_8.safetensors looks like a single-file checkpoint"),
        ({"sd15/model_index.json": "{}"}, "there is one in sd15: give that folder"),
        ({"notes.txt": "x"}, "is it the folder of a diffusers pipeline"),
    ],
)
def test_import_when_the_folder_is_something_else_says_what(
    files: dict[str, str], expected: str, store: str, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / "model" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "model" / name).write_text(text)

    with pytest.raises(BaseModelError, match=rf"model_index\.json is missing.*{expected}"):
        import_base_model(str(tmp_path / "model"), store, tmp_path / "reference")


def test_import_when_another_kind_was_asked_for_names_the_right_one(model: Path, store: str, tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="a diffusion pipeline is imported with kind diffusion"):
        import_base_model(str(model), store, tmp_path / "reference", kind="clip")
    scorer = make_clip_folder(tmp_path / "clip")
    write_json(scorer / "config.json", {"model_type": "clip_text_model"})
    with pytest.raises(BaseModelError, match="is of a clip_text_model, expected a clip"):
        import_base_model(str(scorer), store, tmp_path / "reference", kind="clip")


@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae"])
def test_import_when_one_part_has_the_variant_alone_takes_plain_weights_for_the_others(
    part: str, model: Path, store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = next((model / part).glob("*.safetensors"))
    plain.rename(plain.with_suffix(".fp16.safetensors"))

    with pytest.raises(
        BaseModelError, match=rf"imported: {part}/{plain.name} is missing, .*: fp16; import with --variant fp16"
    ):
        import_base_model(str(model), store, tmp_path / "reference")
    reference = import_base_model(str(model), store, tmp_path / "reference", variant="fp16")

    assert sorted(reference.files) == DIFFUSION_FILES
    told = {message.split(" in ")[1] for message in caplog.messages if "its plain ones are taken" in message}
    assert told == {f"{other}/: its plain ones are taken" for other in {"text_encoder", "unet", "vae"} - {part}}


@pytest.mark.parametrize(
    ("source", "expected", "unexpected"),
    [
        ("/data/sd15", "found no files in /data/sd15, .* there is no such folder on this machine", "hf://"),
        ("./models/sd", "there is no such folder on this machine", "hf://"),
        ("../models", "there is no such folder on this machine", "hf://"),
        ("models/of/mine", "there is no such folder on this machine", "hf://"),
        ("owner/name", "no such folder on this machine; a model of the Hugging Face Hub is written hf://owner", "~"),
        ("~/absent", "found no files in .*/home/absent", "hf://"),
        ("/data/dreamshaper_8.safetensors", r"single-file checkpoint: .*from_single_file\(FILE\)", "hf://"),
        ("gs://bucket/model.CKPT", r"single-file checkpoint: .*from_single_file\(FILE\)", "hf://"),
        ("hf://owner/name/v1.safetensors", r"single-file checkpoint: .*from_single_file\(FILE\)", "absent"),
    ],
)
def test_import_when_the_address_is_no_folder_gives_a_hint_that_can_be_right(
    source: str, expected: str, unexpected: str, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(BaseModelError, match=expected) as caught:
        import_base_model(source, store, tmp_path / "reference")
    assert unexpected not in str(caught.value).replace(source, "")


def test_import_when_a_folder_is_named_like_a_file_takes_it(
    hub_server: HubServer, model: Path, store: str, tmp_path: Path
) -> None:
    hub_server.add_repository("owner/sd.bin", model)
    renamed = shutil.copytree(model, tmp_path / "sd.ckpt")
    for source in ("hf://owner/sd.bin", str(renamed)):
        assert sorted(import_base_model(source, store, tmp_path / "reference").files) == DIFFUSION_FILES


def test_import_when_the_folder_is_in_the_users_home_finds_it(
    model: Path, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert import_base_model(f"~/{model.name}", store, tmp_path / "reference").repository == model.as_uri()


def test_import_when_a_clip_model_is_given_as_diffusion_says_so(store: str, tmp_path: Path) -> None:
    model = make_clip_folder(tmp_path / "clip")

    with pytest.raises(BaseModelError, match="a CLIP model is imported with kind clip"):
        import_base_model(str(model), store, tmp_path / "reference")


def test_import_when_the_variant_is_missing_lists_what_there_is(store: str, tmp_path: Path) -> None:
    model = make_diffusion_folder(tmp_path / "sd", variants=["", "non_ema"])

    with pytest.raises(
        BaseModelError, match=r"unet/.*\.fp16\.safetensors is missing, while unet/ has weights: non_ema, plain"
    ):
        import_base_model(str(model), store, tmp_path / "reference", variant="fp16")


@pytest.mark.parametrize(("kind", "variant"), [("gan", ""), ("diffusion", "../fp16"), ("diffusion", "fp 16")])
def test_import_when_kind_or_variant_cannot_be_is_refused(
    kind: str, variant: str, model: Path, store: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="expected"):
        import_base_model(str(model), store, tmp_path / "reference", kind=kind, variant=variant)


def _cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def _lose_the_end_of_the_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


def _point_to_lfs(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 134\n", encoding="utf-8")


def _be_no_safetensors(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04" + bytes(400))


def _be_empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (_cut_off, "bytes, expected .* by its safetensors header: it is cut off"),
        (_lose_the_end_of_the_header, "is no safetensors file"),
        (_be_no_safetensors, "damaged safetensors header|is no safetensors file"),
        (_be_empty, "is no safetensors file: 0 bytes"),
        (_point_to_lfs, "is a Git LFS pointer"),
    ],
)
def test_import_when_weights_are_damaged_says_how(
    damage: Callable[[Path], None], expected: str, model: Path, store: str, tmp_path: Path
) -> None:
    damage(model / "vae" / "diffusion_pytorch_model.safetensors")

    with pytest.raises(BaseModelError, match=rf"vae/diffusion_pytorch_model.safetensors .*({expected})"):
        import_base_model(str(model), store, tmp_path / "reference")
    assert open_store(store).list("references/") == []


@pytest.mark.parametrize("name", ["model_index.json", "unet/config.json", "tokenizer/vocab.json"])
def test_import_when_a_document_is_damaged_says_which(name: str, model: Path, store: str, tmp_path: Path) -> None:
    (model / name).write_bytes(b"{cut off")

    with pytest.raises(BaseModelError, match=f"{name} is no JSON document"):
        import_base_model(str(model), store, tmp_path / "reference")


def test_import_when_interrupted_begins_where_it_was(
    hub_server: HubServer, model: Path, store: str, tmp_path: Path
) -> None:
    damaged = model / "vae" / "diffusion_pytorch_model.safetensors"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-10])
    hub_server.add_repository("owner/sd", model)
    with pytest.raises(BaseModelError):
        import_base_model("hf://owner/sd", store, tmp_path / "reference")
    stored = {info.key for info in open_store(store).list("blobs/")}
    damaged.write_bytes(whole)
    hub_server.add_repository("owner/sd", model)
    hub_server.requests.clear()

    reference = import_base_model("hf://owner/sd", store, tmp_path / "reference")

    fetched = {path.partition(f"{reference.revision}/")[2] for path in hub_server.downloads()}
    kept = {name for name, file in reference.files.items() if blob_key(file.sha256) in stored}
    assert "vae/diffusion_pytorch_model.safetensors" in fetched
    assert not {name for name in kept if name.endswith(".safetensors")} & fetched


@pytest.mark.parametrize("source", ["hf://owner", "hf://owner/name/part", "hf://owner/name@", "hf://"])
def test_import_when_the_hub_address_is_malformed_shows_the_form(source: str, store: str, tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match=r"expected hf://owner/name or hf://owner/name@revision"):
        import_base_model(source, store, tmp_path / "reference")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("hf://owner/absent", "there is no such repository, or it is private: .*HF_TOKEN"),
        ("hf://owner/sd@absent", "there is no such branch, tag or commit"),
        ("hf://owner/-bad..name", "Repo id must|HFValidationError"),
    ],
)
def test_import_when_the_hub_has_no_such_thing_says_so(
    source: str, expected: str, hub_server: HubServer, model: Path, store: str, tmp_path: Path
) -> None:
    hub_server.add_repository("owner/sd", model)

    with pytest.raises(BaseModelError, match=expected) as caught:
        import_base_model(source, store, tmp_path / "reference")
    assert "\n" not in str(caught.value)


def test_import_when_the_model_is_gated_needs_a_token(
    hub_server: HubServer, model: Path, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_server.token = "hf_secret"
    hub_server.add_repository("owner/sd", model)
    with pytest.raises(BaseModelError, match=r"granted on request: accept its conditions at .*HF_TOKEN"):
        import_base_model("hf://owner/sd", store, tmp_path / "reference")

    monkeypatch.setenv("HF_TOKEN", "hf_secret")

    assert sorted(import_base_model("hf://owner/sd", store, tmp_path / "reference").files) == DIFFUSION_FILES


def test_import_when_the_hub_stays_away_says_so(monkeypatch: pytest.MonkeyPatch, store: str, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv(retries.RETRY_SECONDS_VARIABLE, "0.8")

    with pytest.raises(StorageError, match="hf://owner/sd: no usable answer"):
        import_base_model("hf://owner/sd", store, tmp_path / "reference")


def test_import_when_the_hub_refuses_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, store: str, tmp_path: Path
) -> None:
    with running(AnsweringServer(400, b"{}")) as refusing:
        monkeypatch.setenv("HF_ENDPOINT", refusing.url)
        with pytest.raises(StorageError, match="the Hub refuses the request"):
            import_base_model("hf://owner/sd", store, tmp_path / "reference")
        assert len(refusing.requests) == 1


def test_import_when_the_folder_is_empty_hints_at_the_hub(store: str, tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="a model of the Hugging Face Hub is written hf://owner/name"):
        import_base_model("owner/name", store, tmp_path / "reference")


def test_import_when_the_scheme_is_unknown_names_those_expected(store: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="hf://"):
        import_base_model("ftp://host/model", store, tmp_path / "reference")


def test_command_when_run_imports_and_tells_how_far_it_is(model: Path, store: str, tmp_path: Path) -> None:
    done = _command("--source", str(model), "--store-uri", store, "--output", str(tmp_path / "reference"))

    assert done.returncode == 0, done.stderr
    assert "11 of 11 files" in done.stderr
    assert sorted(read_reference(tmp_path / "reference").files) == DIFFUSION_FILES


def test_command_when_the_model_is_incomplete_fails_in_one_line(model: Path, store: str, tmp_path: Path) -> None:
    (model / "unet" / "config.json").unlink()

    done = _command("--source", str(model), "--store-uri", store, "--output", str(tmp_path / "reference"))

    assert done.returncode == BaseModelError.exit_code
    assert "unet/config.json is missing" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def _command(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "components.import_base_model", *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_component_when_run_writes_the_reference_and_its_metadata(model: Path, store: str, tmp_path: Path) -> None:
    artifact = dsl.Model(uri=str(tmp_path / "reference"))

    import_component.python_func(
        ImportConfig(source=str(model), source_fingerprint=open_source(str(model)).revision, store_uri=store).to_json(),
        artifact,
    )

    reference = read_reference(tmp_path / "reference")
    assert artifact.metadata["digest"] == reference.digest
    assert artifact.metadata["revision"] == open_source(str(model)).revision


def test_hub_server_when_asked_by_snapshot_download_gives_the_repository(
    hub_server: HubServer, model: Path, tmp_path: Path
) -> None:
    commit = hub_server.add_repository("owner/sd", model)

    folder = snapshot_download("owner/sd", endpoint=hub_server.url, cache_dir=tmp_path / "cache")

    assert Path(folder).name == commit
    assert (Path(folder) / "unet" / "config.json").read_bytes() == (model / "unet" / "config.json").read_bytes()
