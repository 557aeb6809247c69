"""The reference's mathematics, written out plainly: the whole token-embedding table is the parameter.

Follows the training loop of diffusers' examples/textual_inversion/textual_inversion.py (`main`): encode the pixels,
sample the posterior, add noise, predict, mean squared error, AdamW over the table, then put every other row back.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from components.common.training.sampling_plan import Batch


class ReferenceTrainer:
    """Trains `tokens` of the model in a folder as the reference script does, on given random draws."""

    def __init__(self, model: Path, tokens: list[str], initializer: str, learning_rate: float, decay: float) -> None:
        """Adds the tokens, resizes the table, copies the initializer's row, freezes all but the table."""
        self.tokenizer = CLIPTokenizer.from_pretrained(model / "tokenizer")
        self.tokenizer.add_tokens(tokens)
        self.ids = self.tokenizer.convert_tokens_to_ids(tokens)
        self.tokens = tokens
        self.text_encoder = CLIPTextModel.from_pretrained(model / "text_encoder")
        self.vae = AutoencoderKL.from_pretrained(model / "vae").requires_grad_(False)
        self.unet = UNet2DConditionModel.from_pretrained(model / "unet").requires_grad_(False)
        self.scheduler = DDPMScheduler.from_pretrained(model / "scheduler")
        self.text_encoder.resize_token_embeddings(len(self.tokenizer), mean_resizing=False)
        self.text_encoder.requires_grad_(False)
        self.table = self.text_encoder.get_input_embeddings().weight.requires_grad_(True)
        initial = self.tokenizer.encode(initializer, add_special_tokens=False)[0]
        with torch.no_grad():
            for token_id in self.ids:
                self.table[token_id] = self.table[initial].clone()
        self.before = self.table.detach().clone()
        self.optimizer = torch.optim.AdamW([self.table], lr=learning_rate, weight_decay=decay)

    def loss(self, batch: Batch, pixels: list[np.ndarray], templates: tuple[str, ...]) -> torch.Tensor:
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
        ids = self.tokenizer(
            prompts,
            padding="max_length",
            truncation=True,
            max_length=self.tokenizer.model_max_length,
            return_tensors="pt",
        ).input_ids
        prediction = self.unet(noisy, timestep, self.text_encoder(ids)[0]).sample
        if self.scheduler.config.prediction_type == "epsilon":
            target = noise
        else:
            target = self.scheduler.get_velocity(latents, noise, timestep)
        return torch.nn.functional.mse_loss(prediction.float(), target.float(), reduction="mean")

    def step(self, batches: list[Batch], pixels: list[np.ndarray], templates: tuple[str, ...]) -> np.ndarray:
        """One optimizer step accumulated over `batches`; gives the gradient of the trained rows, float32 [n, d]."""
        for batch in batches:
            (self.loss(batch, pixels, templates) / len(batches)).backward()
        gradient = self.table.grad[self.ids].numpy().copy()
        self.optimizer.step()
        self.optimizer.zero_grad()
        others = torch.ones(len(self.table), dtype=torch.bool)
        others[self.ids] = False
        with torch.no_grad():
            self.table[others] = self.before[others]
        return gradient

    @property
    def rows(self) -> np.ndarray:
        """The trained rows, float32 [n, d]."""
        return self.table.detach()[self.ids].numpy().copy()
