"""The lines of diffusers that draw a learned concept, as the model card and the report print them."""

from __future__ import annotations

from collections.abc import Collection

from components.common.artifacts import LEARNED_EMBEDS
from components.common.base_model import ModelReference
from components.common.families import families_with
from components.common.printable import literal, printable
from components.common.storage.addresses import local_path, scheme_of


def usual_prompt(learnable_property: str, placeholder_token: str) -> str:
    """A prompt that shows a concept of this kind, for where no sample's prompt is known."""
    template = "a painting in the style of {}" if learnable_property == "style" else "a photo of a {}"
    return template.replace("{}", placeholder_token)


def usage_script(
    reference: ModelReference,
    *,
    encoders: Collection[str],
    placeholder_token: str,
    prompt: str,
    num_inference_steps: int,
    guidance_scale: float,
    clip_skip: int = 0,
) -> str:
    """A script that runs as it is in the folder of the embedding, and draws `picture.png`.

    A base model that is neither on the Hub nor in a local folder has to be copied to one first.

    Args:
        reference: the base model.
        encoders: the text encoders that there are rows for.
        placeholder_token: what stands in the prompt.
        prompt: what to draw.
        num_inference_steps: denoising steps, as for the samples.
        guidance_scale: weight of guidance, as for the samples.
        clip_skip: how many of the text encoder's last layers the concept was learned without.
    """
    family = families_with(encoders)[0]
    by_key = [each for each in family.text_encoders if each.rows_key]
    lines = ["import torch", f"from diffusers import {family.pipeline}"]
    lines += ["from safetensors.torch import load_file", ""] if by_key else [""]
    lines += _loading(family.pipeline, reference)
    if by_key:
        lines.append(f'rows = load_file("{LEARNED_EMBEDS}")')
        lines += [
            f'pipeline.load_textual_inversion(rows["{each.rows_key}"], token={literal(placeholder_token)}, '
            f"text_encoder=pipeline.{each.part}, tokenizer=pipeline.{each.tokenizer})"
            for each in by_key
        ]
    else:
        lines.append(f'pipeline.load_textual_inversion("{LEARNED_EMBEDS}")')
    if clip_skip and family.text_encoders[0].final_norm:
        lines += [
            'if not hasattr(pipeline.text_encoder, "text_model"):  # as of transformers 5.6',
            '    object.__setattr__(pipeline.text_encoder, "text_model", pipeline.text_encoder)',
        ]
    lines.append(
        drawing_line(
            prompt, num_inference_steps=num_inference_steps, guidance_scale=guidance_scale, clip_skip=clip_skip
        )
    )
    return "\n".join(lines)


def drawing_line(
    prompt: str, *, num_inference_steps: int, guidance_scale: float, clip_skip: int = 0, negative_prompt: str = ""
) -> str:
    """The last line of a script: it draws `picture.png`.

    Args:
        prompt: what to draw.
        num_inference_steps: denoising steps.
        guidance_scale: weight of guidance.
        clip_skip: how many of the text encoder's last layers the concept was learned without.
        negative_prompt: what to keep out of the picture, such as a placeholder.
    """
    negative = f", negative_prompt={literal(negative_prompt)}" if negative_prompt else ""
    settings = f"num_inference_steps={num_inference_steps}, guidance_scale={guidance_scale:g}"
    skipped = f", clip_skip={clip_skip}" if clip_skip else ""
    return f'pipeline({literal(prompt)}{negative}, {settings}{skipped}).images[0].save("picture.png")'


def _loading(kind: str, reference: ModelReference) -> list[str]:
    comment = [] if reference.hub_repository else [f"# the base model of {printable(reference.repository)}"]
    arguments = [literal(reference.hub_repository or _folder(reference))]
    arguments += [f"revision={literal(reference.revision)}"] if reference.hub_repository else []
    arguments += [f"variant={literal(reference.variant)}"] if reference.variant else []
    # Without a type of its own, transformers keeps the one that its part is stored in, and diffusers takes float32.
    arguments.append("torch_dtype=torch.float32")
    return [
        *comment,
        f"pipeline = {kind}.from_pretrained(",
        f"    {', '.join(arguments)}",
        ').to("cuda" if torch.cuda.is_available() else "cpu")',
    ]


def _folder(reference: ModelReference) -> str:
    repository = reference.repository
    return str(local_path(repository)) if scheme_of(repository) == "file" else "path/to/base_model"
