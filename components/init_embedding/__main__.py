r"""Adds a placeholder to a base model's tokenizer and writes the rows that training starts from.

    python -m components.init_embedding --base-model out/base_model --output out/initial_embedding \
        --placeholder-token '<cat-toy>' --initializer-token toy --num-vectors 2

The placeholder becomes <cat-toy>, <cat-toy>_1, ...: each a new token whose row is a copy of the initializer's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from components.common.cli import CommandParser, add_config_flags, config_from_flags, step_boundary
from components.init_embedding.config import InitConfig


def main() -> None:
    """Parses the flags and writes the initial embedding."""
    parser = CommandParser(
        prog="python -m components.init_embedding",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--base-model", type=Path, required=True, help="folder of the base model's reference")
    parser.add_argument("--start-word", type=Path, help="folder of the StartWord, for --initializer-token auto")
    add_config_flags(parser, InitConfig)
    parser.add_argument("--output", type=Path, required=True, help="folder for the InitialEmbedding")
    arguments = parser.parse_args()
    with step_boundary("init_embedding"):
        from components.init_embedding.initialize import init_embedding

        config = config_from_flags(InitConfig, arguments)
        init_embedding(
            config, base_model=arguments.base_model, output=arguments.output, start_word=arguments.start_word
        )


if __name__ == "__main__":
    main()
