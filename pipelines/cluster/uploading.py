"""The pipeline in the UI's list: uploaded once for each content, under a name that says which."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import kfp_server_api

from components import __version__
from components.common.errors import ClusterError
from pipelines.cluster.connection import Connection, filter_by_name, status_of
from pipelines.local_run import read_pipeline

_MAY_BE_THERE = (409, None)
"""What the API answers when somebody else was first: a conflict; or the answer to our own request was lost."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class UploadedVersion:
    """A version of a pipeline that the installation holds.

    Attributes:
        pipeline_id: of the pipeline.
        version_id: of the version.
        name: of the version.
        was_there: whether it had been uploaded before.
    """

    pipeline_id: str
    version_id: str
    name: str
    was_there: bool


def version_name(compiled: Path) -> str:
    """The name of the version that a compiled pipeline is: this release, and the first digits of its SHA-256."""
    return f"{__version__}-{hashlib.sha256(compiled.read_bytes()).hexdigest()[:12]}"


def upload(connection: Connection, compiled: Path) -> UploadedVersion:
    """The version of this very content: found, or uploaded with its description in Markdown.

    Two at once get the same one: the name is the content's, and whoever comes second finds it.

    Args:
        connection: the API.
        compiled: the pipeline's YAML file, its description beside it.

    Raises:
        ClusterError: when the API refuses.
    """
    found = look_up(connection, compiled)
    if found.was_there:
        return found
    description = compiled.with_suffix(".md").read_text(encoding="utf-8")
    pipeline_id = found.pipeline_id or _create_pipeline(connection, _pipeline_name(compiled), description)
    try:
        made = connection.ask(
            f"uploading the pipeline's version {found.name}",
            connection.client.pipeline_uploads.upload_pipeline_version,
            str(compiled),
            name=found.name,
            pipelineid=pipeline_id,
            description=description,
        )
    except ClusterError as error:
        made_by_others = _version_id(connection, pipeline_id, found.name) if status_of(error) in _MAY_BE_THERE else None
        if made_by_others is None:
            raise
        return dataclasses.replace(found, pipeline_id=pipeline_id, version_id=made_by_others, was_there=True)
    return dataclasses.replace(found, pipeline_id=pipeline_id, version_id=made.pipeline_version_id)


def look_up(connection: Connection, compiled: Path) -> UploadedVersion:
    """The version of this very content, with empty ids where it has not been uploaded; nothing is.

    Raises:
        ClusterError: when the API refuses.
    """
    name = version_name(compiled)
    pipeline_id = _pipeline_id(connection, _pipeline_name(compiled)) or ""
    found = _version_id(connection, pipeline_id, name) if pipeline_id else None
    return UploadedVersion(pipeline_id=pipeline_id, version_id=found or "", name=name, was_there=bool(found))


def _pipeline_name(compiled: Path) -> str:
    return str(read_pipeline(compiled)["pipelineInfo"]["name"])


def _create_pipeline(connection: Connection, name: str, description: str) -> str:
    """The id of the pipeline that was made, without versions yet."""
    pipeline = kfp_server_api.V2beta1Pipeline(
        display_name=name, name=name, description=description, namespace=connection.namespace
    )
    try:
        made = connection.ask(
            f"creating the pipeline {name}",
            connection.client.pipelines.pipeline_service_create_pipeline,
            pipeline=pipeline,
        )
    except ClusterError as error:
        found = _pipeline_id(connection, name) if status_of(error) in _MAY_BE_THERE else None
        if found is None:
            raise
        return found
    return str(made.pipeline_id)


def _pipeline_id(connection: Connection, name: str) -> str | None:
    pipelines = connection.pages(
        f"looking for the pipeline {name}",
        connection.client.pipelines.pipeline_service_list_pipelines,
        "pipelines",
        filter=filter_by_name(name),
        **({"namespace": connection.namespace} if connection.namespace else {}),
    )
    return next((str(found.pipeline_id) for found in pipelines), None)


def _version_id(connection: Connection, pipeline_id: str, name: str) -> str | None:
    versions = connection.pages(
        f"looking for the version {name}",
        connection.client.pipelines.pipeline_service_list_pipeline_versions,
        "pipeline_versions",
        pipeline_id=pipeline_id,
        filter=filter_by_name(name),
    )
    return next((str(found.pipeline_version_id) for found in versions if found.display_name == name), None)
