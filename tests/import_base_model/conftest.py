"""Servers for the tests of this folder."""

from __future__ import annotations

from tests.fixtures_servers import (  # noqa: F401 - pytest finds fixtures by name
    gcs_bucket_uri,
    gcs_server,
    hub_server,
    s3_bucket_uri,
    s3_server,
)
