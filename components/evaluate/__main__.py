"""The evaluating step as a command: `python -m components.evaluate --help`."""

from __future__ import annotations

from pathlib import Path

from components.common.cli import CommandParser, add_config_flags, config_from_flags, step_boundary
from components.evaluate.config import EvaluateConfig


def main() -> None:
    """Parses the flags and evaluates; prints `pass` or `fail`."""
    parser = CommandParser(prog="python -m components.evaluate", description=__doc__)
    parser.add_argument("--base-model", type=Path, required=True, help="folder of the base model's reference")
    parser.add_argument("--scorer", type=Path, required=True, help="folder of the reference to a CLIP model")
    parser.add_argument("--initial-embedding", type=Path, required=True, help="folder of the InitialEmbedding")
    parser.add_argument("--learned-embedding", type=Path, required=True, help="folder of the LearnedEmbedding")
    parser.add_argument(
        "--scoring-set", type=Path, required=True, help="folder of the ImageSet to compare the samples with"
    )
    parser.add_argument("--start-word", type=Path, help="folder of the StartWord, for the report")
    parser.add_argument(
        "--training-set", type=Path, help="folder of the ImageSet that was trained on, to tell copies of its pictures"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the Evaluation")
    add_config_flags(parser, EvaluateConfig)
    arguments = parser.parse_args()
    with step_boundary("evaluate"):
        from components.evaluate.evaluation import evaluate

        evaluation = evaluate(
            config_from_flags(EvaluateConfig, arguments),
            base_model=arguments.base_model,
            scorer=arguments.scorer,
            initial_embedding=arguments.initial_embedding,
            learned_embedding=arguments.learned_embedding,
            scoring_set=arguments.scoring_set,
            accelerator=arguments.accelerator,
            output=arguments.output,
            start_word=arguments.start_word,
            training_set=arguments.training_set,
        )
        print("pass" if evaluation.passed else "fail")


if __name__ == "__main__":
    main()
