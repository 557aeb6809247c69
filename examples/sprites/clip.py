"""The tiny CLIP: one embedding for pictures and captions, at last able to tell captions apart by one word."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

from examples.sprites.captions import draw_captioned, random_caption, random_full_caption
from examples.sprites.progress import Progress
from examples.sprites.vae import to_tensor
from examples.sprites.world import COLOURS, PLACES, SHAPES, SIZE, TEXTURES, Attributes, is_held_out

HIDDEN_SIZE = 96
_PROJECTION = 64
_POSITIONS = 32
_LR = 1.5e-3
_ATTRIBUTE_SIZES = (len(COLOURS), len(TEXTURES), len(SHAPES), len(PLACES))


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> torch.Tensor:
    """Token ids int64 ``(N, model_max_length)``."""
    return tokenizer(
        captions, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    ).input_ids


def new_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """A CLIPModel with random weights for this tokenizer."""
    tower = {"hidden_size": HIDDEN_SIZE, "intermediate_size": 192, "num_attention_heads": 4}
    text = {
        **tower,
        "num_hidden_layers": 2,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": _POSITIONS,
        "projection_dim": _PROJECTION,
        # The pooled text feature sits at the first eos; the legacy default (2) takes the largest id instead, which
        # breaks as soon as a placeholder is added behind it.
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        **tower,
        "num_hidden_layers": 3,
        "image_size": SIZE,
        "patch_size": 4,
        "projection_dim": _PROJECTION,
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=_PROJECTION))


def image_processor() -> CLIPImageProcessor:
    """The preprocessing that belongs to this CLIP: 32 x 32, to [-1, 1]."""
    return CLIPImageProcessor(
        size={"shortest_edge": SIZE},
        crop_size={"height": SIZE, "width": SIZE},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )


def embed_pictures(model: CLIPModel, pixels: torch.Tensor) -> torch.Tensor:
    """Unit embeddings ``(N, 64)`` of pixels ``(N, 3, 32, 32)`` in [-1, 1]."""
    return F.normalize(model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output), dim=-1)


def embed_captions(model: CLIPModel, ids: torch.Tensor) -> torch.Tensor:
    """Unit embeddings ``(N, 64)`` of token ids ``(N, L)``."""
    return F.normalize(model.text_projection(model.text_model(input_ids=ids).pooler_output), dim=-1)


def one_attribute_changed(attributes: Attributes, rng: np.random.Generator) -> Attributes:
    """Four rows ``(4, 4)``: the row ``(4,)`` with another colour, another texture, another shape, another place.

    Held-out combinations never come up: as texts that are always wrong they would be taught to match nothing.
    """
    rows = np.tile(attributes, (4, 1))
    for column, size in enumerate(_ATTRIBUTE_SIZES):
        for value in rng.permutation(size):
            rows[column, column] = value
            if value != attributes[column] and not is_held_out(rows[column]):
                break
    return rows


def train_clip(
    tokenizer: CLIPTokenizer,
    *,
    steps: int,
    batch: int,
    pictures: int,
    hard_negatives: bool,
    seed: int,
    begin: CLIPModel | None = None,
) -> tuple[CLIPModel, list[float]]:
    """A CLIP trained from random weights, or on from `begin`, and its losses.

    The symmetric loss of Radford et al. 2021. With hard negatives each picture also sees four captions of its own that
    are wrong in exactly one attribute (only in its softmax over captions, so that they are nobody else's false
    negatives).
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed + 1)
    model = (begin or new_clip(tokenizer)).train()
    data = draw_captioned(pictures, seed=seed + 2)
    pixels = to_tensor(data.pictures)
    full = tokenize(tokenizer, [random_full_caption(row, rng) for row in data.attributes])
    loose = [
        tokenize(tokenizer, [random_caption(*pair, rng) for pair in zip(data.attributes, data.nouns, strict=True)])
        for _ in range(2)
    ]
    wrong = _wrong_captions(tokenizer, data.attributes, rng) if hard_negatives else full[:, None][:, :0]
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LR, weight_decay=0.02, betas=(0.9, 0.98))
    progress = Progress("clip", steps=steps, every=50)
    for step in range(steps):
        lr = _LR * min(1.0, (step + 1) / 60) * (0.5 + 0.5 * np.cos(np.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = lr
        chosen = torch.randperm(pictures)[:batch]
        captions = full if rng.random() < 0.6 else loose[rng.integers(len(loose))]
        loss = _loss(model, pixels[chosen], captions[chosen], wrong[chosen])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        progress.record(loss.item(), lr)
    return model.eval(), progress.losses


def _wrong_captions(tokenizer: CLIPTokenizer, attributes: Attributes, rng: np.random.Generator) -> torch.Tensor:
    """Token ids ``(N, 4, L)`` of captions that are wrong in one attribute each."""
    captions = [random_full_caption(w, rng) for row in attributes for w in one_attribute_changed(row, rng)]
    return tokenize(tokenizer, captions).reshape(len(attributes), len(_ATTRIBUTE_SIZES), -1)


def _loss(model: CLIPModel, pixels: torch.Tensor, right: torch.Tensor, wrong: torch.Tensor) -> torch.Tensor:
    """The loss of B pictures, their captions ``(B, L)`` and W wrong captions for each ``(B, W, L)``."""
    batch, wrongs = wrong.shape[:2]
    pictures = embed_pictures(model, pixels)
    captions = embed_captions(model, torch.cat([right, wrong.flatten(0, 1)]))
    scale = model.logit_scale.exp()
    logits = scale * pictures @ captions[:batch].T
    hard = scale * torch.einsum("bd,bwd->bw", pictures, captions[batch:].view(batch, wrongs, _PROJECTION))
    target = torch.arange(batch)
    return (F.cross_entropy(torch.cat([logits, hard], 1), target) + F.cross_entropy(logits.T, target)) / 2
