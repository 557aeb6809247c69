"""Where a run keeps what it shares with others, below its `storage_uri`."""

from __future__ import annotations


def models_uri(storage_uri: str) -> str:
    """Where base models are kept, by what is in them."""
    return _below(storage_uri, "models")


def checkpoints_uri(storage_uri: str) -> str:
    """Where training keeps its checkpoints, by what determines them."""
    return _below(storage_uri, "checkpoints")


def registry_uri(storage_uri: str) -> str:
    """Where concepts are published."""
    return _below(storage_uri, "registry")


def _below(storage_uri: str, name: str) -> str:
    return f"{storage_uri.rstrip('/')}/{name}"
