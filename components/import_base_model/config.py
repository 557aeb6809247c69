"""Which model is imported, and where to."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

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
    dino: str = option("DINO or DINOv2 model to import beside a CLIP model, as source; empty: none", "")
    dino_fingerprint: str = option("as source_fingerprint, of dino", "")
    safety_checker: str = option(
        "diffusion model whose safety checker is to be imported beside a CLIP model, as source; empty: none", ""
    )
    safety_checker_fingerprint: str = option("as source_fingerprint, of safety_checker", "")
    safety_checker_variant: str = option("as variant, of safety_checker", "")

    def find_mistakes(self) -> Iterable[str]:
        """See `Config.find_mistakes`."""
        for name in ("dino", "safety_checker"):
            if getattr(self, name) and self.kind != "clip":
                yield f"{name}: found {getattr(self, name)!r} with kind {self.kind}, expected it with kind clip"
