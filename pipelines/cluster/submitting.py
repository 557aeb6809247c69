"""A run on a cluster: its options checked as preflight checks them, before anything is sent."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kfp_server_api

from components.common.errors import ClusterError, ConfigError
from components.common.prompts import concept_name
from pipelines.cluster.connection import Connection, filter_by_name, status_of
from pipelines.cluster.uploading import UploadedVersion
from pipelines.concepts_file import check_sent_options
from pipelines.form import as_form
from pipelines.local_run import parameter_names

EXPERIMENT = "Textual Inversion"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """A run as it is asked for.

    Attributes:
        parameters: of the pipeline, checked.
        experiment: the experiment's name.
        service_account: that the pods run as; empty: the installation's default.
        pipeline_root: where artifacts go; empty: the installation's default.
    """

    parameters: Mapping[str, Any]
    experiment: str = EXPERIMENT
    service_account: str = ""
    pipeline_root: str = ""


def checked_parameters(options: Mapping[str, Any], pipeline: Path) -> dict[str, Any]:
    """The parameters of a run, checked by what preflight checks of options, before anything is sent.

    Raises:
        ConfigError: when one cannot be right; see `check_sent_options`.
    """
    more = options.get("more_options")
    given = {name: value for name, value in options.items() if name != "more_options"}
    check_sent_options(given, more)
    if more is not None and not isinstance(more, Mapping):
        raise ConfigError(f"more_options: found {more!r}, expected options by name")
    return as_form({**given, **(more or {})}, parameter_names(pipeline))


def name_of_run(options: Mapping[str, Any]) -> str:
    """What a run is called when nobody says: the concept's name."""
    return str(options.get("concept_name") or concept_name(str(options["placeholder_token"])))


def submit(connection: Connection, version: UploadedVersion, request: Request, name: str) -> str:
    """The id of the run that was begun.

    Raises:
        ClusterError: when the API refuses. Where its answer was lost, the run may have begun: the message says so.
    """
    run = kfp_server_api.V2beta1Run(
        display_name=name,
        experiment_id=experiment_id(connection, request.experiment),
        pipeline_version_reference=reference(version),
        runtime_config=runtime(request),
        service_account=request.service_account or None,
    )
    try:
        made = connection.ask(f"creating the run {name}", connection.client.runs.run_service_create_run, run=run)
    except ClusterError as error:
        if status_of(error) is None:
            raise ClusterError(f"{error}; look by `status` first whether it runs already") from error
        raise
    return str(made.run_id)


def experiment_id(connection: Connection, name: str) -> str:
    """The id of the experiment of that name, which is made where there is none.

    Raises:
        ClusterError: when the API refuses.
    """
    found = next(_experiments(connection, name), None)
    if found is None:
        body = kfp_server_api.V2beta1Experiment(display_name=name, namespace=connection.namespace)
        try:
            found = connection.ask(
                f"creating the experiment {name}",
                connection.client.experiments.experiment_service_create_experiment,
                experiment=body,
            )
        except ClusterError:
            found = next(_experiments(connection, name), None)  # somebody else made it in the meantime
            if found is None:
                raise
    return str(found.experiment_id)


def _experiments(connection: Connection, name: str) -> Iterator[kfp_server_api.V2beta1Experiment]:
    return connection.pages(
        f"looking for the experiment {name}",
        connection.client.experiments.experiment_service_list_experiments,
        "experiments",
        filter=filter_by_name(name),
        **({"namespace": connection.namespace} if connection.namespace else {}),
    )


def reference(version: UploadedVersion) -> kfp_server_api.V2beta1PipelineVersionReference:
    """The version as the API names it."""
    return kfp_server_api.V2beta1PipelineVersionReference(
        pipeline_id=version.pipeline_id, pipeline_version_id=version.version_id
    )


def runtime(request: Request) -> kfp_server_api.V2beta1RuntimeConfig:
    """The parameters of a run as the API takes them."""
    return kfp_server_api.V2beta1RuntimeConfig(
        parameters=dict(request.parameters), pipeline_root=request.pipeline_root or None
    )
