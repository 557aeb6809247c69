"""The report of several words is one page that needs nothing else, and has each word's own."""

from __future__ import annotations

import dataclasses

import pytest

from components.common.artifacts import Evaluation
from components.common.errors import TextualInversionError
from components.evaluate.report.joint import joint_report
from components.evaluate.report.page import render_report
from tests.evaluate.contents import report_content


def evaluation(token: str, page: str, *, passed: bool = True) -> Evaluation:
    return Evaluation(
        placeholder_token=token,
        passed=passed,
        reasons=() if passed else ("No.",),
        scores={},
        settings={},
        samples=(),
        report_html=page,
        learned_embedding_digest="",
    )


@pytest.fixture(scope="module")
def page() -> str:
    return render_report(report_content())


def test_report_of_one_word_is_its_own(page: str) -> None:
    assert joint_report([evaluation("<a>", page)]) == page


def test_report_of_several_words_has_an_index_and_each_page(page: str) -> None:
    first = evaluation("<a>", page)
    second = evaluation("<b&\u202e>", page.replace("<main>", "<main><p>second</p>"), passed=False)
    joint = joint_report([first, second])
    assert joint.startswith("<!doctype html>") and joint.endswith("</body></html>\n")
    for tag in ("<body>", "</body>", "<style>", "Content-Security-Policy", "<title>"):
        assert joint.count(tag) == 1
    index = joint[joint.index("<nav>") : joint.index("</nav>")]
    assert '<a class="token" href="#word-0">&lt;a&gt;</a> passed' in index
    assert '<a class="token" href="#word-1">&lt;b&amp;' in index and index.endswith("did not pass</li></ol>")
    assert "\u202e" not in joint
    body = page[page.index("<body>") + len("<body>") : page.index("</body>")]
    assert f'<article id="word-0">{body}</article>' in joint
    assert joint.index("<p>second</p>") > joint.index('<article id="word-1">')


def test_report_that_is_no_page_is_refused(page: str) -> None:
    good = evaluation("<a>", page)
    with pytest.raises(TextualInversionError, match="found a report without <body>"):
        joint_report([good, dataclasses.replace(good, report_html="<p>nothing</p>")])
