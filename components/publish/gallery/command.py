"""The gallery as a subcommand of the registry's command."""

from __future__ import annotations

import argparse
from typing import Any

from components.common.printable import printable
from components.publish.gallery.page import GALLERY, write_gallery


def add_gallery_command(commands: Any) -> None:
    """Adds the subcommand `gallery` to argparse's subparsers; its `run` takes the parsed arguments."""
    parser = commands.add_parser(
        "gallery",
        help="write one web page over all concepts and versions",
        description="Writes one web page over all concepts and versions of a registry: what they look like, their "
        "scores and aliases, and how to use them.",
    )
    parser.add_argument("--registry-uri", required=True, help="folder of the registry")
    parser.add_argument(
        "--out",
        default=GALLERY,
        metavar="FILE",
        help=f"where to: a file, or an address such as gs://bucket/registry/{GALLERY} (default: %(default)s)",
    )
    parser.set_defaults(run=_write)


def _write(arguments: argparse.Namespace) -> None:
    print(printable(write_gallery(arguments.registry_uri, arguments.out)))
