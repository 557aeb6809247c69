"""Where a concept is published, under which name, and which alias is to point at it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from components.common.champion import BETTER, NOT_WORSE
from components.common.errors import ConfigError
from components.common.model_license import is_license
from components.common.options import Config, option
from components.common.registry.names import check_alias, check_concept_name
from components.publish.destinations.config import DestinationOptions

ALWAYS, NEVER = "always", "never"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishOptions(Config):
    """Under which name a concept is published."""

    title = "Registry"

    concept_name: str = option(
        "the concept's folder in the registry; empty takes the placeholder without its brackets", ""
    )
    registry_alias: str = option(
        "alias moved to the new version unless it points at a newer one; empty moves none; candidate leaves it to a "
        "person to promote the candidate to champion",
        "champion",
    )
    also_bin: bool = option(
        "publish learned_embeds.bin, too, for programs that read no safetensors; it is pickled, which can run code "
        "when it is loaded",
        False,
    )
    license: str = option(
        "licence of the word, as the Hugging Face Hub calls it, such as creativeml-openrail-m; empty takes that of the "
        "base model where its card names one",
        "",
    )
    promote_if: str = option(
        "when the alias moves, by how the samples compare with those of the version that it points at, from the same "
        "prompts and seeds: not_worse, unless the 95% interval of the difference in CLIP-I, or in CLIP-I and CLIP-T "
        "together, lies below 0; better, if that of CLIP-I lies above 0, too, and on the same base model; neither "
        "where that version is for other text encoders; always, without comparing; never, for a person promotes",
        NOT_WORSE,
        choices=(BETTER, NOT_WORSE, ALWAYS, NEVER),
    )
    registry_gallery: bool = option(
        "write gallery.html beside the registry's concepts after publishing: one page over all of them", False
    )
    metrics_uri: str = option(
        "folder for CONCEPT.prom, what the last run came to in Prometheus' text format, as node_exporter's textfile "
        "collector and Pushgateway take it; empty writes none",
        "",
    )

    def find_mistakes(self) -> Iterable[str]:
        """See `Config.find_mistakes`."""
        for value, check in ((self.concept_name, check_concept_name), (self.registry_alias, check_alias)):
            try:
                if value:
                    check(value)
            except ConfigError as error:
                yield str(error)
        if self.license and not is_license(self.license):
            yield (
                f"license: found {self.license!r}, expected what the Hugging Face Hub calls it, such as "
                "creativeml-openrail-m or other"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishConfig(PublishOptions, DestinationOptions):
    """What the step is told: where a concept is published, under which name, where else, and by which run."""

    registry_uri: str = option("folder of the registry: gs://bucket/folder, s3://bucket/folder or a local path")
    run_id: str = option("the run that publishes, kept as lineage; empty when there is none", "")
    learned_from: Mapping[str, Any] = option(
        "what the run was given that determines the rows, as JSON by name, from the preflight step; none: not known", {}
    )

    def find_mistakes(self) -> Iterable[str]:
        """See `Config.find_mistakes`."""
        yield from super().find_mistakes()
        yield from DestinationOptions.find_mistakes(self)
        if not self.registry_uri:
            yield f"registry_uri: found {self.registry_uri!r}, expected the folder of a registry"
