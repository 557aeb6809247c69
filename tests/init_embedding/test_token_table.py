"""Rows of token tables in all the ways in which text encoders are stored."""

from __future__ import annotations

import json
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from safetensors.torch import save_file

from components.common.errors import BaseModelError
from components.common.weights import TOKEN_TABLES
from components.init_embedding.token_table import read_token_row
from tests.init_embedding.conftest import KEY, write_text_encoder


def random_table(rows: int = 50, width: int = 6) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((rows, width)).astype(np.float32)


@pytest.mark.parametrize("key", TOKEN_TABLES)
@pytest.mark.parametrize("token_id", [0, 17, 49])
def test_row_when_float32_is_the_tables_own(key: str, token_id: int, tmp_path: Path) -> None:
    write_text_encoder(tmp_path, random_table(), key=key)
    row = read_token_row(tmp_path, token_id)
    assert row.dtype == np.float32
    np.testing.assert_array_equal(row, random_table()[token_id])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_row_when_of_any_precision_equals_torchs_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    values = torch.from_numpy(random_table()).to(dtype)
    values[3, :4] = torch.tensor([0.0, -0.0, 1e-40, 65504.0], dtype=torch.float64).to(dtype)
    save_file({"before": torch.ones(7, dtype=torch.int8), KEY: values}, tmp_path / "model.safetensors")
    for token_id in (0, 3, 49):
        expected = values[token_id].to(torch.float32).numpy()
        np.testing.assert_array_equal(read_token_row(tmp_path, token_id), expected)


def test_row_when_sharded_is_found_through_the_index(tmp_path: Path) -> None:
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    safetensors.numpy.save_file({"other": np.ones(3, np.float32)}, tmp_path / first)
    safetensors.numpy.save_file({KEY: random_table()}, tmp_path / second)
    index = {"metadata": {"total_size": 1}, "weight_map": {"other": first, KEY: second}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    np.testing.assert_array_equal(read_token_row(tmp_path, 5), random_table()[5])


def test_row_when_the_table_is_large_loads_nothing_else(tmp_path: Path) -> None:
    rows, width = 200_000, 2048  # 1.6 GB, of which the disk holds one row
    header = json.dumps({KEY: {"dtype": "F32", "shape": [rows, width], "data_offsets": [0, rows * width * 4]}}).encode()
    header += b" " * (-len(header) % 8)
    row = np.arange(width, dtype=np.float32)
    with (tmp_path / "model.safetensors").open("wb") as stream:
        stream.write(len(header).to_bytes(8, "little") + header)
        stream.seek(199_998 * width * 4, 1)
        stream.write(row.tobytes())
        stream.truncate(8 + len(header) + rows * width * 4)
    tracemalloc.start()
    started = time.monotonic()
    found = read_token_row(tmp_path, 199_998)
    seconds, peak = time.monotonic() - started, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(found, row)
    assert peak < 1_000_000
    assert seconds < 5


def test_row_when_out_of_the_table_says_so(tmp_path: Path) -> None:
    write_text_encoder(tmp_path, random_table(50))
    for token_id in (50, -1):
        with pytest.raises(BaseModelError, match=f"has 50 rows, expected one for token {token_id}.*same model"):
            read_token_row(tmp_path, token_id)


def test_row_when_not_finite_is_refused(tmp_path: Path) -> None:
    table = random_table()
    table[4, 2] = np.nan
    write_text_encoder(tmp_path, table)
    with pytest.raises(BaseModelError, match=r"row 4 of .* is not finite"):
        read_token_row(tmp_path, 4)
    assert np.isfinite(read_token_row(tmp_path, 5)).all()


def test_weights_when_absent_say_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match=r"found no model\.safetensors or .* in .*/absent, only nothing"):
        read_token_row(tmp_path / "absent", 0)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(BaseModelError, match=r"only pytorch_model\.bin: a base model needs safetensors"):
        read_token_row(tmp_path, 0)


def test_weights_when_without_a_table_say_so(tmp_path: Path) -> None:
    safetensors.numpy.save_file({"visual.weight": random_table()}, tmp_path / "model.safetensors")
    with pytest.raises(BaseModelError, match=r"found no token table in .*, expected text_model\.embeddings"):
        read_token_row(tmp_path, 0)


@pytest.mark.parametrize("keep", [0, 4, 30, 200, -1])
def test_weights_when_cut_short_are_refused(keep: int, tmp_path: Path) -> None:
    write_text_encoder(tmp_path, random_table())
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(BaseModelError, match=r"model\.safetensors (is no safetensors|has \d+ bytes).*import the model"):
        read_token_row(tmp_path, 0)


@pytest.mark.parametrize("table", [np.ones((4, 3), np.int32), np.ones(12, np.float32)])
def test_weights_when_the_table_is_of_another_kind_say_so(table: np.ndarray, tmp_path: Path) -> None:
    write_text_encoder(tmp_path, table)
    with pytest.raises(BaseModelError, match="expected a table of F32, F16, F64, BF16"):
        read_token_row(tmp_path, 0)


@pytest.mark.parametrize("index", ["", "[]", "{}", '{"weight_map": 3}'])
def test_index_when_it_is_none_says_so(index: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(BaseModelError, match=r"index\.json (is no index of weights|is no JSON|holds a list)"):
        read_token_row(tmp_path, 0)


def test_index_when_a_shard_is_missing_names_it(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {KEY: "model-1.safetensors"}}))
    with pytest.raises(BaseModelError, match=r"found no model-1\.safetensors"):
        read_token_row(tmp_path, 0)
