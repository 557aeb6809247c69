"""The training step compiled for TPUs that are not there: what it takes in memory, talks about, and computes.

Google's TPU compiler comes with PyPI's libtpu and needs no TPU (`jax.experimental.topologies`). Run it in an
environment with jax, flax, optax and libtpu: `python -m tests.benchmarks.tpu_aot`. Nothing is executed, so this says
nothing about speed.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import functools
import json
import math
import os
import re
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.experimental import topologies
from jax.extend.core import Jaxpr, jaxprs_in_params
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from components.common.families import FAMILIES, Family
from components.common.training.config import TrainConfig
from components.flax_models.clip_text import ClipTextEncoder
from components.flax_models.devices import DATA
from components.flax_models.loading import Loaded
from components.flax_models.module_configs import ClipTextConfig, UNetConfig
from components.flax_models.unet import UNet
from components.train.flax.micro_batches import memory_needed
from components.train.flax.step import Frozen, FrozenWord, Samples, StepFunction

RESULTS = Path(__file__).parent / "results"
HBM_GIB = {"v5e:2x2": 16, "v6e:2x2": 32}
"""Topologies of one host with 4 chips, and the memory of each chip."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """A base model of a family at the resolution it was trained at, by the sizes of its parts."""

    title: str
    family: Family
    texts: dict[str, ClipTextConfig]
    unet: UNetConfig
    latents: tuple[int, int, int]


_BY_NAME = {family.name: family for family in FAMILIES}
_CLIP_L = ClipTextConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12)
_CLIP_BIG_G = ClipTextConfig(
    hidden_size=1280,
    intermediate_size=5120,
    num_hidden_layers=32,
    num_attention_heads=20,
    hidden_act="gelu",
    projection_dim=1280,
    eos_token_id=2,
)
MODELS = {
    "sd15-512": Model(
        title="Stable Diffusion 1.5, 512 px",
        family=_BY_NAME["sd1"],
        texts={"text_encoder": _CLIP_L},
        unet=UNetConfig(cross_attention_dim=768),
        latents=(4, 64, 64),
    ),
    "sdxl-1024": Model(
        title="Stable Diffusion XL, 1024 px",
        family=_BY_NAME["sdxl"],
        texts={"text_encoder": _CLIP_L, "text_encoder_2": _CLIP_BIG_G},
        unet=UNetConfig(
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=(5, 10, 20),
            transformer_layers_per_block=(1, 2, 10),
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        ),
        latents=(4, 128, 128),
    ),
}
PICTURES, TEMPLATES, VECTORS = 5, 27, 1

_COLLECTIVES = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
_BYTES = {"f32": 4, "bf16": 2, "s32": 4, "u32": 4, "pred": 1}


def measure(model: Model, topology: str, batch: int, precision: str, remat: bool) -> dict[str, Any]:
    """What the compiler says of a model's step with `batch` samples a chip, or why it refuses."""
    devices = topologies.get_topology_desc(topology, platform="tpu").devices
    mesh = Mesh(np.array(devices), (DATA,))
    config = TrainConfig(train_batch_size=batch * len(devices), mixed_precision=precision, gradient_checkpointing=remat)
    dtype = jnp.bfloat16 if precision == "bf16" else jnp.float32
    function = StepFunction(
        config=config,
        mesh=mesh,
        text_encoders={
            used.part: _abstract(
                model.texts[used.part],
                functools.partial(ClipTextEncoder, model.texts[used.part], dtype, used, remat=remat),
            )
            for used in model.family.text_encoders
        },
        unet=_abstract(model.unet, lambda: UNet(model.unet, dtype, remat=remat)),
        first_id=_CLIP_L.vocab_size,
        scaling_factor=0.18215,
        v_prediction=False,
    )
    facts = {"topology": topology, "batch": batch, "precision": precision, "remat": remat}
    started = time.monotonic()
    traced = function.traced(*_arguments(model, function, mesh, config.train_batch_size))
    try:
        compiled = traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        return {**facts, "refused": str(error).strip().splitlines()[0]}
    memory = compiled.memory_analysis()
    return {
        **facts,
        "weights_gib": memory.argument_size_in_bytes / 2**30,
        "temporary_gib": memory.temp_size_in_bytes / 2**30,
        "total_gib": memory_needed(compiled) / 2**30,
        "tflop": flops(traced.jaxpr.jaxpr) / 1e12,
        "collectives": collective_bytes(compiled.as_text()),
        "compile_seconds": time.monotonic() - started,
    }


def flops(jaxpr: Jaxpr) -> float:
    """Floating-point operations of matrix products and convolutions on one device, in loops as often as these run.

    The compiler's own count takes a loop's body once.
    """
    total = 0.0
    for equation in jaxpr.eqns:
        operands: list[Any] = [variable.aval for variable in (*equation.invars, *equation.outvars)]
        if equation.primitive.name == "dot_general":
            left, _, product = operands
            (contracted, _), _ = equation.params["dimension_numbers"]
            total += 2.0 * product.size * math.prod(left.shape[axis] for axis in contracted)
        elif equation.primitive.name == "conv_general_dilated":
            _, kernel, output = operands
            total += 2.0 * output.size * kernel.size / kernel.shape[equation.params["dimension_numbers"].rhs_spec[0]]
        within = sum(flops(each) for each in jaxprs_in_params(equation.params))
        total += within * (equation.params["length"] if equation.primitive.name == "scan" else 1)
    return total


