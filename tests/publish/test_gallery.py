"""The gallery of a registry: what it shows, what it bears, and where it is written."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import shlex
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.common.base_model import ModelReference
from components.common.errors import TextualInversionError
from components.common.pages.page import policy_hash
from components.common.registry import registry
from components.common.registry.deleting import delete_version
from components.common.registry.entry import Bundle, RegistryEntry
from components.common.registry.registry import concept_store
from components.common.registry.versions import publish_version
from components.common.storage import open_store
from components.publish.__main__ import main
from components.publish.bundle import make_bundle
from components.publish.config import PublishConfig
from components.publish.gallery.page import GALLERY, Room, render_gallery
from components.publish.gallery.samples import CONFIG, MAX_THUMBNAIL, VersionPictures, version_pictures
from components.publish.publish import publish
from pipelines import cli
from tests.evaluate.browser import Browser, find_chromium, started_browser
from tests.publish.conftest import REFERENCE, Inputs, write_inputs
from tests.publish.test_versions import make_bundle as small_bundle

SDXL = dataclasses.replace(REFERENCE, source="hf://stabilityai/sdxl@main", repository="stabilityai/sdxl")
CONCEPTS: dict[str, ModelReference] = {"cat-toy": REFERENCE, "dog": REFERENCE, "lamp": SDXL}
EVIL = "<script>document.title = 'run'</script>\"'><img src=x onerror=alert(1)>"
CHROMIUM = find_chromium()
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)")


def publish_one(inputs: Inputs, registry_uri: str, output: Path, **options: object) -> None:
    publish(PublishConfig(registry_uri=registry_uri, **options), output=output, **vars(inputs))  # type: ignore[arg-type]


def pictures_of(entry: RegistryEntry) -> VersionPictures:
    return version_pictures(open_store(entry.uri), entry)


@pytest.fixture(scope="module")
def registry_of_three(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three concepts of three versions each; the champion of cat-toy was rolled back."""
    folder = tmp_path_factory.mktemp("gallery")
    uri = (folder / "registry").as_uri()
    for name, reference in CONCEPTS.items():
        for seed in range(3):
            inputs = write_inputs(folder / f"{name}-{seed}", seed=seed, placeholder=f"<{name}>", reference=reference)
            publish_one(inputs, uri, folder / "out", run_id=f"run-{name}-{seed}")
    registry.rollback(uri, "cat-toy", "champion")
    registry.move_alias(uri, "cat-toy", "candidate", 3)
    return uri


