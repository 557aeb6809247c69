"""The encoding step as a command: `python -m components.encode_latents --help`."""

from __future__ import annotations

from pathlib import Path

from components.common.cli import CommandParser, add_config_flags, step_boundary
from components.encode_latents.config import EncodeConfig


def main() -> None:
    """Parses the flags and encodes."""
    parser = CommandParser(prog="python -m components.encode_latents", description=__doc__)
    parser.add_argument("--image-set", type=Path, required=True, help="folder of the ImageSet")
    parser.add_argument("--base-model", type=Path, required=True, help="folder of the base model's reference")
    parser.add_argument("--output", type=Path, required=True, help="folder for the LatentSet")
    add_config_flags(parser, EncodeConfig)
    arguments = parser.parse_args()
    with step_boundary("encode_latents"):
        from components.encode_latents.latents import encode_latents

        encode_latents(**vars(arguments))


if __name__ == "__main__":
    main()