def collective_bytes(text: str) -> dict[str, int]:
    """Bytes that the collectives of a compiled function give, by kind."""
    found: dict[str, int] = {}
    for shapes, kind in re.findall(rf"= (.*?) ({_COLLECTIVES})(?:-start)?\(", text):
        for dtype, dimensions in re.findall(r"(\w+)\[([\d,]*)\]", shapes):
            count = int(np.prod([int(size) for size in dimensions.split(",") if size]))
            found[kind] = found.get(kind, 0) + count * _BYTES[dtype]
    return found


def _abstract(config: Any, build: Any) -> Loaded[Any]:
    definition, state = nnx.split(nnx.eval_shape(build))
    return Loaded(config, definition, state)


def _arguments(model: Model, function: StepFunction, mesh: Mesh, batch: int) -> tuple[Any, Any, Any, Any]:
    def like(shape: tuple[int, ...], dtype: Any = jnp.float32, spec: P | None = None) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec or P()))

    def everywhere(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: like(leaf.shape, leaf.dtype), tree)

    latents = like((PICTURES, 2, *model.latents))
    frozen = Frozen(
        text_encoders={part: everywhere(each.weights) for part, each in function.text_encoders.items()},
        unet=everywhere(function.unet.weights),
        alphas_cumprod=like((1000,)),
    )
    word = FrozenWord(
        means=latents,
        stds=latents,
        prompt_ids={
            part: like((TEMPLATES, text.max_position_embeddings), jnp.int32) for part, text in model.texts.items()
        },
        time_ids=like((PICTURES, 2, 6)) if model.family.time_ids else None,
    )
    rows = {part: jax.ShapeDtypeStruct((VECTORS, text.hidden_size), jnp.float32) for part, text in model.texts.items()}
    trained = everywhere(jax.eval_shape(function.initial, rows))
    cut = P(None, DATA)
    whole = [like((1, batch), jnp.int32, cut) for _ in range(4)]
    noise = like((1, batch, *model.latents), jnp.float32, cut)
    return frozen, (word,), (trained,), (Samples(*whole, posterior_noise=noise, diffusion_noise=noise),)


def table(rows: list[dict[str, Any]]) -> str:
    """The measurements as a Markdown table."""
    lines = [
        "| chips | samples a chip | precision | remat | arguments GiB | temporary GiB | total GiB | of the chip | "
        "TFLOP a step and chip | collectives, bytes |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        start = f"| {row['topology']} | {row['batch']} | {row['precision']} | {'yes' if row['remat'] else 'no'} |"
        if "refused" in row:
            lines.append(f"{start} | | does not fit | | | {row['refused'][:120]} |")
            continue
        share = row["total_gib"] / HBM_GIB[row["topology"]]
        collectives = ", ".join(f"{kind} {size}" for kind, size in row["collectives"].items())
        lines.append(
            f"{start} {row['weights_gib']:.2f} | {row['temporary_gib']:.2f} | {row['total_gib']:.2f} | {share:.0%} | "
            f"{row['tflop']:.2f} | {collectives} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Compiles for every topology, batch, and with and without recomputed activations; writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, default="sd15-512")
    parser.add_argument("--topologies", nargs="+", choices=HBM_GIB, default=list(HBM_GIB))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4], help="samples a chip (default: 1 4)")
    parser.add_argument("--precisions", nargs="+", choices=("no", "bf16"), default=["bf16"])
    arguments = parser.parse_args()
    rows = []
    for topology in arguments.topologies:
        for precision in arguments.precisions:
            for batch in arguments.batches:
                for remat in (False, True):
                    rows.append(measure(MODELS[arguments.model], topology, batch, precision, remat))
                    print(rows[-1], flush=True)
                    write(arguments.model, rows)
    print(table(rows))


def write(model: str, rows: list[dict[str, Any]]) -> None:
    """The table and its numbers under the results; compilations take minutes, so after each."""
    facts = {
        "date": datetime.date.today().isoformat(),
        "software": f"jax {jax.__version__}, libtpu {_libtpu_version()}",
        "model": f"{MODELS[model].title}, 1 vector, the whole training step",
        "note": "compiled ahead of time without a TPU; memory is the compiler's, FLOPs are counted, nothing was run",
    }
    text = "\n".join(["# The Flax training step, compiled for TPUs", "", *(f"- {k}: {v}" for k, v in facts.items())])
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"tpu-aot-{model}.md").write_text(f"{text}\n\n{table(rows)}\n")
    (RESULTS / f"tpu-aot-{model}.json").write_text(json.dumps({**facts, "measured": rows}, indent=1) + "\n")


def _libtpu_version() -> str:
    from importlib.metadata import version

    return version("libtpu")


if __name__ == "__main__":
    main()