@pytest.fixture(scope="module")
def page(registry_of_three: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("page") / GALLERY
    file.write_text(render_gallery(registry_of_three), encoding="utf-8")
    return file


class Elements(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def test_gallery_shows_every_version_with_the_champion_in_front(page: Path) -> None:
    text = " ".join(Elements(page.read_text(encoding="utf-8")).text.split())
    assert "3 concepts, 9 versions" in text
    versions = re.findall(r"Version (\d)(?: (candidate|champion))?", text)
    assert [int(number) for number, _ in versions] == [2, 3, 1, 3, 2, 1, 3, 2, 1]
    assert [alias for _, alias in versions][:3] == ["champion", "candidate", ""]
    assert text.count("CLIP-I 0.78 (+0.23)") == 9 and text.count("CLIP-T 0.29 (\u22120.02)") == 9
    assert text.count("a <dog> with a city | river in the background") == 3


def test_gallery_shows_samples_before_and_after_training(registry_of_three: str, page: Path) -> None:
    texts = [attributes["alt"] for attributes in Elements(page.read_text(encoding="utf-8")).all("img")]
    assert texts.count("a photo of a <lamp>, before training") == 3 * 3
    assert texts.count("a photo of a <lamp>") == 3 * 3 + 1, "and once among all concepts"
    pictures = pictures_of(registry.resolve(registry_of_three, "lamp", 3))
    assert len({picture.uri for shot in pictures.shots for picture in (shot.after, shot.before) if picture}) == 8


def test_commands_of_the_gallery_are_commands(
    registry_of_three: str, page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = re.findall(r"textual-inversion [^\n]+", Elements(page.read_text(encoding="utf-8")).text)
    fetch, draw = ([line for line in map(shlex.split, lines) if line[1] == name] for name in ("registry", "sample"))
    assert len(fetch) == len(draw) == 9
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", fetch[0][1:])
    main()
    assert json.loads((tmp_path / "cat-toy" / "manifest.json").read_bytes())["content"]["concept_version"] == 2
    drawn = cli._parser().parse_args(draw[0][1:])
    assert (drawn.concept, drawn.prompt) == ([f"{registry_of_three}/cat-toy@champion"], ["a photo of a <cat-toy>"])


def test_gallery_needs_nothing_else_and_lets_its_own_script_run_alone(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    elements = Elements(text)
    assert all(str(a.get("src") or a.get("href")).startswith(("data:", "#")) for a in elements.all("img"))
    assert not [a for _, attributes in elements.found for a in attributes if a.startswith("on") or a == "style"]
    [script] = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    [style] = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    [policy] = [str(a["content"]) for a in elements.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert f"script-src '{policy_hash(script)}'" in policy and f"style-src '{policy_hash(style)}'" in policy
    assert "default-src 'none'" in policy and "unsafe" not in policy


def test_gallery_with_little_room_shows_pictures_of_champions_and_counts_the_rest(registry_of_three: str) -> None:
    room = sum(pictures_of(registry.resolve(registry_of_three, name, "champion")).size for name in CONCEPTS)
    elements = Elements(render_gallery(registry_of_three, rooms=(Room(room, 5),)))
    text = " ".join(elements.text.split())
    icons = [a["class"] for a in elements.all("span") if str(a.get("class")).startswith("icon")]
    assert icons == ["icon", "icon blank", "icon", "icon blank", "icon"]
    assert re.findall("and (. older versions?)", text) == ["1 older version", "1 older version", "2 older versions"]
    with pytest.raises(TextualInversionError, match="expected at most 1000"):
        render_gallery(registry_of_three, max_bytes=1000)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A version as it is published."""
    inputs = write_inputs(tmp_path_factory.mktemp("whole"))
    folders = {"learned_embedding": inputs.learned_embedding, "evaluation": inputs.evaluation}
    return make_bundle("", reference=REFERENCE, **folders)


def noise(edge: int) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (edge, edge, 3), np.uint8)
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def promising(width: int, height: int) -> bytes:
    """A PNG file that says it has so many pixels."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b""))
    packed = (struct.pack(">I", len(each) - 4) + each + struct.pack(">I", zlib.crc32(each)) for each in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("samples/0006-after.png", b"no picture", "is no PNG file"),
        ("samples/0006-after.png", promising(60_000, 60_000), "decompression bomb"),
        ("samples/0006-after.png", promising(5_000, 10), "5000 x 10 pixels"),
        (CONFIG, b"{" * 5, "config.json is no JSON"),
        (CONFIG, b'{"samples": [{"prompt": 7}]}', "prompt: found 7"),
        (CONFIG, b'{"samples": [{"prompt": "", "after": "../x", "before": null}]}', "../x is not listed"),
        (CONFIG, b"{}", ""),
    ],
    ids=["text", "bomb", "large", "no JSON", "no sample", "elsewhere", "no samples"],
)
def test_gallery_tells_which_files_cannot_be_shown(
    name: str, data: bytes, told: str, whole: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2**26)  # which preparing pictures, in the same process, turns off
    uri = tmp_path.joinpath("registry").as_uri()
    bundle = dataclasses.replace(whole, files={**whole.files, name: data})
    entry = publish_version(concept_store(uri, "cat-toy"), bundle, "run")
    pictures = pictures_of(entry)
    assert all(told in problem for problem in pictures.problems) and bool(pictures.problems) == bool(told)
    text = Elements(render_gallery(uri)).text
    assert told in text and ("damaged files" in text) == bool(told)


def test_thumbnail_of_noise_is_small(tmp_path: Path) -> None:
    bundle = small_bundle()
    files = {**bundle.files, "samples/0000-after.png": noise(512)}
    entry = publish_version(open_store(str(tmp_path)), dataclasses.replace(bundle, files=files), "run")
    [shot] = pictures_of(entry).shots
    assert 0 < len(shot.after.uri) <= MAX_THUMBNAIL and shot.before is None and shot.prompt == ""


def test_gallery_shows_what_is_damaged_and_the_rest(tmp_path: Path) -> None:
    uri, store = tmp_path.as_uri(), concept_store(str(tmp_path), "cat-toy")
    facts = dataclasses.replace(
        small_bundle().facts, placeholder_token=EVIL, learnable_property=EVIL, lineage={"base_model": EVIL, "x": [EVIL]}
    )
    for content in ("one", "two", "three"):
        publish_version(store, dataclasses.replace(small_bundle(content), facts=facts), EVIL)
    store.write("versions/2/manifest.json", b"damaged")
    store.write("versions/4/claim.json", store.read("versions/3/claim.json"))
    store.write("aliases/champion.json", b"damaged")
    registry.move_alias(uri, "cat-toy", "candidate", 3)
    store.write("aliases/lost.json", store.read("aliases/candidate.json"))
    store.delete("versions/3/manifest.json")
    store.delete("versions/3/claim.json")
    open_store(uri).write("no concept/versions/1/claim.json", b"")
    rendered = render_gallery(uri)
    text = " ".join(Elements(rendered).text.split())
    assert re.findall(r"Version (\d)(?: candidate lost)?(?: (damaged|not complete))?", text) == [
        ("1", ""), ("4", "not complete"), ("2", "damaged"),
    ]  # fmt: skip
    assert "candidate points at version 3, which is not there" in text
    assert "champion.json is no document of a registry" in text
    assert "found 'no concept', expected" in text
    assert rendered.count("<script>") == 1 and EVIL in text


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("hf://owner/model@main", "owner/model"),
        ("/data/sprites/base_model/", "sprites/base_model"),
        ("s3://bucket/models/sd15", "models/sd15"),
        ("", "unknown"),
        (7, "7"),
    ],
)
def test_gallery_names_the_base_model(address: object, name: str, tmp_path: Path) -> None:
    facts = dataclasses.replace(small_bundle().facts, lineage={"base_model": address})
    publish_version(concept_store(str(tmp_path), "cat-toy"), dataclasses.replace(small_bundle(), facts=facts), "run")
    assert [a["data-model"] for a in Elements(render_gallery(str(tmp_path))).all("details")] == [name]


def test_gallery_folds_what_is_old(tmp_path: Path) -> None:
    for number in range(7):
        publish_version(concept_store(str(tmp_path), "cat-toy"), small_bundle(str(number)), "run")
    elements = Elements(render_gallery(str(tmp_path)))
    folded = [str(a.get("class")) for a in elements.all("details")]
    assert folded == ["version card"] * 5 + ["more"] + ["version card"] * 2
    assert re.findall(r"Version (\d)", elements.text) == ["7", "6", "5", "4", "3", "2", "1"]


def test_gallery_leaves_out_what_was_deleted(tmp_path: Path) -> None:
    for number in range(3):
        publish_version(concept_store(str(tmp_path), "cat-toy"), small_bundle(str(number)), "run")
    delete_version(str(tmp_path), "cat-toy", 2)
    assert re.findall(r"Version (\d)", Elements(render_gallery(str(tmp_path))).text) == ["3", "1"]


def test_gallery_of_an_empty_registry_says_so(tmp_path: Path) -> None:
    assert "holds no concepts yet" in render_gallery(str(tmp_path / "none"))


@pytest.mark.parametrize("registry_uri", ["file", "gs"], indirect=True)
def test_publish_writes_the_gallery_where_asked_to(registry_uri: str, inputs: Inputs, tmp_path: Path) -> None:
    publish_one(inputs, registry_uri, tmp_path / "out", registry_gallery=True)
    first = open_store(registry_uri).read(GALLERY)
    publish_one(inputs, registry_uri, tmp_path / "out", registry_gallery=True, run_id="again")
    assert open_store(registry_uri).read(GALLERY) == first == render_gallery(registry_uri).encode()


def test_publish_writes_no_gallery_where_nobody_asked(registry_of_three: str) -> None:
    assert not open_store(registry_of_three).exists(GALLERY)


def test_publish_when_the_gallery_cannot_be_written(
    inputs: Inputs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "registry").mkdir()
    os.mkfifo(tmp_path / "registry" / GALLERY)
    publish_one(inputs, str(tmp_path / "registry"), tmp_path / "out", registry_gallery=True)
    assert registry.resolve(str(tmp_path / "registry"), "cat-toy", "champion").version == 1
    assert "the gallery was not written: " in caplog.text


def test_gallery_of_publishers_at_once_shows_what_each_has_published(
    make_inputs: Callable[..., Inputs], tmp_path: Path
) -> None:
    names = [f"concept-{number}" for number in range(3)]
    given = [(make_inputs(placeholder=f"<{name}>"), tmp_path / name) for name in names]

    def run(inputs: Inputs, output: Path) -> None:
        publish_one(inputs, str(tmp_path / "registry"), output, registry_gallery=True)

    with ThreadPoolExecutor(len(given)) as pool:
        list(pool.map(run, *zip(*given, strict=True)))
    text = (tmp_path / "registry" / GALLERY).read_text(encoding="utf-8")
    assert re.findall('<h2 id="[^"]+"><span class="word">&lt;([^&]+)&gt;', text) == names


def test_gallery_command_writes_a_file_or_an_address(
    registry_of_three: str, page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    command = ["gallery", "--registry-uri", registry_of_three]
    monkeypatch.chdir(tmp_path)
    assert cli.main(["registry", *command]) == 0
    monkeypatch.setattr(sys, "argv", ["publish", *command, "--out", (tmp_path / "x" / "page.html").as_uri()])
    main()
    files = [tmp_path / GALLERY, tmp_path / "x" / "page.html"]
    assert capsys.readouterr().out.split() == [file.as_uri() for file in files]
    assert {file.read_bytes() for file in files} == {page.read_bytes()}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert CHROMIUM is not None
    with started_browser(CHROMIUM, tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@needs_chromium
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (450, "dark")])
def test_gallery_is_shown_without_complaint(browser: Browser, page: Path, width: int, scheme: str) -> None:
    shown = browser.open(page, width=width, scheme=scheme)
    assert (shown.complaints, shown.requests, shown.broken_pictures) == ([], [], [])
    assert shown.width <= width, "the page must not scroll sideways"
    corner = np.asarray(Image.open(io.BytesIO(shown.screenshot)).convert("L"))[:40, :40].mean()
    assert (corner > 200) == (scheme == "light")


VISIBLE = (
    "JSON.stringify([...document.querySelectorAll('{}')].filter(each => each.offsetParent)"
    ".map(each => each.innerText.split('\\n')[0]))"
)


@needs_chromium
def test_filters_leave_what_fits(browser: Browser, page: Path) -> None:
    browser.open(page)

    def after_choosing(name: str, value: str) -> tuple[list[str], int, str]:
        browser.value_of(
            f"(e => {{ e.value = {json.dumps(value)}; e.dispatchEvent(new Event('input', {{bubbles: true}})); }})"
            f"(document.forms[0].elements[{json.dumps(name)}]), 0"
        )
        tiles = json.loads(browser.value_of(VISIBLE.format(".wall li")))
        return tiles, len(json.loads(browser.value_of(VISIBLE.format(".version")))), browser.value_of("found.value")

    everything = (["<cat-toy>", "<dog>", "<lamp>"], 9, "3 of 3 shown")
    assert after_choosing("text", "") == everything
    assert after_choosing("text", "CANDIDATE toy") == (["<cat-toy>"], 3, "1 of 3 shown")
    assert after_choosing("text", "nothing like it") == ([], 0, "0 of 3 shown")
    assert after_choosing("text", "") == everything
    assert after_choosing("model", "stabilityai/sdxl") == (["<lamp>"], 3, "1 of 3 shown")
    assert after_choosing("kind", "object") == (["<lamp>"], 3, "1 of 3 shown")
    assert after_choosing("model", "") == everything


@needs_chromium
def test_gallery_without_scripts_shows_everything_but_the_filters(browser: Browser, page: Path) -> None:
    browser.let_scripts_run(False)
    try:
        text = browser.open(page).text
    finally:
        browser.let_scripts_run(True)
    assert text.count("Version ") == 9 and "Search" not in text and "Copy" not in text


@needs_chromium
def test_gallery_runs_no_other_script(browser: Browser, page: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed.html"
    changed.write_text(page.read_text(encoding="utf-8").replace("</main>", f"{EVIL}</main>"), encoding="utf-8")
    complaints = browser.open(changed).complaints
    assert browser.title().startswith("Learned concepts")
    assert len(complaints) == 3 and all("Content Security Policy" in complaint for complaint in complaints)
