"""Linear layers on a CPU, computed by oneDNN.

PyTorch hands a float32 linear layer to MKL, which leaves AVX-512 to Intel's processors. The same product as a 1x1
convolution goes to oneDNN, which uses what the processor has: on an AMD EPYC with AVX-512 twice as fast. On
Intel's, where MKL has AVX-512 too, it is slower, for a convolution first brings its weights into another layout: on a
Xeon 1.0 to 1.8 times as long, most where few rows meet large weights.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import nn


class PointwiseLinear(nn.Module):
    """A linear layer carried out as a 1x1 convolution, with the parameters of the `nn.Linear` that it stands for."""

    def __init__(self, linear: nn.Linear) -> None:
        """Takes over the parameters of `linear`."""
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The layer's output, [..., out], for `inputs`, float32 [..., in]."""
        vectors = inputs.reshape(1, -1, 1, inputs.shape[-1])
        as_picture = vectors.permute(0, 3, 1, 2)
        output = nn.functional.conv2d(as_picture, self.weight[:, :, None, None], self.bias)
        return output.permute(0, 2, 3, 1).reshape(*inputs.shape[:-1], -1)


def this_processor() -> str:
    """What Linux says of this machine's processor, /proc/cpuinfo; empty where there is no such file."""
    file = Path("/proc/cpuinfo")
    return file.read_text() if file.exists() else ""


def onednn_is_faster(processor: str) -> bool:
    """Whether linear layers are faster by oneDNN than as PyTorch computes them, on a processor (`this_processor`)."""
    vendor = re.search(r"^vendor_id\s*:\s*(\S+)", processor, re.MULTILINE)
    return torch.backends.mkl.is_available() and vendor is not None and vendor[1] != "GenuineIntel"


def with_pointwise_linears(module: nn.Module) -> None:
    """Replaces every linear layer inside `module`."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Linear:
                setattr(parent, name, PointwiseLinear(child))
