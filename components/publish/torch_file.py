"""Files as `torch.save` writes them, without torch: tensors by name, which `torch.load(weights_only=True)` reads.

The file is a zip archive that stores what it holds as it is:

    archive/data.pkl      a pickled dict {name: tensor}, whose tensors name their storages
    archive/byteorder     little
    archive/data/0, 1...  the elements of each storage
    archive/version       3

The pickle is made of the opcodes for just this structure. Of what a pickle can call it has the two functions that every
file of tensors has: `torch._utils._rebuild_tensor_v2` and `collections.OrderedDict`.

Reference: torch.serialization `_save`, torch._utils `_rebuild_tensor_v2`, the standard library's pickletools.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Mapping

import numpy as np

_FOLDER = "archive"
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time of a zip archive: the same tensors are the same bytes."""


def torch_file(tensors: Mapping[str, np.ndarray]) -> bytes:
    """The file of float32 tensors of two dimensions [n, d] by name, the same bytes for the same tensors.

    Raises:
        ValueError: when a tensor has another number of dimensions.
    """
    names = sorted(tensors)
    elements = [np.ascontiguousarray(tensors[name], "<f4") for name in names]
    files = {
        "data.pkl": _pickled(dict(zip(names, elements, strict=True))),
        "byteorder": b"little",
        **{f"data/{index}": tensor.tobytes() for index, tensor in enumerate(elements)},
        "version": b"3\n",
    }
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(f"{_FOLDER}/{name}", _EPOCH), data)
    return written.getvalue()


def _pickled(tensors: Mapping[str, np.ndarray]) -> bytes:
    items = [_text(name) + _tensor(tensor, str(index)) for index, (name, tensor) in enumerate(tensors.items())]
    return b"".join([pickle.PROTO, b"\x02", pickle.EMPTY_DICT, pickle.MARK, *items, pickle.SETITEMS, pickle.STOP])


def _tensor(tensor: np.ndarray, storage: str) -> bytes:
    """Pickled `_rebuild_tensor_v2(storage, storage_offset, size, stride, requires_grad, backward_hooks)`."""
    rows, width = tensor.shape
    kind = _global("torch", "FloatStorage")
    of_storage = [_text("storage"), kind, _text(storage), _text("cpu"), _integer(tensor.size)]
    arguments = [
        *(pickle.MARK, *of_storage, pickle.TUPLE, pickle.BINPERSID),
        _integer(0),
        *(_integer(rows), _integer(width), pickle.TUPLE2),
        *(_integer(width), _integer(1), pickle.TUPLE2),
        pickle.NEWFALSE,
        *(_global("collections", "OrderedDict"), pickle.EMPTY_TUPLE, pickle.REDUCE),
    ]
    rebuild = _global("torch._utils", "_rebuild_tensor_v2")
    return b"".join([rebuild, pickle.MARK, *arguments, pickle.TUPLE, pickle.REDUCE])


def _global(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _text(text: str) -> bytes:
    encoded = text.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(encoded)) + encoded


def _integer(number: int) -> bytes:
    return pickle.BININT + struct.pack("<i", number)
