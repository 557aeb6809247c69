"""How a training is watched: nothing here changes what is learned, nor which checkpoints are its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from components.common.options import Config, option

TRACKERS = ("tensorboard", "wandb", "comet_ml")
NO_TRACKER, ALL_TRACKERS = "none", "all"


@dataclasses.dataclass(frozen=True, kw_only=True)
class WatchConfig(Config):
    """What a training shows while it runs."""

    title = "Watching"

    report_to: str = option(
        "who draws the curves: tensorboard, or wandb or comet_ml where the training image has them; all takes "
        "tensorboard and those of them that are installed",
        "tensorboard",
        choices=(NO_TRACKER, *TRACKERS, ALL_TRACKERS),
    )
    logging_dir: str = option(
        "folder or gs:// or s3:// address for TensorBoard's event files, a folder in it for each training; empty: "
        "beside the checkpoints",
        "",
    )
    validation_prompt: str = option(
        "prompt to draw while training, {} or the placeholder in it; empty draws nothing", "", free_text=True
    )
    num_validation_images: int = option("pictures to draw of validation_prompt at a time", 4, least=1)
    validation_steps: int = option("optimizer steps between two drawings of validation_prompt; 0: never", 100, least=0)

    @property
    def draws(self) -> bool:
        """Whether pictures are drawn while training."""
        return bool(self.validation_prompt.strip()) and self.validation_steps > 0

    @property
    def writes_event_files(self) -> bool:
        """Whether TensorBoard has something to show."""
        return self.report_to in (TRACKERS[0], ALL_TRACKERS)

    def find_mistakes(self) -> Iterable[str]:
        """See `Config.find_mistakes`."""
        if self.logging_dir and not self.writes_event_files:
            yield (
                f"logging_dir: found {self.logging_dir!r} with report_to {self.report_to}, expected tensorboard or all:"
                " it is where TensorBoard's event files go"
            )

    def prompt_for(self, placeholder_token: str) -> str:
        """The prompt to draw, with the placeholder in it."""
        return self.validation_prompt.replace("{}", placeholder_token)

    def mistakes_with(self, placeholder_token: str) -> Iterable[str]:
        """What does not fit the placeholder, as `field: found ..., expected ...`."""
        if self.draws and placeholder_token not in self.prompt_for(placeholder_token):
            yield (
                f"validation_prompt: found {self.validation_prompt!r}, expected a prompt with {{}} or "
                f"{placeholder_token} in it"
            )


WATCHED_BY_DEFAULT = WatchConfig()
"""How a training is watched of which nobody has said it."""
