from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from markdown_it import MarkdownIt

from components.common.artifacts import Evaluation, LearnedEmbedding
from components.evaluate.report.summary import summary_markdown
from tests.evaluate.contents import learned_embedding

EVIL = "<img src=x onerror=alert(1)> | `a` [x](http://y)"


def evaluation(**changes) -> Evaluation:
    found = Evaluation(
        placeholder_token="<cat-toy>",
        passed=True,
        reasons=(),
        scores={
            "before": {"clip_i": 0.41, "clip_t": 0.30},
            "after": {"clip_i": 0.78, "clip_t": 0.29, "sharpness_x": 0.5},
            "older": {"clip_i": 0.1},
            "champion": {"clip_i": 0.7, "clip_t": 0.2},
        },
        settings={
            "norm_ratio": 2.61,
            "intervals": {"after": {"clip_i": [0.75, 0.81]}},
            "images_per_prompt": 8,
            "guidance_scale": 7.5,
        },
        samples=(),
        report_html="",
        learned_embedding_digest="c" * 64,
    )
    return dataclasses.replace(found, **changes)


def rendered(found: Evaluation, learned: LearnedEmbedding) -> str:
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(summary_markdown(found, learned))


def rows(markdown: str) -> list[str]:
    return [line.strip("| ") for line in markdown.splitlines() if line.startswith("| ") and "---" not in line]


@pytest.fixture(scope="module")
def learned() -> LearnedEmbedding:
    return learned_embedding()


def test_summary_tells_verdict_scores_and_what_was_chosen(learned: LearnedEmbedding) -> None:
    page = rendered(evaluation(), learned)
    assert "<h1><code>&lt;cat-toy&gt;</code>: ✓ accepted</h1>" in page
    assert "Learned in 200 steps from “toy”; its vector is 2.6 times as long" in page
    assert rows(summary_markdown(evaluation(), learned)) == [
        "CLIP-I | CLIP-T | sharpness x",
        "before training | 0.410 | 0.300",
        "learned concept | 0.780 (0.750 to 0.810) | 0.290 | 0.500",
        "the champion then | 0.700 | 0.200",
        "older | 0.100",
        "**gain** | **+0.370** | **-0.010**",
        "option | here | default",
        "`max_train_steps` | `200` | `5000`",
        "`learning_rate` | `0.0005` | `0.0001`",
        "`scale_lr` | `true` | `false`",
        "`evaluation_images_per_prompt` | `8` | `4`",
    ]


def test_summary_says_why_it_is_held_back_and_what_early_stopping_saved(learned: LearnedEmbedding) -> None:
    found = evaluation(passed=False, reasons=("CLIP-I 0.61 is below 0.70 (min_clip_i): train longer.",))
    stopped = dataclasses.replace(
        learned,
        config={**learned.config, "max_train_steps": 1500},
        fixed_batch_losses=np.array([0.4, 0.1], np.float32),
    )
    page = rendered(found, stopped)
    assert "✕ held back" in page and "<li>CLIP-I 0.61 is below 0.70 (min_clip_i): train longer.</li>" in page
    assert "200 steps of 1,500 (stopped early)" in page and "Nothing is published." in page


def test_summary_shows_foreign_text_as_it_is(learned: LearnedEmbedding) -> None:
    found = evaluation(placeholder_token=EVIL, reasons=(EVIL,), settings={"norm_ratio": 1.0, "negative_prompt": EVIL})
    page = rendered(found, dataclasses.replace(learned, lineage={"initializer_embedding": f"s3://b/{EVIL}"}))
    assert "<img" not in page and "<a " not in page
    assert page.count("&lt;img src=x onerror=alert(1)&gt;") >= 3
    assert "<code>evaluation_negative_prompt</code>" in page
