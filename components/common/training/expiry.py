"""Deletes the checkpoints of trainings that nobody has continued for a while, and what the trainings left beside them.

    python -m components.common.training.expiry --checkpoint-root gs://bucket/textual-inversion/checkpoints --days 30

A bucket's lifecycle rules do much the same, but take checkpoints one by one: here a training keeps all of its
checkpoints as long as the newest is young.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import logging
from collections.abc import Iterable

from components.common.cli import CommandParser, add_config_flags, config_from_flags, step_boundary
from components.common.options import Config, option
from components.common.storage import ObjectInfo, open_store
from components.common.training import beside
from components.common.training.checkpoints import CHECKPOINT_KEY

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExpiryConfig(Config):
    """What is deleted, and when; no training at work has a newest checkpoint of a day ago."""

    checkpoint_root: str = option("folder or gs:// or s3:// address for checkpoints, as the trainers have it")
    days: int = option(
        "age in days of a training's newest checkpoint from which on all of them are deleted", 30, least=1
    )
    dry_run: bool = option("say what would be deleted, and delete nothing", False)


def expire_checkpoints(config: ExpiryConfig, *, now: datetime.datetime | None = None) -> list[str]:
    """The addresses of what is deleted now, or with `dry_run` would be: checkpoints and what `beside` names alone.

    A training's oldest checkpoint goes first, so that whoever comes in between finds the newest or none; what lies
    beside them goes last, and then also where a rule of the bucket has taken the checkpoints before.

    Args:
        config: what is deleted, and when.
        now: the time to count from, with a time zone; the present if it is not given.

    Raises:
        StorageError: when storage does not do what was asked; the next call goes on from there.
    """
    store = open_store(config.checkpoint_root)
    limit = (now or datetime.datetime.now(datetime.UTC)) - datetime.timedelta(days=config.days)
    trainings = _by_training(store.list())
    deleted, expired = [], 0
    for training, kept in trainings.items():
        newest = max(info.modified or limit for info in kept.checkpoints or kept.beside)
        if newest >= limit:
            continue
        for info in (*kept.checkpoints, *kept.beside):
            if not config.dry_run:
                store.delete(info.key)
            deleted.append(store.uri_of(info.key))
        expired += len(kept.checkpoints)
        done = "would delete" if config.dry_run else "deleted"
        logger.info(
            "%s %d checkpoints of %s, the newest of %s", done, len(kept.checkpoints), training, newest.isoformat()
        )
    logger.info("%s: %d trainings, %d checkpoints expired", store.uri, len(trainings), expired)
    return deleted


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Kept:
    """What there is of one training: its checkpoints, oldest first, and what lies beside them."""

    checkpoints: list[ObjectInfo] = dataclasses.field(default_factory=list)
    beside: list[ObjectInfo] = dataclasses.field(default_factory=list)


def _by_training(listed: Iterable[ObjectInfo]) -> dict[str, _Kept]:
    """What there is of each training; what is called otherwise is left out."""
    found: dict[str, _Kept] = {}
    for info in sorted(listed, key=lambda info: info.key):
        if match := CHECKPOINT_KEY.fullmatch(info.key):
            found.setdefault(match["training"], _Kept()).checkpoints.append(info)
        elif training := beside.training_of(info.key):
            found.setdefault(training, _Kept()).beside.append(info)
    return found


def main() -> None:
    """Parses the flags and deletes."""
    parser = CommandParser(
        prog="python -m components.common.training.expiry",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_config_flags(parser, ExpiryConfig)
    arguments = parser.parse_args()
    with step_boundary("expiry"):
        expire_checkpoints(config_from_flags(ExpiryConfig, arguments))


if __name__ == "__main__":
    main()
