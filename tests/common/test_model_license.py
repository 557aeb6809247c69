from __future__ import annotations

from pathlib import Path

import pytest

from components.common.model_license import LARGEST_CARD, license_of
from components.common.sources.models import open_source


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        (b"---\nlicense: creativeml-openrail-m\ntags:\n- x\n---\n# A model\n", "creativeml-openrail-m"),
        (b"---\r\ntags: [x]\r\nlicense: 'mit'\r\n---\r\n", "mit"),
        (b"---\ntags: [x]\n---\nlicense: mit\n---\n", ""),
        (b"---\nof:\n  license: mit\n---\n", ""),
        (b"# A model\nlicense: mit\n", ""),
        (b"---\nlicense: [mit, other]\n---\n", ""),
        (b"---\nlicense: '<b>\\nmine'\n---\n", ""),
        (b"---\nlicense: {a: b\n---\n", ""),
        (b"---\n- license\n---\n", ""),
        (b"---\nlicense: \xff\n---\n", ""),
        (b"---\nlicense: mit\n---\n" + b"x" * LARGEST_CARD, ""),
    ],
)
def test_licence_is_what_the_card_names(card: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_bytes(b"{}")
    assert license_of(open_source(str(tmp_path))) == ""
    (tmp_path / "README.md").write_bytes(card)
    assert license_of(open_source(str(tmp_path))) == expected
