"""The reference's mathematics, written out plainly: the whole token-embedding tables are the parameters.

Follows the training loops of diffusers' examples/textual_inversion (`main` of textual_inversion.py and of
textual_inversion_sdxl.py): encode the pixels, sample the posterior, add noise, predict, mean squared error, AdamW over
the tables, then put every other row back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from components.common.artifacts import Picture
from components.common.training.sampling_plan import Batch


class ReferenceTrainer:
    """Trains `tokens` of the model in a folder as the reference script does, on given random draws."""

    text_encoder_classes: ClassVar[dict[str, Any]] = {"text_encoder": CLIPTextModel}

    def __init__(self, model: Path, tokens: list[str], initializer: str, learning_rate: float, decay: float) -> None:
        """Adds the tokens, resizes the tables, copies the initializer's rows, freezes all but the tables."""
        self.tokens = tokens
        self.vae = AutoencoderKL.from_pretrained(model / "vae").requires_grad_(False)
        self.unet = UNet2DConditionModel.from_pretrained(model / "unet").requires_grad_(False)
        self.scheduler = DDPMScheduler.from_pretrained(model / "scheduler")
        self.tokenizers, self.text_encoders = dict[str, Any](), dict[str, Any]()
        self.tables, self.before = dict[str, torch.Tensor](), dict[str, torch.Tensor]()
        for name, kind in self.text_encoder_classes.items():
            tokenizer = CLIPTokenizer.from_pretrained(model / name.replace("text_encoder", "tokenizer"))
            tokenizer.add_tokens(tokens)
            self.ids = tokenizer.convert_tokens_to_ids(tokens)
            text_encoder = kind.from_pretrained(model / name)
            text_encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
            text_encoder.requires_grad_(False)
            table = text_encoder.get_input_embeddings().weight.requires_grad_(True)
            initial = tokenizer.encode(initializer, add_special_tokens=False)[0]
            with torch.no_grad():
                for token_id in self.ids:
                    table[token_id] = table[initial].clone()
            self.tokenizers[name], self.text_encoders[name] = tokenizer, text_encoder
            self.tables[name], self.before[name] = table, table.detach().clone()
        self.optimizer = torch.optim.AdamW(self.tables.values(), lr=learning_rate, weight_decay=decay)

    def loss(
        self, batch: Batch, pixels: list[np.ndarray], templates: tuple[str, ...], pictures: list[Picture]
    ) -> torch.Tensor:
        """The loss of one batch of the plan, from pixels (uint8 [H, W, 3] per picture)."""
        chosen = [
            pixels[i][:, ::-1] if flip else pixels[i] for i, flip in zip(batch.picture, batch.flipped, strict=True)
        ]
        values = torch.from_numpy(np.stack(chosen)).permute(0, 3, 1, 2).float() / 127.5 - 1.0
        distribution = self.vae.encode(values).latent_dist
        latents = distribution.mean + distribution.std * torch.from_numpy(batch.posterior_noise)
        latents = latents * self.vae.config.scaling_factor
        noise, timestep = torch.from_numpy(batch.diffusion_noise), torch.from_numpy(batch.timestep)
        noisy = self.scheduler.add_noise(latents, noise, timestep)
        prompts = [templates[index].format(" ".join(self.tokens)) for index in batch.template]
        ids = {
            name: tokenizer(
                prompts,
                padding="max_length",
                truncation=True,
                max_length=tokenizer.model_max_length,
                return_tensors="pt",
            ).input_ids
            for name, tokenizer in self.tokenizers.items()
        }
        prediction = self.prediction(noisy, timestep, ids, [pictures[i] for i in batch.picture])
        if self.scheduler.config.prediction_type == "epsilon":
            target = noise
        else:
            target = self.scheduler.get_velocity(latents, noise, timestep)
        return torch.nn.functional.mse_loss(prediction.float(), target.float(), reduction="mean")

    def prediction(
        self, noisy: torch.Tensor, timestep: torch.Tensor, ids: dict[str, torch.Tensor], pictures: list[Picture]
    ) -> torch.Tensor:
        """What the UNet predicts for prompts of these ids."""
        hidden_states = self.text_encoders["text_encoder"](ids["text_encoder"])[0]
        prediction: torch.Tensor = self.unet(noisy, timestep, hidden_states).sample
        return prediction

    def step(
        self, batches: list[Batch], pixels: list[np.ndarray], templates: tuple[str, ...], pictures: list[Picture]
    ) -> dict[str, np.ndarray]:
        """One optimizer step accumulated over `batches`; gives the gradients of the trained rows, float32 [n, d]."""
        for batch in batches:
            (self.loss(batch, pixels, templates, pictures) / len(batches)).backward()
        gradients = {name: table.grad[self.ids].numpy().copy() for name, table in self.tables.items()}
        self.optimizer.step()
        self.optimizer.zero_grad()
        for name, table in self.tables.items():
            others = torch.ones(len(table), dtype=torch.bool)
            others[self.ids] = False
            with torch.no_grad():
                table[others] = self.before[name][others]
        return gradients

    @property
    def rows(self) -> dict[str, np.ndarray]:
        """The trained rows, float32 [n, d] by text encoder."""
        return {name: table.detach()[self.ids].numpy().copy() for name, table in self.tables.items()}


class SdxlReferenceTrainer(ReferenceTrainer):
    """The same as the script for SDXL: rows of both text encoders, the UNet told of pooled text, sizes and crops."""

    text_encoder_classes: ClassVar[dict[str, Any]] = {
        "text_encoder": CLIPTextModel,
        "text_encoder_2": CLIPTextModelWithProjection,
    }

    def prediction(
        self, noisy: torch.Tensor, timestep: torch.Tensor, ids: dict[str, torch.Tensor], pictures: list[Picture]
    ) -> torch.Tensor:
        """What the UNet predicts for prompts of these ids and pictures that are not cut at the sides."""
        first = self.text_encoders["text_encoder"](ids["text_encoder"], output_hidden_states=True)
        second = self.text_encoders["text_encoder_2"](ids["text_encoder_2"], output_hidden_states=True)
        time_ids = torch.tensor([[*each.original_size, *each.crop_top_left, *each.size] for each in pictures])
        prediction: torch.Tensor = self.unet(
            noisy,
            timestep,
            torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1),
            added_cond_kwargs={"text_embeds": second[0], "time_ids": time_ids.float()},
        ).sample
        return prediction
