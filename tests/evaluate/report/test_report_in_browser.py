"""The report as a browser shows it."""

from __future__ import annotations

import html
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.evaluate.config import EvaluateConfig
from components.evaluate.report.page import render_report
from tests.evaluate.browser import Browser, find_chromium, started_browser
from tests.evaluate.contents import CHAMPION, learned_embedding, report_content

CHROMIUM = find_chromium()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert CHROMIUM is not None
    with started_browser(CHROMIUM, tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = EvaluateConfig(reference_prompt="purple dotted star", images_per_prompt=8, min_clip_i=0.9)
    file = tmp_path_factory.mktemp("report") / "report.html"
    content = report_content(config, learned=learned_embedding(vectors=2), champion=CHAMPION)
    file.write_text(render_report(content), encoding="utf-8")
    return file


def brightness(screenshot: bytes) -> float:
    return float(np.asarray(Image.open(io.BytesIO(screenshot)).convert("L"))[:40, :40].mean())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_report_is_shown_without_complaint(browser, report, scheme, width):
    page = browser.open(report, width=width, scheme=scheme)

    assert page.complaints == []
    assert page.requests == []
    assert page.broken_pictures == []
    assert page.width <= width, "the page must not scroll sideways"
    assert "<cat-toy>" in page.text and "Held back" in page.text
    assert (brightness(page.screenshot) > 200) == (scheme == "light")


def test_report_cannot_be_made_to_fetch_or_run_anything(browser, report, tmp_path):
    """Even an element that got past the escaping is stopped by the page's own policy."""
    smuggled = '<script>document.title = "run"</script><img src="http://127.0.0.1:9/x.png" alt="">'
    changed = tmp_path / "changed.html"
    changed.write_text(report.read_text(encoding="utf-8").replace("</main>", f"{smuggled}</main>"), encoding="utf-8")
    page = browser.open(changed)

    assert browser.title() != "run"
    assert len(page.complaints) == 2, page.complaints
    assert all("Content Security Policy" in complaint for complaint in page.complaints)


def test_report_is_readable_in_a_narrow_frame_that_allows_nothing(browser, report, tmp_path):
    """As the UI of Kubeflow Pipelines shows it beside a run."""
    panel = tmp_path / "panel.html"
    framed = html.escape(report.read_text(encoding="utf-8"))
    panel.write_text(
        f'<iframe id="f" sandbox="" width="450" height="800" srcdoc="{framed}"></iframe>', encoding="utf-8"
    )
    page = browser.open(panel, width=500)
    alone = browser.open(report, width=450)
    too_wide = browser.value_of(
        "JSON.stringify([...document.querySelectorAll('main *:not(table *)')]"
        ".filter(each => getComputedStyle(each).overflowX === 'auto' && each.scrollWidth > each.clientWidth + 1)"
        ".map(each => each.outerHTML))"
    )

    assert (page.complaints, page.requests) == ([], [])
    assert brightness(page.screenshot) > 200
    assert alone.width == 450 and too_wide == "[]", "only tables scroll sideways"


def test_report_is_printed_dark_on_white(browser, report):
    browser.open(report, scheme="dark")
    browser.print_on_paper(True)
    try:
        names = "backgroundColor, color, printColorAdjust"
        paper = browser.value_of(f"(({{{names}}}) => [{names}].join(' '))(getComputedStyle(document.body))")
    finally:
        browser.print_on_paper(False)
    assert paper == "rgb(255, 255, 255) rgb(28, 27, 34) exact", "bars and dots are backgrounds"
