"""Trying again when object storage does not answer for a while."""

from __future__ import annotations

import logging
import math
import os
import random
import time
from collections.abc import Callable
from typing import TypeVar

from components.common.errors import ConfigError, StorageError, TextualInversionError

logger = logging.getLogger(__name__)

RETRY_SECONDS_VARIABLE = "TEXTUAL_INVERSION_RETRY_SECONDS"
"""Environment variable that says how many seconds one operation is tried for in all, before the step fails.

More where storage may be away for longer, as during an upgrade of the cluster; less to hear of a wrong address sooner.
"""
DEFAULT_RETRY_SECONDS = 90.0
"""Longer than a small storage server takes to restart."""
STORAGE_ADVICE = (
    "Check that the storage server is up and that its address (STORAGE_EMULATOR_HOST, AWS_ENDPOINT_URL) is right"
)
FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 10.0

Result = TypeVar("Result")


def _no_wait(error: Exception) -> float:
    return 0.0


def with_retries(
    uri: str,
    operation: Callable[[int], Result],
    translate: Callable[[Exception], Exception | None],
    *,
    asked_wait: Callable[[Exception], float] = _no_wait,
    advice: str = STORAGE_ADVICE,
) -> Result:
    """What `operation(attempt)` returns, tried again while its failures are transient.

    Attempts are counted from 1. Waits grow exponentially with jitter, and each one is a line in the log.
    `translate` gives None for a transient failure, the error to raise instead for any other, or the same
    error to leave it as it is. `asked_wait` gives the seconds that the server wants to be left alone for, and `advice`
    is what to do when the time is spent.

    Raises:
        StorageError: if the time that `retry_seconds` allows is spent.
        Exception: whatever `translate` gives.
    """
    allowed = retry_seconds()
    deadline = time.monotonic() + allowed
    delay = FIRST_DELAY_S
    attempt = 1
    while True:
        try:
            return operation(attempt)
        except TextualInversionError:
            raise
        except Exception as error:
            problem = translate(error)
            if problem is error:
                raise
            if problem is not None:
                raise problem from error
            wait = max(delay * random.uniform(0.5, 1.0), asked_wait(error))
            if time.monotonic() + wait > deadline:
                raise StorageError(
                    f"{uri}: no usable answer in {allowed:g} s and {attempt} attempts, the last one"
                    f" failed with: {one_line(error)}. {advice}, then run the step again"
                ) from error
            logger.warning("%s: %s; attempt %d, next in %.1f s", uri, one_line(error), attempt, wait)
        time.sleep(wait)
        delay = min(2 * delay, LONGEST_DELAY_S)
        attempt += 1


def retry_seconds() -> float:
    """How many seconds one operation is tried for: `RETRY_SECONDS_VARIABLE`, or the default where it is not set.

    Raises:
        ConfigError: when the variable is not a number of seconds.
    """
    given = os.environ.get(RETRY_SECONDS_VARIABLE)
    if not given:
        return DEFAULT_RETRY_SECONDS
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ConfigError(f"{RETRY_SECONDS_VARIABLE}: found {given!r}, expected a number of seconds, 0 or more")
    return seconds


def one_line(error: BaseException, *, longest: int = 300) -> str:
    """The type and message of an error as one line of a log."""
    return shortened(f"{type(error).__name__}: {error}", longest=longest)


def shortened(text: str, *, longest: int = 300) -> str:
    """A text on one line, cut where it is too long for a message."""
    text = " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 3] + "..."
