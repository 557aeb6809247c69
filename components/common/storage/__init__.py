"""One small interface to object storage: `open_store` takes gs://, s3://, file:// or a local folder."""

from __future__ import annotations

from components.common.storage.addresses import open_store, split_uri
from components.common.storage.store import ObjectInfo, ObjectStore

__all__ = ["ObjectInfo", "ObjectStore", "open_store", "split_uri"]
