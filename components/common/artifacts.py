"""The five artifacts that pass between the steps: one type, one writer and one reader each.

    pictures -> ImageSet -> LatentSet ---------\
    base model -> InitialEmbedding -------------> LearnedEmbedding -> Evaluation

Legend of shapes: H, W pixels; C, h, w latent channels and size; n vectors of the placeholder; d width of a
text encoder. Rows are kept by the text encoder's subfolder in the base model: `text_encoder`, and
`text_encoder_2` where a family has two.
"""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from PIL import Image

from components.common.artifact_folder import ArtifactFolder, artifact_digest, read_artifact, table_of, write_artifact
from components.common.errors import ArtifactError
from components.common.families import ROWS_KEYS, text_encoders_of
from components.common.tensors import read_float32, read_float32_and_facts

Rows = Mapping[str, np.ndarray]
"""Placeholder rows by text encoder: float32 [n, d] each."""

LEARNED_EMBEDS = "learned_embeds.safetensors"
"""The file name under which diffusers looks for a learned embedding by default."""

TOKEN_IDENTIFIER = "token_identifier.txt"
TYPE_OF_CONCEPT = "type_of_concept.txt"
"""The files of the reference script beside it: the placeholder, and what was learned."""

_CLIP_SKIP = "clip_skip"
_UNNAMED_KEY = "emb_params"  # AUTOMATIC1111's, where the file's name is the word


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
class _Pictures:
    """What the manifest of an image set or a latent set holds of its pictures: a `Picture` each, and more."""

    pictures: tuple[Mapping[str, Any], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _PictureFiles:
    """The files of a picture in an image set, by name."""

    file: str
    mask_file: str | None


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
        records = folder.record(_Pictures, folder.content).pictures
        files = [folder.record(_PictureFiles, record) for record in records]
        return cls(
            pictures=tuple(folder.record(Picture, record) for record in records),
            pixels=tuple(_pixels(folder.file(each.file), "RGB") for each in files),
            masks=tuple(_pixels(folder.file(each.mask_file), "L") if each.mask_file else None for each in files),
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
        tensors = _Tensors(folder, cls.FILE)
        latents = []
        for index, record in enumerate(folder.record(_Pictures, folder.content).pictures):
            shape = tensors.named(f"{index:04d}.mean", (None, None, None)).shape
            shapes = dict.fromkeys(cls.TENSORS, shape) | {"mask": shape[1:]}
            names = [name for name in cls.TENSORS if name != "mask" or f"{index:04d}.mask" in tensors.names]
            arrays = {name: tensors.named(f"{index:04d}.{name}", shapes[name]) for name in names}
            latents.append(Latents(picture=folder.record(Picture, record), **arrays))
        return folder.record(cls, folder.content, latents=tuple(latents), digest=folder.digest)


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
        tensors = _Tensors(folder, cls.FILE)
        rows = {name: tensors.named(name, (None, None)) for name in tensors.names}
        found = folder.record(cls, folder.content, rows=rows, digest=folder.digest)
        if not rows or {len(value) for value in rows.values()} | {len(found.token_ids)} != {len(found.tokens)}:
            raise folder.refusal(f"{len(found.tokens)} tokens, and other numbers of ids or rows")
        return found


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
    def clip_skip(self) -> int:
        """How many of the text encoder's last layers were left out, and are to be left out when it is drawn with."""
        return int(self.config.get("clip_skip", 0))

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
            LEARNED_EMBEDS: learned_embeds_bytes(
                self.placeholder_token, self.rows, self._header(), clip_skip=self.clip_skip
            ),
            self.HISTORY: safetensors_bytes(history),
            TOKEN_IDENTIFIER: self.placeholder_token.encode(),
            TYPE_OF_CONCEPT: self.learnable_property.encode(),
        }
        content = _plain_fields(self, leaving_out=(*self.TENSORS, "snapshots", "digest"))
        content["text_encoders"] = sorted(self.rows)
        return write_artifact(path, kind=self.KIND, version=self.VERSION, content=content, files=files)

    @classmethod
    def read(cls, path: Path) -> LearnedEmbedding:
        """The learned embedding at `path`. Raises `ArtifactError` when missing, damaged or something else."""
        folder = read_artifact(path, kind=cls.KIND, version=cls.VERSION)
        for name in (TOKEN_IDENTIFIER, TYPE_OF_CONCEPT):
            folder.file(name)
        rows = read_learned_embeds(folder.file(LEARNED_EMBEDS))[1]
        if sorted(rows) != folder.content.get("text_encoders"):
            raise folder.refusal(f"{LEARNED_EMBEDS} holds the rows of {', '.join(sorted(rows))}, text_encoders others")
        history = _Tensors(folder, cls.HISTORY)
        numbers = (re.match(r"[0-9]{8,18}(?=\.)", name) for name in history.names)
        steps = sorted({int(number[0]) for number in numbers if number})

        def rows_of(prefix: str) -> Rows:
            return {name: history.named(f"{prefix}.{name}", value.shape) for name, value in rows.items()}

        looks = "fixed_batch_losses"
        found = folder.record(
            cls,
            folder.content,
            rows=rows,
            initial_rows=rows_of("initial"),
            snapshots=tuple(Snapshot(step=step, rows=rows_of(f"{step:08d}")) for step in steps),
            losses=history.named("losses", (None,)),
            fixed_batch_losses=history.named(looks, (None,)) if looks in history.names else np.zeros(0, np.float32),
            digest=folder.digest,
        )
        if {len(value) for value in rows.values()} != {len(found.tokens)}:
            raise folder.refusal(f"{len(found.tokens)} tokens, and another number of rows")
        return found

    def _header(self) -> dict[str, str]:
        return {
            "placeholder_token": self.placeholder_token,
            "initializer_token": self.initializer_token,
            "learnable_property": self.learnable_property,
            "steps": str(self.steps),
            "training_key": self.training_key,
            "lineage": json.dumps(dict(self.lineage), sort_keys=True),
        }


def row_widths(rows: Rows) -> dict[str, int]:
    """How wide the rows of each text encoder are."""
    return {name: values.shape[1] for name, values in rows.items()}


def learned_embeds_bytes(placeholder_token: str, rows: Rows, header: Mapping[str, str], *, clip_skip: int = 0) -> bytes:
    """A safetensors file, as diffusers documents it for the model's family.

    SD 1.x and 2.x: `load_textual_inversion` takes it as it is; the placeholder is the single key (an extra key would
    break loading, so facts go into the header). SDXL: the keys `clip_l` and `clip_g`, each loaded by a call of its own.

    Args:
        placeholder_token: what stands in a prompt.
        rows: float32 [n, d] by text encoder.
        header: facts.
        clip_skip: how many of the text encoder's last layers the rows were learned without, for `read_clip_skip`.
    """
    keys = {each.part: each.rows_key or placeholder_token for each in text_encoders_of(rows)}
    skipped = {_CLIP_SKIP: str(clip_skip)} if clip_skip else {}
    return safetensors_bytes({keys[part]: value for part, value in _float32(rows).items()}, {**header, **skipped})


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
        ArtifactError: when the file is no such safetensors file, or has values that are not finite.
    """
    tensors, facts = read_float32_and_facts(file)
    header = {"placeholder_token": file.stem, **facts}
    named = {key for keys in ROWS_KEYS for key in keys}
    if found := ROWS_KEYS.get(frozenset(tensors)):
        rows = {found[key]: value for key, value in tensors.items()}
    elif len(tensors) == 1 and not set(tensors) & named:
        [(key, value)] = tensors.items()
        header |= {} if key == _UNNAMED_KEY else {"placeholder_token": key}
        rows = {"text_encoder": value}
    else:
        raise ArtifactError(
            f"{file} has the keys {sorted(tensors)}, expected one placeholder token, {_UNNAMED_KEY}, "
            f"or {' or '.join(' and '.join(sorted(keys)) for keys in ROWS_KEYS)}"
        )
    for name, value in rows.items():
        if value.ndim not in (1, 2) or not value.size:
            raise ArtifactError(f"{file} has a tensor of shape {list(value.shape)} for {name}, expected [rows, width]")
    counts = {name: len(np.atleast_2d(value)) for name, value in rows.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{count} for {name}" for name, count in sorted(counts.items()))
        raise ArtifactError(f"{file} has different numbers of rows ({told}), expected as many for each text encoder")
    return header, {name: np.atleast_2d(value) for name, value in rows.items()}


def read_clip_skip(file: Path) -> int:
    """How many of the text encoder's last layers a learned-embedding file wants left out; 0 where it does not say.

    Raises:
        ArtifactError: when the file is no such file, or says no number.
    """
    found = read_learned_embeds(file)[0].get(_CLIP_SKIP, "0")
    if not found.isdecimal():
        raise ArtifactError(f"{file} has the {_CLIP_SKIP} {found!r} in its header, expected a number of layers")
    return int(found)


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
    SCORES = "scores.json"
    SAMPLES = "samples/"

    def write(self, path: Path) -> ArtifactFolder:
        """Writes the report, the scores and the samples (PNG) under `path`."""
        content = _plain_fields(self, leaving_out=("samples", "report_html", "digest"))
        files = {
            self.REPORT: self.report_html.encode(),
            self.SCORES: (json.dumps(content["scores"], indent=1, sort_keys=True) + "\n").encode(),
        }
        content["samples"] = []
        for index, sample in enumerate(self.samples):
            name = f"{self.SAMPLES}{index:04d}-{sample.variant}.png"
            files[name] = _png(sample.pixels)
            content["samples"].append(
                {"variant": sample.variant, "prompt": sample.prompt, "seed": sample.seed, "file": name}
            )
        return write_artifact(path, kind=self.KIND, version=self.VERSION, content=content, files=files)

    @classmethod
    def read(cls, path: Path) -> Evaluation:
        """The evaluation at `path`. Raises `ArtifactError` when it is missing, damaged or something else."""
        folder = read_artifact(path, kind=cls.KIND, version=cls.VERSION)
        records = folder.record(_Samples, folder.content).samples
        folder.file(cls.SCORES)
        if strange := [each.file for each in records if not each.file.startswith(cls.SAMPLES)]:
            raise folder.refusal(f"the sample {strange[0]!r} is not below {cls.SAMPLES}")
        try:
            report = folder.file(cls.REPORT).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise folder.refusal(f"{cls.REPORT}: {error}") from error
        samples = [
            Sample(
                variant=each.variant, prompt=each.prompt, seed=each.seed, pixels=_pixels(folder.file(each.file), "RGB")
            )
            for each in records
        ]
        return folder.record(cls, folder.content, samples=tuple(samples), report_html=report, digest=folder.digest)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _SampleFile:
    """What the manifest of an evaluation holds of a sample."""

    variant: str
    prompt: str
    seed: int
    file: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Samples:
    """The samples in the manifest of an evaluation."""

    samples: tuple[_SampleFile, ...]


def _plain_fields(value: Any, *, leaving_out: Sequence[str]) -> dict[str, Any]:
    names = [field.name for field in dataclasses.fields(value) if field.name not in leaving_out]
    return {name: _plain(getattr(value, name)) for name in names}


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, tuple | list) else value


def _float32(rows: Rows) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in rows.items()}


def _png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def _pixels(file: Path, mode: str) -> np.ndarray:
    try:
        with Image.open(file, formats=("PNG",)) as image:
            if image.mode != mode:
                raise ArtifactError(
                    f"{file} is a picture of mode {image.mode}, expected {mode}: make the artifact again"
                )
            return np.asarray(image)
    except ArtifactError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever their parsing runs into
        raise ArtifactError(f"{file} is no PNG file ({error}): make the artifact again") from error


class _Tensors:
    """The tensors of an artifact's safetensors file, float32 and finite; the shape of each is checked when it is taken.

    Raises `ArtifactError` when the manifest does not list the file, or it is no such file.
    """

    def __init__(self, folder: ArtifactFolder, name: str) -> None:
        """Reads the file of that name."""
        self._file = folder.file(name)
        self._tensors = read_float32(self._file)
        self.names = tuple(self._tensors)

    def named(self, name: str, shape: Sequence[int | None]) -> np.ndarray:
        """The tensor `name`, whose sizes are those of `shape`; None stands for any size.

        Raises:
            ArtifactError: when it is missing or of another shape.
        """
        found = self._tensors.get(name)
        expected = f"[{', '.join('any' if size is None else str(size) for size in shape)}]"
        if found is None:
            raise ArtifactError(f"{self._file} has no {name}, expected {expected}: make the artifact again")
        sizes = zip(shape, found.shape, strict=False)
        if found.ndim != len(shape) or any(size not in (None, own) for size, own in sizes):
            raise ArtifactError(
                f"{self._file}: {name} has the shape {list(found.shape)}, expected {expected}: make the artifact again"
            )
        return found
