"""What pages say is there: their links and anchors, options, files and pictures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from components.preflight.options import known_options
from pipelines.form import MORE_OPTIONS
from tests.docs.pages import DOCS, PAGES, ROOT, anchors_of, blocks_of, links_of, name_of, prose_of

LARGEST_PICTURE = 220_000

each_page = pytest.mark.parametrize("page", PAGES, ids=name_of)
each_doc = pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=name_of)


@each_page
def test_links_lead_somewhere(page: Path):
    for link in links_of(page):
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors_of(target), link


def test_every_page_and_picture_is_linked():
    linked = {(page.parent / link.partition("#")[0]).resolve() for page in PAGES for link in links_of(page)}
    assert set(DOCS.rglob("*.md")) | set(DOCS.rglob("*.png")) <= linked


@each_doc
def test_names_of_options_are_options(page: Path):
    named = set(re.findall(r"`([a-z0-9]+(?:_[a-z0-9]+)+)`", prose_of(page)))
    choices = {choice for known in known_options().values() for choice in known.option.choices or ()}
    known = {*known_options(), *choices, MORE_OPTIONS, "load_textual_inversion"}
    assert named <= known, named - known


@each_doc
def test_named_files_are_there(page: Path):
    named = re.findall(r"`((?:manifests|examples|pipelines|components)/[\w/.-]+)`", prose_of(page))
    assert not [file for file in named if not (ROOT / file).exists()]


@each_doc
def test_blocks_are_run_but_for_few(page: Path):
    kinds = [block.info for block in blocks_of(page)]
    assert set(kinds) <= {"sh", "sh not-run", "text", "yaml"}
    assert kinds.count("sh not-run") <= 1


@pytest.mark.parametrize("picture", sorted(DOCS.rglob("*.png")), ids=name_of)
def test_pictures_are_small_and_described(picture: Path):
    assert picture.stat().st_size < LARGEST_PICTURE
    with Image.open(picture) as opened:
        assert opened.format == "PNG"
    texts = [page.read_text("utf-8") for page in PAGES]
    described = rf"!\[[^\]]{{20,}}\]\({'(docs/)?'}{re.escape(str(picture.relative_to(DOCS)))}\)"
    assert any(re.search(described, text) for text in texts)
