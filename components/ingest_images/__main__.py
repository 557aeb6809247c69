r"""Reads example pictures, checks, crops and resizes them, and writes them as an image set.

    python -m components.ingest_images --output out/images \
        --images-uri hf://datasets/diffusers/cat_toy_example
    python -m components.ingest_images --output out/images \
        --images-uri gs://bucket/cat --resolution 768 --center-crop

Pictures end with .png .jpg .jpeg .webp .bmp .gif .tif or .tiff. A caption is a text file of the same name,
or a line {"file_name": "1.jpg", "text": "..."} of metadata.jsonl. Credentials come from the environment, as
usual for the store: GOOGLE_APPLICATION_CREDENTIALS, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, HF_TOKEN.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from components.common.cli import CommandParser, add_config_flags, config_from_flags, step_boundary
from components.ingest_images.config import IngestConfig


def main() -> None:
    """Parses the flags and prepares the pictures."""
    parser = CommandParser(
        prog="python -m components.ingest_images",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_config_flags(parser, IngestConfig)
    parser.add_argument("--output", type=Path, required=True, help="folder for the ImageSet")
    arguments = parser.parse_args()
    with step_boundary("ingest_images"):
        from components.ingest_images.ingest import ingest_images

        ingest_images(config_from_flags(IngestConfig, arguments), arguments.output)


if __name__ == "__main__":
    main()
