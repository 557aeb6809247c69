"""The tiny autoencoder: 32 x 32 x 3 pictures to 16 x 16 x 4 latents and back."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from examples.sprites.captions import draw_captioned
from examples.sprites.progress import Progress
from examples.sprites.world import SIZE, Pictures

_LR = 2.5e-3
_BATCH = 16
_KL_WEIGHT = 5e-4
_ANCHOR_WEIGHT = 0.1


def to_tensor(pictures: Pictures) -> torch.Tensor:
    """Pictures uint8 ``(N, H, W, 3)`` as float32 ``(N, 3, H, W)`` in [-1, 1]."""
    return torch.tensor(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def train_vae(*, steps: int, pictures: int, seed: int) -> tuple[AutoencoderKL, list[float]]:
    """A trained autoencoder, its `scaling_factor` set so that latents have unit deviation, and its losses.

    L1 + squared error + KL, as Rombach et al. 2022 without the perceptual and adversarial terms. The anchor pulls the
    first three latent channels towards the shrunken picture: without it the latents of so short a training are rough,
    and the UNet takes several times as many steps to draw a shape.
    """
    torch.manual_seed(seed)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(16, 32),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=SIZE,
        mid_block_add_attention=False,
    )
    vae.quant_conv.bias.data[4:] -= 4.0  # begin with a small posterior variance
    data = to_tensor(draw_captioned(pictures, seed=seed + 1).pictures)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=_LR, weight_decay=0.0, betas=(0.9, 0.99))
    progress = Progress("vae", steps=steps, every=100)
    for step in range(steps):
        lr = _LR * min(1.0, (step + 1) / 50) * (0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * step / steps)))
        for group in optimizer.param_groups:
            group["lr"] = lr
        loss = _loss(vae, data[torch.randint(0, len(data), (_BATCH,))])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        progress.record(loss.item(), lr)
    vae.eval()
    with torch.no_grad():
        vae.register_to_config(scaling_factor=float(1 / vae.encode(data[:1000]).latent_dist.mean.std()))
    return vae, progress.losses


def _loss(vae: AutoencoderKL, x: torch.Tensor) -> torch.Tensor:
    posterior = vae.encode(x).latent_dist
    y = vae.decode(posterior.sample()).sample
    kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
    anchor = F.mse_loss(posterior.mean[:, :3], 2 * (F.avg_pool2d(x, 2) - 0.4))
    return F.l1_loss(y, x) + F.mse_loss(y, x) + _KL_WEIGHT * kl + _ANCHOR_WEIGHT * anchor
