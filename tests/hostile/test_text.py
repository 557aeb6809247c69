"""Text is escaped where it lands: whatever a word, a prompt or an address holds, it is shown, and is nothing else."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import io
import json
import logging
import re
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt

from components.common import cli
from components.common.artifacts import LearnedEmbedding
from components.common.base_model import ModelFile, ModelReference
from components.common.cli import step_boundary
from components.common.errors import ConfigError
from components.common.logs import configure_logging
from components.common.printable import literal, masked, printable
from components.common.registry.entry import Facts
from components.common.usage import usage_script
from components.evaluate.config import EvaluateConfig
from components.evaluate.report.page import render_report
from components.publish.model_card import CardSample, model_card
from pipelines.cli import main as textual_inversion
from pipelines.step_log import StepLog
from pipelines.summary import Summary
from tests.evaluate.contents import learned_embedding, report_content

UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
PASSWORDS = ("correct-horse", "5f4dcc3b5aa765d61d8327deb882cf99", "battery/staple")

TEXTS = {
    "backtick": "a`b``c```d",
    "only-backticks": "```",
    "fence": "\n```\n# owned\n```python\n",
    "link": "[click](javascript:alert(1))",
    "reference-link": "[a]: http://evil\n\n[a]",
    "image": "![x](http://evil/x.png)",
    "script": "<script>alert(1)</script>",
    "attribute": '" onerror="alert(1)',
    "attribute-single": "' onload='alert(1)",
    "end-of-details": "</summary></details><h1>owned</h1>",
    "comment": "<!-- -->",
    "comment-open": "<!--",
    "entity": "&lt;b&gt; &#60;",
    "table": "a|b\\|c\\\\|d",
    "row": "a |\n| owned | row |\n",
    "heading": "\n# owned\n",
    "setext": "x\n===\n",
    "front-matter": '"\n---\nlicense: owned\n---\n',
    "yaml-tag": "!!python/object/apply:os.system ['id']",
    "yaml-anchor": "&a *a {a: b} # c",
    "yaml-colon": "key: value",
    "python": '")\nimport os; os.system("id")\n#',
    "python-escape": 'a\\"b\\\\',
    "template": "{{ 7 * 7 }}{% raw %}",
    "format": "%s%n{0}{x.__class__}",
    "two-lines": "done\n09:00:00 ERROR forged\r\n12:00:00.000 - INFO - Task 'x' finished with status SUCCESS",
    "carriage-return": "secret\rshown",
    "other-lines": "a\x0bb\x0cc\x1cd\x85e\u2028f\u2029g",
    "escape-sequence": "\x1b[2J\x1b]0;owned\x07\x1b[31m",
    "c1": "\x9b31m\x90q\x9c",
    "nul": "a\x00b",
    "backspace-delete": "abc\x08\x08\x7f",
    "bidi": "\u202egnp.\u2066exe\u2069\u202c",
    "byte-order-mark": "\ufeffa\ufffe",
    "emoji-and-scripts": "\U0001f431 \u732b \u0643\u0644\u0628 e\u0301 \u200d",
    "white-space": "   \t \u00a0 ",
    "long": "x" * 9_000,
    "long-ticks": "`" * 3_000,
}
"""What an artifact can hold."""

NO_UTF8 = {"half-character": "a\ud83d", "not-utf-8": "a\udce4"}


@pytest.fixture(params=[*TEXTS.values(), *NO_UTF8.values()], ids=[*TEXTS, *NO_UTF8])
def text(request: pytest.FixtureRequest) -> str:
    """A text that means something where it does not belong."""
    found: str = request.param
    return found


@pytest.fixture(params=TEXTS.values(), ids=list(TEXTS))
def stored_text(request: pytest.FixtureRequest) -> str:
    """One that an artifact can hold."""
    found: str = request.param
    return found


def reference_to(address: str, *, hub: bool) -> ModelReference:
    return ModelReference(
        source=f"hf://{address}" if hub else address,
        repository=address,
        revision=address,
        kind="diffusion",
        variant=address,
        store="/store",
        files={"model_index.json": ModelFile(sha256="ab" * 32, size=1)},
    )


def learned_with(text: str) -> LearnedEmbedding:
    learned = learned_embedding(token=text, initializer=text)
    return dataclasses.replace(learned, config={"a": text, text: 1}, lineage={"framework": text, "base_model": text})


def card_with(text: str, *, hub: bool = True) -> str:
    learned = learned_with(text)
    facts = Facts(
        placeholder_token=text,
        learnable_property="object",
        tokens=(text,),
        passed=False,
        reasons=(text,),
        scores={text: {text: 0.5}, "after": {"clip_i": 0.5}},
        lineage={text: text, "a": text},
    )
    settings = {"num_inference_steps": 2, "guidance_scale": 2.0, text: text, "a": [text]}
    samples = [CardSample(prompt=text, seed=1, after=text, before=text)]
    reference = reference_to(text, hub=hub)
    return model_card(facts, learned=learned, reference=reference, settings=settings, samples=samples)


def elements_of(card: str) -> list[str]:
    """The elements of a card's page in order, its table of pictures and all."""
    body = card.split("\n---\n", 1)[1]
    page = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(body)
    found: list[str] = []

    class Elements(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.append(f"{tag} {sorted(name for name, _ in attrs)}")

        def handle_comment(self, data: str) -> None:
            found.append("comment")

    Elements().feed(page)
    return found


@pytest.mark.parametrize("hub", [True, False], ids=["hub", "local"])
def test_model_card_has_the_same_elements_whatever_the_text(stored_text: str, hub: bool) -> None:
    card = card_with(stored_text, hub=hub)
    card.encode()
    assert not UNSEEN.search(card)
    assert elements_of(card) == elements_of(card_with("word", hub=hub))


def test_front_matter_holds_the_text_and_no_more(stored_text: str) -> None:
    front = yaml.safe_load(card_with(stored_text).split("\n---\n", 1)[0].removeprefix("---\n"))
    assert set(front) == {"base_model", "library_name", "pipeline_tag", "tags", "instance_prompt", "widget"}
    shown = ast.literal_eval(literal(stored_text))
    assert (front["instance_prompt"], front["base_model"]) == (shown, shown)
    assert front["widget"] == [{"text": shown, "output": {"url": shown}}]


@pytest.mark.parametrize("encoders", [["text_encoder", "text_encoder_2"], ["text_encoder"]], ids=["sdxl", "sd"])
@pytest.mark.parametrize("hub", [True, False], ids=["hub", "local"])
def test_script_has_the_text_as_a_string_alone(text: str, hub: bool, encoders: list[str]) -> None:
    def made(word: str) -> ast.Module:
        script = usage_script(
            reference_to(word, hub=hub),
            encoders=encoders,
            placeholder_token=word,
            prompt=word,
            num_inference_steps=2,
            guidance_scale=2.0,
        )
        assert not UNSEEN.search(script)
        return ast.parse(script)

    tree = made(text)
    strings = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    assert text in strings
    plain = [type(node) for node in ast.walk(made("word"))]
    assert [type(node) for node in ast.walk(tree)] == plain


def test_report_has_the_same_elements_whatever_the_text(stored_text: str) -> None:
    def made(word: str) -> list[str]:
        prompt = word.replace("\0", "").replace("{{", "{").encode("utf-8", "ignore").decode()[:9_000]
        config = EvaluateConfig(prompts=(f"{{}} {prompt}",), reference_prompt=prompt, images_per_prompt=1)
        content = report_content(config, learned=learned_with(word), base_model=word)
        page = render_report(content, max_bytes=50_000_000)
        assert not UNSEEN.search(page)
        page.encode()
        return re.findall(r"<(?!wbr)[/a-z!][\w-]*", page)

    assert made(stored_text) == made("word")


@contextlib.contextmanager
def log_of_a_step() -> Iterator[io.StringIO]:
    """What a step writes to its log, and nobody else: a report of pytest's cannot hold half a character."""
    stream, root = io.StringIO(), logging.getLogger()
    handlers = root.handlers[:]
    root.handlers[:] = [logging.StreamHandler(stream)]
    configure_logging()
    try:
        yield stream
    finally:
        root.handlers[:] = handlers


def test_record_of_a_log_is_one_line(text: str) -> None:
    with log_of_a_step() as log:
        logging.getLogger("components.x").warning("found %s here", text)
    line = log.getvalue()
    assert re.fullmatch(r"\d\d:\d\d:\d\d WARNING found .* here\n", line) and not UNSEEN.search(line)


def test_error_is_itself_one_line(text: str) -> None:
    error = ConfigError(f"a: found {text}")
    assert "\n" not in str(error) and not UNSEEN.search(str(error))


def test_error_is_one_line_in_log_and_termination_log(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = tmp_path / "termination-log"
    reason.touch()
    monkeypatch.setattr(cli, "TERMINATION_LOG", reason)
    with log_of_a_step() as log, pytest.raises(SystemExit), step_boundary("step"):
        raise ConfigError(f"a: found {text}, expected b", "c: found d")
    first, second, rest = log.getvalue().split("\n")
    assert re.fullmatch(r"\d\d:\d\d:\d\d ERROR a: found .*, expected b", first)
    assert re.fullmatch(r"\d\d:\d\d:\d\d ERROR c: found d", second) and rest == ""
    assert not UNSEEN.search(first + reason.read_text()) and "\n" not in reason.read_text()


def test_screen_of_a_local_run_shows_the_text(text: str) -> None:
    full, screen = io.StringIO(), io.StringIO()
    steps = StepLog(full_log=full, screen=screen, titles={})
    steps.write("12:00:00.000 - INFO - Executing task 'x'\n")
    steps.write("".join(f"    {line}\n" for line in f"it says {text}".split("\n")))
    steps.write("12:00:01.000 - INFO - Task 'x' finished with status FAILURE\n")
    assert [failure.task for failure in steps.failures] == ["x"]
    assert not UNSEEN.search(screen.getvalue() + full.getvalue())


def test_summary_is_json_and_lines(text: str, tmp_path: Path) -> None:
    summary = Summary(
        decision=text,
        embedding=text,
        report=text,
        registry_entry=None,
        alias_stays=text,
        champion=text,
        base_model=text,
        placeholder_token=text,
        initializer_token=text,
        trained_by=text,
        scores={},
        seconds={},
        passed=False,
        reasons=(text,),
    )
    summary.write(tmp_path / "summary.json")
    assert json.loads((tmp_path / "summary.json").read_text())["reasons"] == [text]
    told = summary.for_people(printable)
    assert len(told.split("\n")) == 6 and not UNSEEN.search(told)


def test_mistake_of_a_command_line_shows_the_text(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["textual-inversion", "sample", f"--{text}"])
    with pytest.raises(SystemExit) as end:
        textual_inversion()
    assert end.value.code == 2
    assert not UNSEEN.search(capsys.readouterr().err)


SECRETS = {
    "s3-keys": "s3://AKIAIOSFODNN7EXAMPLE:{}@bucket/x",
    "https": "https://user:{}@host/x",
    "token-alone": "https://{}@host/x",
    "upper-case": "HTTPS://user:{}@host/x",
    "at-sign": "https://us@er:{}@host/x",
    "empty-user": "https://:{}@host/x",
    "quoted": "found 'gs://user:{}@bucket', expected another",
    "json": '{{"uri":"s3://user:{}@bucket","b":1}}',
    "library": 'Could not connect to the endpoint URL: "http://user:{}@seaweed:8333/bucket?list-type=2"',
    "connection-pool": "Max retries exceeded with url: /x?X-Amz-Signature={}&b=1 (Caused by X)",
    "presigned": "https://bucket.s3.amazonaws.com/x?X-Amz-Expires=1&x-amz-signature={}",
    "session": "https://bucket.s3.amazonaws.com/x?X-Amz-Security-Token={}",
    "google": "https://storage.googleapis.com/b/x?X-Goog-Signature={}",
    "shared-access": "https://account.blob.core.windows.net/x?sv=1&sig={}",
    "token": "https://host/x?access_token={}",
    "password": "https://host/x?user=a&password={}#b",
}


@pytest.mark.parametrize("address", SECRETS.values(), ids=list(SECRETS))
def test_secret_of_an_address_is_masked(address: str, record_property: Callable[[str, object], None]) -> None:
    for password in PASSWORDS if ":{}@" in address else PASSWORDS[:2]:
        shown = masked(address.format(password))
        assert not any(part in shown for part in password.split("/"))
        assert "***" in shown and masked(shown) == shown
        assert shown.replace("***", "").startswith(address[:5].format(""))
    record_property("tried", len(PASSWORDS))


def test_token_of_the_hub_and_secret_of_the_environment_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG")
    monkeypatch.setenv("MY_PASSWORD", "tr0ub4dor")
    shown = masked(f"hf://a/b@hf_{'aB3' * 12}, Bearer {'x' * 40}, wJalrXUtnFEMI/K7MDENG, tr0ub4dor")
    assert shown == "hf://a/b@hf_***, Bearer ***, ***, ***"


@pytest.mark.parametrize(
    "address",
    [
        "hf://owner/name@main",
        "hf://datasets/owner/name@refs%2Fpr%2F1/folder",
        "s3://bucket/cat-toy@champion",
        "http://host:9000/folder@x",
        "http://[::1]:9000/x",
        "file:///a@b/c:d",
        "gs://bucket/x?y=z&w=1",
        "a@b, user:name",
    ],
)
def test_address_without_a_secret_stays(address: str) -> None:
    assert masked(address) == address


def test_masking_takes_no_longer_for_hostile_texts() -> None:
    for text in ("s3://a:" * 100_000, "://" * 100_000, "&sig=" * 100_000, " " * 300_000, "\n" * 300_000):
        printable(text)
