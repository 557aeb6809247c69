"""Which model is imported, and where to."""

from __future__ import annotations

import dataclasses

from components.common.base_model import MODEL_KINDS
from components.common.options import Config, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportConfig(Config):
    """What the step is told."""

    source: str = option("folder, gs://, s3:// or hf://owner/name[@revision] of the model")
    source_fingerprint: str = option(
        "state that the source must still have, from the preflight step, a commit on the Hub; empty: any", ""
    )
    store_uri: str = option("folder or bucket prefix of the model store")
    kind: str = option("what the model is", "diffusion", choices=MODEL_KINDS)
    variant: str = option("variant of the weight files, such as fp16; empty takes the plain ones", "")
