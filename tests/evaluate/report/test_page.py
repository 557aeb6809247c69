from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from components.common.artifacts import Sample
from components.common.errors import TextualInversionError
from components.common.start_word import StartWord
from components.common.usage import usage_script
from components.evaluate.config import EvaluateConfig
from components.evaluate.report.page import render_report
from components.evaluate.report.view import ReportContent
from tests.evaluate.contents import image_set, learned_embedding, report_content

EVIL = '<script>alert("x")</script>\'&{{ 7 * 7 }}'
VOID = {"meta", "link", "img", "br", "wbr"}


class Page(HTMLParser):
    """The elements of a page, checked to be closed in order; drawings and pictures count as elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def content() -> ReportContent:
    config = EvaluateConfig(
        prompts=("a photo of a {}", "a {} on the beach"), reference_prompt="purple star", images_per_prompt=3
    )
    return report_content(config, learned=learned_embedding(vectors=2))


@pytest.fixture(scope="module")
def page(content) -> Page:
    return Page(render_report(content))


def test_report_names_the_concept_and_the_verdict(page):
    text = " ".join(page.text.split())

    assert "<cat-toy>" in text and "<cat-toy>_1" in text
    assert "Accepted: it may be published" in text
    assert "starting from “toy”" in text
    assert "5 pictures in 200 training steps" in text


def test_report_needs_nothing_else(page):
    fetched = [
        attributes.get("src") or attributes.get("href") for tag in ("img", "link") for attributes in page.all(tag)
    ]
    assert fetched and all(address.startswith("data:") for address in fetched)
    assert not {tag for tag, _ in page.elements} & {"script", "iframe", "object", "embed", "form", "base"}
    [policy] = [a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")


def test_report_shows_every_picture_with_a_text(page, content):
    texts = [attributes["alt"] for attributes in page.all("img")]
    variants = sum(len(samples) for samples in content.drawn.variants.values())

    assert all(texts)
    assert sum(text.startswith("before training: ") for text in texts) == 6
    assert sum(text.startswith("true caption: a photo of a purple star, seed ") for text in texts) == 3
    assert sum(text.startswith("picture of the concept: ") for text in texts) == 5
    assert [int(text.split()[1]) for text in texts if re.match(r"after \d+ steps", text)] == [
        0, 25, 50, 75, 100, 125, 150, 175, 200,
    ]  # fmt: skip
    assert len(texts) == variants + 5 + 5 + 9


def test_report_scales_tiny_pictures_with_hard_pixels():
    assert all(a.get("class") == "tiny" for a in Page(render_report(report_content(size=32))).all("img"))
    assert not any("class" in a for a in Page(render_report(report_content(size=128))).all("img"))


def test_report_shows_how_to_use_the_concept(page, content):
    lines = usage_script(
        content.reference,
        encoders=["text_encoder"],
        placeholder_token="<cat-toy>",
        prompt="a photo of a <cat-toy>",
        num_inference_steps=content.config.num_inference_steps,
        guidance_scale=content.config.guidance_scale,
    )
    assert lines in page.text
    assert 'pipeline.load_textual_inversion("learned_embeds.safetensors")' in page.text
    assert '"owner/model", revision="abc", torch_dtype=torch.float32' in page.text
    assert 'pipeline("a photo of a <cat-toy>"' in page.text
    assert "embeddings/cat-toy.safetensors" in page.text
    assert "a photo of a embedding:cat-toy" in page.text


def test_report_tells_parameters_and_lineage(page):
    for shown in ("learning_rate", "0.0005", "scale_lr", "training_key", "b" * 64, "c" * 64, "hf://owner/model"):
        assert shown in page.text, shown


def test_report_says_what_was_compared_with(content):
    same = render_report(content)
    other = render_report(dataclasses.replace(content, scoring_set=image_set(digest="e" * 64)))

    assert "the pictures that it was trained on" in same
    assert "the pictures that it was trained on" not in other
    assert "pictures that samples are compared with" in other


def test_report_when_the_concept_did_not_pass():
    content = report_content(EvaluateConfig(min_clip_i=0.95))
    text = Page(render_report(content)).text

    assert "Held back: it is not published" in text
    assert "below the 0.95 asked for (min_clip_i)" in text
    assert "Accepted" not in text


def test_report_when_nothing_was_trained():
    content = report_content(learned=learned_embedding(steps=0))
    text = Page(render_report(content)).text

    assert "No training steps were taken" in text
    assert "the concept is untrained" in text


def test_report_when_rows_are_not_finite():
    learned = learned_embedding()
    learned = dataclasses.replace(learned, rows={"text_encoder": learned.rows["text_encoder"] * np.nan})
    text = Page(render_report(report_content(learned=learned))).text

    assert "there is nothing to compare" in text
    assert "training diverged" in text


def test_report_escapes_what_users_wrote():
    token = "<script>alert('x')</script>"
    learned = learned_embedding(token=token, initializer=EVIL)
    learned = dataclasses.replace(learned, config={EVIL: EVIL}, lineage={"base_model": EVIL})
    allowed = EVIL.replace("{{ 7 * 7 }}", "{% raw %}")
    prompts = ("a photo of a {} " + allowed, '"><img src=x onerror=alert(1)> {}')
    config = EvaluateConfig(prompts=prompts, reference_prompt=allowed, negative_prompt=allowed)
    rendered = render_report(report_content(config, learned=learned, base_model=EVIL))
    page = Page(rendered)

    assert "<script" not in rendered
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert all(a["src"].startswith("data:") for a in page.all("img"))
    assert page.text.count("{{ 7 * 7 }}") > 5 and page.text.count("{% raw %}") > 5, "a template's braces are text"


def noisy(content: ReportContent) -> ReportContent:
    """The same with samples of noise, which nothing compresses."""
    rng = np.random.default_rng(0)

    def noise(found: Sample) -> Sample:
        return dataclasses.replace(found, pixels=rng.integers(0, 255, found.pixels.shape, dtype=np.uint8))

    variants = {name: tuple(noise(s) for s in samples) for name, samples in content.drawn.variants.items()}
    return dataclasses.replace(content, drawn=dataclasses.replace(content.drawn, variants=variants))


def test_report_is_never_too_large():
    config = EvaluateConfig(prompts=("a {}", "the {}"), images_per_prompt=12)
    rendered = render_report(noisy(report_content(config, size=256)), max_bytes=900_000)

    assert 100_000 < len(rendered.encode()) <= 900_000
    assert "Shown are the first 8 of 12 seeds" in Page(rendered).text
    assert len([a for a in Page(rendered).all("img") if a["alt"].startswith("before training")]) == 2 * 8


def test_report_makes_pictures_no_smaller_than_needed():
    rendered = render_report(report_content(EvaluateConfig(images_per_prompt=1), size=512))
    assert {a["width"] for a in Page(rendered).all("img")} == {"512"}


def test_report_when_it_cannot_be_made_small_enough(content):
    with pytest.raises(TextualInversionError, match="expected at most 10000: evaluate with fewer prompts"):
        render_report(content, max_bytes=10_000)


def test_report_of_many_prompts_shows_the_first():
    config = EvaluateConfig(prompts=tuple(f"a {{}} number {n}" for n in range(40)), images_per_prompt=1)
    text = " ".join(Page(render_report(report_content(config))).text.split())

    assert "Shown are the first 24 of 40 prompts" in text
    assert "number 23" in text
    assert "a <cat-toy> number 24" not in text


def test_report_is_the_same_for_the_same_content(content):
    assert render_report(content) == render_report(content)


def start_word(**changes) -> StartWord:
    found = StartWord(
        word="star",
        was_given=False,
        template="a photo of a {}",
        loss=0.125,
        no_word_loss=0.25,
        best={"star": 0.125, "purple": 0.2},
        base_model_digest="a" * 64,
        latent_set_digest="b" * 64,
    )
    return dataclasses.replace(found, **changes)


def test_page_shows_the_words_that_were_looked_at_and_no_word_at_all(content):
    assert "Where it began" not in render_report(content)
    text = render_report(dataclasses.replace(content, start_word=start_word()))
    page = Page(text)
    widths = [each["style"] for each in page.all("div") if each.get("class") == "bar"]
    assert widths == ["width: 50.0%", "width: 80.0%", "width: 100.0%"]
    assert "“star” was found to explain the pictures best" in page.text
    for told in ("“purple”0.200", "no word at all0.250"):
        assert told in page.text


def test_page_says_when_a_given_word_explains_less_than_none(content):
    given = start_word(word="circle", was_given=True, loss=0.3, best={})
    text = Page(render_report(dataclasses.replace(content, start_word=given))).text
    assert "“circle” was given, so no other word was looked for; it explains the pictures worse than no word" in text


def test_page_says_where_early_stopping_ended_the_training_and_what_it_saved(content):
    assert "stopped early" not in render_report(content)
    learned = dataclasses.replace(
        content.learned,
        config={**content.learned.config, "max_train_steps": 1500},
        fixed_batch_losses=np.array([0.4, 0.2, 0.125], np.float32),
    )
    text = Page(render_report(dataclasses.replace(content, learned=learned))).text
    assert "after step 200 and saved 1,300 of 1,500 steps" in text
    assert "0.400 before training, had settled at 0.125" in text


def test_page_names_the_embedding_that_training_started_from(content):
    lineage = {**content.learned.lineage, "initializer_embedding": "gs://bucket/old.safetensors"}
    text = Page(
        render_report(dataclasses.replace(content, learned=dataclasses.replace(content.learned, lineage=lineage)))
    ).text
    assert "starting from old.safetensors" in text and "over old.safetensors" in text and "over “toy”" not in text


def test_page_draws_the_learning_rate_where_it_changes(content):
    assert "Learning rate share of its peak" not in Page(render_report(content)).text
    learned = dataclasses.replace(
        content.learned, config={**content.learned.config, "lr_scheduler": "cosine", "lr_warmup_steps": 50}
    )
    page = Page(render_report(dataclasses.replace(content, learned=learned)))
    assert "Learning rate share of its peak, by optimizer step; cosine" in " ".join(page.text.split())
    assert any("peak: 0.00 at the first and 0.00 at the last" in str(a.get("aria-label")) for a in page.all("div"))


def test_page_draws_what_early_stopping_has_seen(content):
    learned = dataclasses.replace(
        content.learned,
        config={**content.learned.config, "early_stopping_every": 50},
        fixed_batch_losses=np.array([0.4, 0.3, 0.2, 0.19, 0.125], np.float32),
    )
    page = Page(render_report(dataclasses.replace(content, learned=learned)))
    assert "Early stopping was on and saved nothing" in page.text
    assert [a["title"] for a in page.all("div") if "title" in a][:5] == [
        f"{loss:.3f} after {step} steps"
        for step, loss in zip(range(0, 250, 50), learned.fixed_batch_losses, strict=True)
    ]


def test_page_tells_the_options_that_are_not_at_their_defaults(content):
    text = Page(render_report(content)).text
    chosen = text.partition("What was chosen")[2].partition("Where it comes from")[0].partition("\n  \n")[0]
    told = " ".join(chosen.split())
    assert "learning_ratelearning rate before scale_lr0.00050.0001" in told
    assert "evaluation_reference_prompt" in told and "purple star" in told
    assert "lr_scheduler" not in told and "evaluation_seed" not in told
