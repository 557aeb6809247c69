"""The import step as a command: `python -m components.import_base_model --help`.

Models of the Hugging Face Hub are asked for with HF_TOKEN and at HF_ENDPOINT where these are set.
"""

from __future__ import annotations

from pathlib import Path

from components.common.cli import CommandParser, add_config_flags, config_from_flags, step_boundary
from components.import_base_model.config import ImportConfig


def main() -> None:
    """Parses the flags and imports."""
    parser = CommandParser(prog="python -m components.import_base_model", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder for the reference")
    add_config_flags(parser, ImportConfig)
    arguments = parser.parse_args()
    with step_boundary("import_base_model"):
        from components.import_base_model.importing import import_models

        import_models(config_from_flags(ImportConfig, arguments), arguments.output)


if __name__ == "__main__":
    main()
