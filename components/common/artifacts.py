"""The five artifacts that pass between the steps: one type, one writer and one reader each.

    pictures -> ImageSet -> LatentSet ---------\
    base model -> InitialEmbedding -------------> LearnedEmbedding -> Evaluation

Legend of shapes: H, W pixels; C, h, w latent channels and size; n vectors of the placeholder; d width of a
text encoder. Rows are kept by the text encoder's subfolder in the base model: `text_encoder`, and
`text_encoder_2` for SDXL.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from PIL import Image

from components.common.artifact_folder import ArtifactFolder, artifact_digest, read_artifact, table_of, write_artifact
from components.common.errors import ArtifactError
from components.common.tensors import read_float32

Rows = Mapping[str, np.ndarray]
"""Placeholder rows by text encoder: float32 [n, d] each."""

LEARNED_EMBEDS = "learned_embeds.safetensors"
"""The file name under which diffusers looks for a learned embedding by default."""

_UNNAMED_KEY = "emb_params"  # AUTOMATIC1111's, where the file's name is the word
_SDXL_KEYS = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """Where a prepared picture comes from and how it was cut.

    Attributes:
        source: its name relative to the folder or bucket it came from.
        caption: the caption that came with it, or None.
        original_size: (height, width) in pixels after EXIF orientation, before resizing.
        crop_top_left: (top, left) of the crop in the resized picture, in pixels.
        size: (height, width) in pixels of the prepared picture.
    """

    source: str
    caption: str | None
    original_size: tuple[int, int]
    crop_top_left: tuple[int, int]
    size: tuple[int, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Checked, cropped and resized pictures.

    Attributes:
        pictures: where each comes from.
        pixels: uint8 [H, W, 3] each, RGB.
        masks: uint8 [H, W] each, or None where the whole picture counts.
        digest: of the artifact it was read from.
        plain_digest: what `digest` were without captions and masks.
    """

    pictures: tuple[Picture, ...]
    pixels: tuple[np.ndarray, ...]
    masks: tuple[np.ndarray | None, ...]
    digest: str = ""
    plain_digest: str = ""

    KIND = "image-set"
    VERSION = 1

    def write(self, path: Path) -> ArtifactFolder:
        """Writes the pictures as PNG files under `path`."""
        files, records = {}, []
        for index, (picture, pixels, mask) in enumerate(zip(self.pictures, self.pixels, self.masks, strict=True)):
            record = {**dataclasses.asdict(picture), "file": f"pictures/{index:04d}.png", "mask_file": None}
            files[record["file"]] = _png(pixels)
            if mask is not None:
                record["mask_file"] = f"masks/{index:04d}.png"
                files[record["mask_file"]] = _png(mask)
            records.append(record)
        return write_artifact(path, kind=self.KIND, version=self.VERSION, content={"pictures": records}, files=files)

    @classmethod
    def read(cls, path: Path) -> ImageSet:
        """The image set at `path`. Raises `ArtifactError` when it is missing, damaged or something else."""
        folder = read_artifact(path, kind=cls.KIND, version=cls.VERSION)
        records = folder.content["pictures"]
        return cls(
            pictures=tuple(_record(Picture, record) for record in records),
            pixels=tuple(_pixels(path / record["file"]) for record in records),
            masks=tuple(_pixels(path / r["mask_file"]) if r["mask_file"] else None for r in records),
            digest=folder.digest,
            plain_digest=artifact_digest(
                kind=cls.KIND,
                version=cls.VERSION,
                content={"pictures": [{**record, "caption": None, "mask_file": None} for record in records]},
                table={record["file"]: folder.files[record["file"]] for record in records},
            ),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Latents:
    """A picture as the VAE's posterior, unscaled, and the same for its mirror image.

    Attributes:
        picture: the picture's record; the crop coordinates are those of the picture as it is.
        mean, std: float32 [C, h, w].
        flipped_mean, flipped_std: float32 [C, h, w], of the picture mirrored left to right.
        mask: float32 [h, w] in 0..1, weights of the loss, or None.
    """

    picture: Picture
    mean: np.ndarray
    std: np.ndarray
    flipped_mean: np.ndarray
    flipped_std: np.ndarray
    mask: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentSet:
    """The latents of every picture, made once and used by every trainer.

    A training sample is `(mean + std * posterior_noise) * scaling_factor`.

    Attributes:
        latents: of each picture.
        scaling_factor: the VAE's.
        base_model_digest: of the model whose VAE encoded them.
        image_set_digest: of the pictures.
        plain_image_set_digest: what that were without captions and masks; empty where it is the same.
        digest: of the artifact it was read from.
    """

    latents: tuple[Latents, ...]
    scaling_factor: float
    base_model_digest: str
    image_set_digest: str
    plain_image_set_digest: str = ""
    digest: str = ""

    KIND = "latent-set"
    VERSION = 1
    FILE = "latents.safetensors"
    TENSORS = ("mean", "std", "flipped_mean", "flipped_std", "mask")

    def write(self, path: Path) -> ArtifactFolder:
        """Writes all latents as one safetensors file under `path`."""
        content, files = self._content_and_files()
        return write_artifact(path, kind=self.KIND, version=self.VERSION, content=content, files=files)

    @property
    def training_digest(self) -> str:
        """The digest of what trainers read: `digest`, as it were without captions and masks, which none reads yet."""
        if all(each.picture.caption is None and each.mask is None for each in self.latents):
            return self.digest
        plain = dataclasses.replace(
            self,
            latents=tuple(
                dataclasses.replace(each, picture=dataclasses.replace(each.picture, caption=None), mask=None)
                for each in self.latents
            ),
            image_set_digest=self.plain_image_set_digest or self.image_set_digest,
            plain_image_set_digest="",
        )
        content, files = plain._content_and_files()
        return artifact_digest(kind=self.KIND, version=self.VERSION, content=content, table=table_of(files))

    def _content_and_files(self) -> tuple[dict[str, Any], dict[str, bytes]]:
        tensors, records = {}, []
        for index, latents in enumerate(self.latents):
            records.append({**dataclasses.asdict(latents.picture), "shape": list(latents.mean.shape)})
            for name in self.TENSORS:
                value = getattr(latents, name)
                if value is not None:
                    tensors[f"{index:04d}.{name}"] = np.ascontiguousarray(value, dtype=np.float32)
        content = {
            "pictures": records,
            "scaling_factor": self.scaling_factor,
            "base_model_digest": self.base_model_digest,
            "image_set_digest": self.image_set_digest,
        }
        if self.plain_image_set_digest not in ("", self.image_set_digest):  # sets without captions keep their digest
            content["plain_image_set_digest"] = self.plain_image_set_digest
        return content, {self.FILE: safetensors_bytes(tensors)}

    @classmethod
    def read(cls, path: Path) -> LatentSet:
        """The latent set at `path`. Raises `ArtifactError` when it is missing, damaged or something else."""
        folder = read_artifact(path, kind=cls.KIND, version=cls.VERSION)
        tensors = _tensors(path / cls.FILE)
        latents = [
            Latents(
                picture=_record(Picture, record),
                **{name: tensors.get(f"{index:04d}.{name}") for name in cls.TENSORS},  # type: ignore[arg-type]
            )
            for index, record in enumerate(folder.content["pictures"])
        ]
        return cls(
            latents=tuple(latents),
            scaling_factor=folder.content["scaling_factor"],
            base_model_digest=folder.content["base_model_digest"],
            image_set_digest=folder.content["image_set_digest"],
            plain_image_set_digest=folder.content.get("plain_image_set_digest", ""),
            digest=folder.digest,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class InitialEmbedding:
    """The placeholder's tokens and the rows that training starts from.

    Attributes:
        placeholder_token: what stands in a prompt, such as `<cat-toy>`.
        tokens: what it becomes: the placeholder itself, then `<cat-toy>_1`, ...; n of them.
        token_ids: their ids in the tokenizer after adding them.
        initializer_token: the word or words whose rows were copied.
        initializer_token_id: the id of the first.
        rows: float32 [n, d] by text encoder.
        base_model_digest: the model whose tokenizer and table were used.
        initializer_embedding: address of the learned embedding whose rows were copied instead; empty for words.
    """

    placeholder_token: str
    tokens: tuple[str, ...]
    token_ids: tuple[int, ...]
    initializer_token: str
    initializer_token_id: int
    rows: Rows
    base_model_digest: str
    initializer_embedding: str = ""
    digest: str = ""

    KIND = "initial-embedding"
    VERSION = 1
    FILE = "rows.safetensors"

    def write(self, path: Path) -> ArtifactFolder:
        """Writes the rows as safetensors under `path`."""
        content = _plain_fields(self, leaving_out=("rows", "digest"))
        if not self.initializer_embedding:  # embeddings that start from words keep their digest
            del content["initializer_embedding"]
        files = {self.FILE: safetensors_bytes(_float32(self.rows))}
        return write_artifact(path, kind=self.KIND, version=self.VERSION, content=content, files=files)

    @classmethod
    def read(cls, path: Path) -> InitialEmbedding:
        """The initial embedding at `path`. Raises `ArtifactError` when missing, damaged or something else."""
        folder = read_artifact(path, kind=cls.KIND, version=cls.VERSION)
        return _record(cls, {**folder.content, "rows": _tensors(path / cls.FILE), "digest": folder.digest})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The rows as they were after `step` optimizer steps: float32 [n, d] by text encoder."""

    step: int
    rows: Rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearnedEmbedding:
    """The learned rows, in the file that diffusers, AUTOMATIC1111 and ComfyUI load, with how they came to be.

    Attributes:
        placeholder_token: what stands in a prompt.
        tokens: what it becomes, n of them.
        initializer_token: the word or words that training started from.
        learnable_property: `object` or `style`.
        rows: the learned rows, float32 [n, d] by text encoder.
        initial_rows: the rows before training, alike.
        snapshots: the rows on the way, in order of steps.
        losses: float32 [steps], the mean loss of each optimizer step.
        fixed_batch_losses: float32 [looks], what early stopping has seen, the first of the initial rows; empty without.
        training_key: the digest of all that determines the rows.
        config: the training configuration by field name.
        lineage: digests and addresses of what was used: base model, image set, latent set, plan version and
            framework.
    """

    placeholder_token: str
    tokens: tuple[str, ...]
    initializer_token: str
    learnable_property: str
    rows: Rows
    initial_rows: Rows
    snapshots: tuple[Snapshot, ...]
    losses: np.ndarray
    training_key: str
    config: Mapping[str, Any]
    lineage: Mapping[str, Any]
    fixed_batch_losses: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.float32))
    digest: str = ""

    KIND = "learned-embedding"
    VERSION = 1
    HISTORY = "history.safetensors"
    TENSORS = ("rows", "initial_rows", "losses", "fixed_batch_losses")

    @property
    def steps(self) -> int:
        """How many optimizer steps were taken."""
        return len(self.losses)

    @property
    def origin(self) -> str:
        """What training started from, for a person: a word in quotation marks, or the file of an embedding."""
        existing = str(self.lineage.get("initializer_embedding", ""))
        return existing.rpartition("/")[2] if existing else f"“{self.initializer_token}”"

    @property
    def steps_saved(self) -> int:
        """How many optimizer steps early stopping has left out of those that were allowed; 0 without it."""
        return int(self.config["max_train_steps"]) - self.steps if len(self.fixed_batch_losses) else 0

    def write(self, path: Path) -> ArtifactFolder:
        """Writes the embedding, the two text files of the reference script, and the history under `path`."""
        history = {"losses": np.asarray(self.losses, np.float32)}
        if len(self.fixed_batch_losses):
            history["fixed_batch_losses"] = np.asarray(self.fixed_batch_losses, np.float32)
        history |= {f"initial.{name}": rows for name, rows in _float32(self.initial_rows).items()}
        for snapshot in self.snapshots:
            history |= {f"{snapshot.step:08d}.{name}": rows for name, rows in _float32(snapshot.rows).items()}
        files = {
            LEARNED_EMBEDS: learned_embeds_bytes(self.placeholder_token, self.rows, self._header()),
            self.HISTORY: safetensors_bytes(history),
            "token_identifier.txt": self.placeholder_token.encode(),
            "type_of_concept.txt": self.learnable_property.encode(),
        }
        content = _plain_fields(self, leaving_out=(*self.TENSORS, "snapshots", "digest"))
        content["text_encoders"] = sorted(self.rows)
        return write_artifact(path, kind=self.KIND, version=self.VERSION, content=content, files=files)

    @classmethod
    def read(cls, path: Path) -> LearnedEmbedding:
        """The learned embedding at `path`. Raises `ArtifactError` when missing, damaged or something else."""
        folder = read_artifact(path, kind=cls.KIND, version=cls.VERSION)
        history = _tensors(path / cls.HISTORY)
        encoders = folder.content["text_encoders"]
        steps = sorted({int(name.split(".")[0]) for name in history if name.split(".")[0].isdigit()})
        snapshots = [
            Snapshot(step=step, rows={name: history[f"{step:08d}.{name}"] for name in encoders}) for step in steps
        ]
        tensors = {
            "rows": read_learned_embeds(path / LEARNED_EMBEDS)[1],
            "initial_rows": {name: history[f"initial.{name}"] for name in encoders},
            "snapshots": tuple(snapshots),
            "losses": history["losses"],
            "fixed_batch_losses": history.get("fixed_batch_losses", np.zeros(0, np.float32)),
        }
        return _record(cls, {**folder.content, **tensors, "digest": folder.digest})

    def _header(self) -> dict[str, str]:
        return {
            "placeholder_token": self.placeholder_token,
            "initializer_token": self.initializer_token,
            "learnable_property": self.learnable_property,
            "steps": str(self.steps),
            "training_key": self.training_key,
            "lineage": json.dumps(dict(self.lineage), sort_keys=True),
        }


def learned_embeds_bytes(placeholder_token: str, rows: Rows, header: Mapping[str, str]) -> bytes:
    """A safetensors file that `load_textual_inversion` takes as it is.

    SD 1.x and 2.x: the placeholder is the single key (an extra key would break loading, so facts go into the
    header). SDXL: the keys `clip_l` and `clip_g`.
    """
    rows = _float32(rows)
    if set(rows) == {"text_encoder"}:
        tensors = {placeholder_token: rows["text_encoder"]}
    else:
        tensors = {_SDXL_KEYS[name]: value for name, value in rows.items()}
    return safetensors_bytes(tensors, header)


def safetensors_bytes(tensors: Mapping[str, np.ndarray], header: Mapping[str, str] | None = None) -> bytes:
    """The safetensors file of `tensors` with the facts `header`, the same bytes for the same data.

    The library writes the facts in an order that changes from process to process, and with it the digest.
    """
    data = safetensors.numpy.save(dict(tensors), metadata=dict(header) if header else None)
    length = int.from_bytes(data[:8], "little")
    described = json.loads(data[8 : 8 + length])
    if header:
        described["__metadata__"] = dict(sorted(header.items()))
    text = json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the format wants the tensors to begin at a multiple of 8 bytes
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def read_learned_embeds(file: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """The header, with `placeholder_token`, and the rows (float32 [n, d] by text encoder) of a learned-embedding file.

    The placeholder is the single key, as diffusers writes it. Where the keys are AUTOMATIC1111's (`emb_params`, or
    `clip_l` and `clip_g` for SDXL) and the header names none, it is the file's name, as there.

    Raises:
        ArtifactError: when the file is no such safetensors file.
    """
    tensors = read_float32(file)
    with safetensors.safe_open(file, framework="numpy") as opened:
        header = {"placeholder_token": file.stem, **(opened.metadata() or {})}
    encoders = {key: name for name, key in _SDXL_KEYS.items()}
    if set(tensors) == set(encoders):
        rows = {encoders[key]: value for key, value in tensors.items()}
    elif len(tensors) == 1 and not set(tensors) & set(encoders):
        [(key, value)] = tensors.items()
        header |= {} if key == _UNNAMED_KEY else {"placeholder_token": key}
        rows = {"text_encoder": value}
    else:
        raise ArtifactError(
            f"{file} has the keys {sorted(tensors)}, expected one placeholder token, {_UNNAMED_KEY}, "
            "or clip_l and clip_g"
        )
    for name, value in rows.items():
        if value.ndim not in (1, 2) or not value.size:
            raise ArtifactError(f"{file} has a tensor of shape {list(value.shape)} for {name}, expected [rows, width]")
    return header, {name: np.atleast_2d(value) for name, value in rows.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """One generated picture, uint8 [H, W, 3]: which embedding made it, from which prompt and seed."""

    variant: str
    prompt: str
    seed: int
    pixels: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What the learned concept looks like and how well it scores.

    Attributes:
        placeholder_token: the concept.
        passed: whether it may be published.
        reasons: one sentence for each thing that the gate looked at and did not accept; empty when passed.
        scores: `{"before": {"clip_i": .., "clip_t": ..}, "after": .., "true_caption": ..}`; the last one
            where asked for.
        settings: how the samples were drawn and scored.
        samples: the pictures.
        report_html: the report, one self-contained page.
        learned_embedding_digest: which embedding was looked at.
    """

    placeholder_token: str
    passed: bool
    reasons: tuple[str, ...]
    scores: Mapping[str, Mapping[str, float]]
    settings: Mapping[str, Any]
    samples: tuple[Sample, ...]
    report_html: str
    learned_embedding_digest: str
    digest: str = ""

    KIND = "evaluation"
    VERSION = 1
    REPORT = "report.html"

    def write(self, path: Path) -> ArtifactFolder:
        """Writes the report, the scores and the samples (PNG) under `path`."""
        content = _plain_fields(self, leaving_out=("samples", "report_html", "digest"))
        files = {
            self.REPORT: self.report_html.encode(),
            "scores.json": (json.dumps(content["scores"], indent=1, sort_keys=True) + "\n").encode(),
        }
        content["samples"] = []
        for index, sample in enumerate(self.samples):
            name = f"samples/{index:04d}-{sample.variant}.png"
            files[name] = _png(sample.pixels)
            content["samples"].append(
                {"variant": sample.variant, "prompt": sample.prompt, "seed": sample.seed, "file": name}
            )
        return write_artifact(path, kind=self.KIND, version=self.VERSION, content=content, files=files)

    @classmethod
    def read(cls, path: Path) -> Evaluation:
        """The evaluation at `path`. Raises `ArtifactError` when it is missing, damaged or something else."""
        folder = read_artifact(path, kind=cls.KIND, version=cls.VERSION)
        samples = [
            Sample(variant=s["variant"], prompt=s["prompt"], seed=s["seed"], pixels=_pixels(path / s["file"]))
            for s in folder.content["samples"]
        ]
        report = (path / cls.REPORT).read_text(encoding="utf-8")
        return _record(
            cls, {**folder.content, "samples": tuple(samples), "report_html": report, "digest": folder.digest}
        )


def _plain_fields(value: Any, *, leaving_out: Sequence[str]) -> dict[str, Any]:
    names = [field.name for field in dataclasses.fields(value) if field.name not in leaving_out]
    return {name: _plain(getattr(value, name)) for name in names}


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, tuple | list) else value


def _record(cls: type, record: Mapping[str, Any]) -> Any:
    names = {field.name for field in dataclasses.fields(cls)}
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in record.items() if k in names})


def _float32(rows: Rows) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in rows.items()}


def _png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def _pixels(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image)


def _tensors(file: Path) -> dict[str, np.ndarray]:
    try:
        return dict(safetensors.numpy.load_file(file))
    except (OSError, safetensors.SafetensorError) as error:
        raise ArtifactError(f"{file} is no safetensors file ({error}): make the artifact again") from error
