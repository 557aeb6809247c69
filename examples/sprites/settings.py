"""What a setting changes: one recipe, one change at a time: `python -m examples.sprites.settings`.

Every row of the table is the recipe of `seeds.py` but for what its first column says, over the same seeds of the same
concept. So a row is read against the recipe's own: does it still learn, and how close does it come?
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.common.start_word import AUTO
from examples.sprites.concepts import CONCEPTS
from examples.sprites.learning import HERE, import_models
from examples.sprites.seeds import RECIPE, SeedResult, learn_seeds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """A change of the recipe.

    Attributes:
        name: what a person reads.
        changes: fields of the `TrainConfig` that differ.
        initializer_token: a word to start from; empty: the concept's own, which is far off.
    """

    name: str
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    initializer_token: str = AUTO


SETTINGS = (
    Setting(name="the recipe"),
    Setting(name="initializer_token: the concept's own, far off", initializer_token=""),
    Setting(name="initializer_token: photo, which says nothing", initializer_token="photo"),
    Setting(name="norm_control none", changes={"norm_control": "none", "max_embedding_norm": 0.0}),
    Setting(name="norm_control rescale", changes={"norm_control": "rescale"}),
    Setting(name="norm_control fixed", changes={"norm_control": "fixed", "max_embedding_norm": 0.0}),
    Setting(name="ema_decay 0.95", changes={"ema_decay": 0.95}),
    Setting(name="snr_gamma 5", changes={"snr_gamma": 5.0}),
    Setting(name="loss_type huber", changes={"loss_type": "huber"}),
    Setting(name="stratified_timesteps", changes={"stratified_timesteps": True}),
    Setting(name="noise_offset 0.1", changes={"noise_offset": 0.1}),
    Setting(name="max_grad_norm 0.01", changes={"max_grad_norm": 0.01}),
    Setting(name="timesteps 500 to 999", changes={"timestep_min": 500}),
)


def table(results: Mapping[str, Sequence[SeedResult]]) -> str:
    """A Markdown table: a row for each concept and setting, with the best and the worst of its seeds."""
    lines = [
        "| concept | setting | starts from | seeds learned | held-out loss before | after, best to worst | "
        "true caption |",
        "|---|---|---|---|---|---|---|",
    ]
    for concept in dict.fromkeys(result.concept for own in results.values() for result in own):
        for name, found in results.items():
            own = [result for result in found if result.concept == concept]
            after = sorted(result.after for result in own)
            lines.append(
                f"| {concept} | {name} | {own[0].start_word} | {sum(result.is_learned for result in own)} of {len(own)}"
                f" | {own[0].before:.3f} | {after[0]:.3f} to {after[-1]:.3f} | {own[0].true_caption:.3f} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Learns, prints a line a training, and writes the table and the numbers behind it."""
    parser = argparse.ArgumentParser(prog="python -m examples.sprites.settings", description=__doc__)
    concepts = ["green-dotted-triangle", "orange-striped-heart"]
    parser.add_argument("--concepts", nargs="+", default=concepts, choices=CONCEPTS, help="(default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, default=HERE / "settings.md", help="(default: %(default)s)")
    options = parser.parse_args()
    results: dict[str, list[SeedResult]] = {setting.name: [] for setting in SETTINGS}
    with tempfile.TemporaryDirectory() as scratch:
        models = import_models(Path(scratch))
        for number, setting in enumerate(SETTINGS):
            for name in options.concepts:
                concept = CONCEPTS[name]
                for result in learn_seeds(
                    concept,
                    models,
                    Path(scratch) / f"{number}-{name}",
                    seeds=options.seeds,
                    config=dataclasses.replace(RECIPE, **setting.changes),
                    initializer_token=setting.initializer_token or concept.initializer_token,
                ):
                    results[setting.name].append(result)
                    print(setting.name, json.dumps(dataclasses.asdict(result)), flush=True)
    options.out.write_text(f"{table(results)}\n", encoding="utf-8")
    numbers = {name: [dataclasses.asdict(result) for result in own] for name, own in results.items()}
    options.out.with_suffix(".json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    main()
