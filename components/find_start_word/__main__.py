"""The step that looks for the start word as a command: `python -m components.find_start_word --help`."""

from __future__ import annotations

from pathlib import Path

from components.common.cli import CommandParser, add_config_flags, config_from_flags, step_boundary
from components.find_start_word.config import FindStartWordConfig


def main() -> None:
    """Parses the flags, measures, and prints the word."""
    parser = CommandParser(prog="python -m components.find_start_word", description=__doc__)
    parser.add_argument("--image-set", type=Path, required=True, help="folder of the ImageSet")
    parser.add_argument("--latent-set", type=Path, required=True, help="folder of the LatentSet of the same pictures")
    parser.add_argument("--base-model", type=Path, required=True, help="folder of the base model's reference")
    parser.add_argument("--scorer", type=Path, required=True, help="folder of the reference to a CLIP model")
    parser.add_argument("--output", type=Path, required=True, help="folder for the StartWord")
    add_config_flags(parser, FindStartWordConfig)
    arguments = parser.parse_args()
    with step_boundary("find_start_word"):
        from components.find_start_word.find import find_start_word

        found = find_start_word(
            config_from_flags(FindStartWordConfig, arguments),
            image_set=arguments.image_set,
            latent_set=arguments.latent_set,
            base_model=arguments.base_model,
            scorer=arguments.scorer,
            output=arguments.output,
        )
        print(found.word)


if __name__ == "__main__":
    main()
