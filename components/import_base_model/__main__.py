"""The import step as a command: `python -m components.import_base_model --help`."""

from __future__ import annotations

import argparse
from pathlib import Path

from components.common.base_model import MODEL_KINDS
from components.common.cli import step_boundary


def main() -> None:
    """Parses the flags and imports."""
    parser = argparse.ArgumentParser(prog="python -m components.import_base_model", description=__doc__)
    parser.add_argument(
        "--source",
        required=True,
        help="base model: folder, gs://, s3:// or hf://owner/name[@revision] (with HF_TOKEN, HF_ENDPOINT)",
    )
    parser.add_argument("--store-uri", required=True, help="model store: folder, gs:// or s3:// prefix")
    parser.add_argument("--output", type=Path, required=True, help="folder for the reference")
    parser.add_argument(
        "--kind",
        default="diffusion",
        choices=MODEL_KINDS,
        help="a diffusers pipeline or a CLIPModel of transformers (default: diffusion)",
    )
    parser.add_argument("--variant", default="", help="variant of the weights, such as fp16 (default: the plain ones)")
    parser.add_argument(
        "--source-fingerprint",
        default="",
        help="the commit or the listing's digest that has to be imported (default: whatever is there)",
    )
    arguments = parser.parse_args()
    with step_boundary("import_base_model"):
        from components.import_base_model.importing import import_base_model

        import_base_model(
            arguments.source,
            arguments.store_uri,
            arguments.output,
            kind=arguments.kind,
            variant=arguments.variant,
            revision=arguments.source_fingerprint,
        )


if __name__ == "__main__":
    main()
