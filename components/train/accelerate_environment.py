"""What `accelerate config` and accelerate's launcher have decided, as their environment variables say it."""

from __future__ import annotations

import os


def flag_defaults() -> dict[str, str]:
    """The defaults of `mixed_precision` and `accelerator` that the user gave `accelerate config` or its launcher."""
    defaults = {}
    if precision := os.environ.get("ACCELERATE_MIXED_PRECISION"):
        defaults["mixed_precision"] = precision
    if is_true("ACCELERATE_USE_CPU"):
        defaults["accelerator"] = "cpu"
    return defaults


def is_true(variable: str) -> bool:
    """Whether an environment variable is set to what accelerate takes for true."""
    return os.environ.get(variable, "").lower() in ("1", "true", "yes", "on", "y", "t")
