"""Pictures that lie about themselves, unpack to megabytes or never end, and captions made to do harm."""

from __future__ import annotations

import io
import json
import logging
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.common.artifacts import ImageSet
from components.common.errors import ImageError
from components.ingest_images.config import IngestConfig
from components.ingest_images.decoding import DRAFTED_PIXELS, LARGEST_MEMORY, decode_picture
from components.ingest_images.ingest import Budget, ingest_images
from components.ingest_images.preparing import to_square
from pipelines.resources import MEDIUM
from tests.ingest_images.test_decoding import saved

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.timeout(240)

TOO_LARGE = "the picture is too large"
BROKEN = "no picture that can be read|damaged or cut short"


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))


def png(width: int, height: int, *, depth: int = 8, colour: int = 2, data: bytes = b"", before: bytes = b"") -> bytes:
    """A PNG of any header, whose pixels are whatever `data` unpacks to."""
    header = struct.pack(">LLBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"".join((
        b"\x89PNG\r\n\x1a\n",
        png_chunk(b"IHDR", header),
        before,
        png_chunk(b"IDAT", data or zlib.compress(b"")),
        png_chunk(b"IEND", b""),
    ))  # fmt: skip


def packed_zeros(size: int, *, behind: bytes = b"") -> bytes:
    packer = zlib.compressobj(9)
    zeros = (packer.compress(bytes(2**24)) for _ in range(size // 2**24))
    return b"".join([packer.compress(behind), *zeros, packer.flush()])


def bmp(width: int, height: int, *, bits: int = 24, compression: int = 0, colours: int = 0) -> bytes:
    header = struct.pack("<LllHHLLllLL", 40, width, height, 1, bits, compression, 0, 0, 0, colours, 0)
    return b"BM" + struct.pack("<LHHL", 54, 0, 0, 54) + header + bytes(64)


def gif(width: int, height: int, *, frames: bytes = b"") -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0) + frames + b";"


def gif_frame(left: int, top: int, width: int, height: int) -> bytes:
    return b"," + struct.pack("<HHHHB", left, top, width, height, 0) + b"\x02\x02\x44\x01\x00"


def webp(width: int, height: int, *more: bytes) -> bytes:
    body = b"VP8X" + struct.pack("<LL", 10, 0) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBP" + body + b"".join(more)
    return b"RIFF" + struct.pack("<L", len(body)) + body


def webp_lossless(width: int, height: int) -> bytes:
    bits = (width - 1) | (height - 1) << 14
    body = b"WEBPVP8L" + struct.pack("<L", 8) + b"\x2f" + struct.pack("<L", bits) + bytes(3)
    return b"RIFF" + struct.pack("<L", len(body)) + body


def jpeg_of_size(width: int, height: int, *, marker: int = 0xC0, scans: int = 1, channels: int = 3) -> bytes:
    """A JPEG that says to be of any size; its scans are empty."""
    whole = saved(Image.new("RGB", (8, 8)), "JPEG", progressive=marker == 0xC2)
    frame = whole.index(bytes([0xFF, marker]))
    scan = whole.index(b"\xff\xda")
    header = bytearray(whole[:scan])
    header[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(header) + whole[scan:-2] * scans + b"\xff\xd9"


def tiff(*tags: tuple[int, int, int, Any], data: bytes = b"", order: str = "<", magic: bytes = b"II*\0") -> bytes:
    """A TIFF of any tags: number, type, count, and a value or where the values lie; `data` is at byte 4096."""
    entries = b"".join(struct.pack(order + "HHLL", *tag) for tag in sorted(tags))
    head = magic + struct.pack(order + "L", 8) + struct.pack(order + "H", len(tags)) + entries + bytes(4)
    return head.ljust(4096, b"\0") + data


def tiff_picture(width: int, height: int, *more: tuple[int, int, int, Any], **options: Any) -> bytes:
    """A TIFF of grey pixels; tags of `more` take the place of the plain ones."""
    tags = {
        256: (256, 4, 1, width),
        257: (257, 4, 1, height),
        258: (258, 3, 1, 8),
        259: (259, 3, 1, 1),
        262: (262, 3, 1, 1),
        273: (273, 4, 1, 4096),
        277: (277, 3, 1, 1),
        278: (278, 4, 1, height),
        279: (279, 4, 1, 64),
    }
    return tiff(*{**tags, **{tag[0]: tag for tag in more}}.values(), **{"data": bytes(4096), **options})


HUGE = 2**31 - 1
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\n(/etc/passwd) (r) file\nshowpage\n%%EOF\n"


def saved_as(file_format: str) -> bytes:
    return saved(Image.new("RGB", (40, 40)), file_format)


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    # Other decoders of Pillow's than those of the endings that are taken.
    "EPS": (lambda: EPS, BROKEN),
    "EPS with a preview": (lambda: struct.pack("<LLL", 0xC6D3D0C5, 32, len(EPS)).ljust(32, b"\0") + EPS, BROKEN),
    "PDF": (lambda: saved_as("PDF"), BROKEN),
    "PPM": (lambda: saved_as("PPM"), BROKEN),
    "TGA": (lambda: saved_as("TGA"), BROKEN),
    "PCX": (lambda: saved_as("PCX"), BROKEN),
    "ICO": (lambda: saved_as("ICO"), BROKEN),
    "ICNS": (lambda: saved_as("ICNS"), BROKEN),
    "JPEG 2000": (lambda: saved_as("JPEG2000"), BROKEN),
    "DDS": (lambda: saved_as("DDS"), BROKEN),
    "SGI": (lambda: saved_as("SGI"), BROKEN),
    "XBM": (lambda: b"#define a_width 40\n#define a_height 40\nstatic char a_bits[] = {\n0 };", BROKEN),
    "SVG": (lambda: b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', BROKEN),
    "WMF": (lambda: b"\xd7\xcd\xc6\x9a" + bytes(200), BROKEN),
    "FITS": (lambda: b"SIMPLE  =                    T".ljust(2880), BROKEN),
    # Headers that promise more than there is memory for.
    "PNG of 2^31 x 2^31": (lambda: png(HUGE, HUGE), TOO_LARGE),
    "PNG of a line of 2^31": (lambda: png(HUGE, 1), TOO_LARGE),
    "PNG of a column of 2^31": (lambda: png(1, HUGE, depth=1, colour=0), TOO_LARGE),
    "PNG of a line of 70000": (lambda: png(70_000, 1), f"{TOO_LARGE}: 70000 x 1 pixels, expected sides of at most"),
    "PNG of 20000 x 20000 bits": (lambda: saved(Image.new("1", (20_000, 20_000)), "PNG"), TOO_LARGE),
    "PNG of 60000 x 60000": (lambda: png(60_000, 60_000, depth=16, colour=6), TOO_LARGE),
    "JPEG of 65500 x 65500": (lambda: jpeg_of_size(65_500, 65_500), TOO_LARGE),
    "progressive JPEG of 65500 x 65500": (lambda: jpeg_of_size(65_500, 65_500, marker=0xC2), TOO_LARGE),
    "GIF of 65535 x 65535": (lambda: gif(65_535, 65_535, frames=gif_frame(0, 0, 2, 2)), TOO_LARGE),
    "GIF with a frame far away": (lambda: gif(2, 2, frames=gif_frame(65_000, 65_000, 500, 500)), TOO_LARGE),
    "WebP of 2^24 x 2^24": (lambda: webp(2**24, 2**24), TOO_LARGE),
    "WebP of 60000 x 60000": (lambda: webp(60_000, 60_000), TOO_LARGE),
    "lossless WebP of 16383 x 16383": (lambda: webp_lossless(16_383, 16_383), TOO_LARGE),
    "animated WebP of 16383 x 16383": (
        lambda: webp(16_383, 16_383, b"ANIM" + struct.pack("<LLH", 6, 0, 0)),
        TOO_LARGE,
    ),
    "BMP of 2^31 x 2^31": (lambda: bmp(HUGE, HUGE), TOO_LARGE),
    "BMP upside down": (lambda: bmp(HUGE, -HUGE), TOO_LARGE),
    "BMP of runs": (lambda: bmp(60_000, 60_000, bits=8, compression=1, colours=2), f"{TOO_LARGE}|{BROKEN}"),
    "TIFF of 2^32 x 2^32": (lambda: tiff_picture(2**32 - 1, 2**32 - 1), TOO_LARGE),
    "TIFF of 65000 x 65000": (lambda: tiff_picture(65_000, 65_000), TOO_LARGE),
    "TIFF with a tile of gigabytes": (
        lambda: tiff_picture(
            16, 16, (259, 3, 1, 8), (322, 4, 1, 46_336), (323, 4, 1, 46_336), (324, 4, 1, 4096), (325, 4, 1, 64)
        ),
        f"{TOO_LARGE}|{BROKEN}",
    ),
    "TIFF with a tile of 2^32": (
        lambda: tiff_picture(16, 16, (259, 3, 1, 8), (322, 4, 1, 2**32 - 16), (323, 4, 1, 2**32 - 16)),
        f"{TOO_LARGE}|{BROKEN}",
    ),
    "TIFF with a strip of 20000 lines": (
        lambda: tiff_picture(20_000, 20_000, (259, 3, 1, 8)),
        TOO_LARGE,
    ),
    # Files that lie.
    "PNG without pixels": (lambda: png(100, 100), BROKEN),
    "PNG whose pixels are no zlib": (lambda: png(100, 100, data=b"nothing" * 100), BROKEN),
    "PNG of no width": (lambda: png(0, 100), BROKEN),
    "PNG with a chunk of 2^32": (lambda: png(8, 8)[:33] + b"\xff\xff\xff\xffIDAT" + bytes(99), BROKEN),
    "PNG with a profile that is a bomb": (
        lambda: png(8, 8, before=png_chunk(b"iCCP", b"a\0\0" + packed_zeros(2**26))),
        BROKEN,
    ),
    "JPEG with no end of scans": (
        lambda: jpeg_of_size(8000, 8000, marker=0xC2, scans=5000),
        r"more than \d+ scans, expected a few",
    ),
    "JPEG with a length of zero": (lambda: b"\xff\xd8\xff\xe0\0\0" + bytes(64), BROKEN),
    "JPEG of padding": (lambda: b"\xff\xd8" + b"\xff" * 10**6, BROKEN),
    "JPEG without a scan": (lambda: saved_as("JPEG")[:200], BROKEN),
    "GIF without a frame": (lambda: gif(40, 40), BROKEN),
    "GIF of comments": (lambda: gif(40, 40, frames=(b"!\xfe" + b"\xff" + bytes(255) + b"\0") * 4000), BROKEN),
    "WebP with a chunk of 2^32": (lambda: webp(40, 40, b"VP8 \xff\xff\xff\xff"), BROKEN),
    "WebP of nothing": (lambda: webp(40, 40), BROKEN),
    "WebP of a header alone": (lambda: b"RIFF\x04\0\0\0WEBP", BROKEN),
    "WebP of another kind": (lambda: b"RIFF\x14\0\0\0WEBPVP8Z" + bytes(64), BROKEN),
    "TIFF whose directory is outside": (lambda: b"II*\0\xff\xff\xff\xff", BROKEN),
    "TIFF whose directory is itself": (lambda: b"II*\0\0\0\0\0", BROKEN),
    "TIFF without tags": (lambda: tiff(), BROKEN),
    "TIFF whose strips are outside": (lambda: tiff_picture(40, 40, (273, 4, 1, 2**32 - 1)), BROKEN),
    "TIFF of millions of strips": (
        lambda: tiff_picture(
            40, 40, (273, 4, 2_000_000, 4096), (278, 4, 1, 1), (279, 4, 2_000_000, 4096), data=bytes(8_000_000)
        ),
        r"entries of more than \d+ bytes",
    ),
    "TIFF of millions of strips, wrong header": (
        lambda: tiff_picture(40, 40, (273, 4, 2_000_000, 4096), (278, 4, 1, 1), data=bytes(8_000_000), magic=b"II\0*"),
        r"entries of more than \d+ bytes",
    ),
    "TIFF whose strips lie over each other": (
        lambda: tiff_picture(
            3000, 3000, (273, 4, 100_000, 4096), (278, 4, 1, 2999), (279, 4, 100_000, 4096), data=bytes(9_100_000)
        ),
        "parts that lie over each other",
    ),
    "TIFF of 2^32 - 1 values": (lambda: tiff_picture(40, 40, (258, 3, 2**32 - 1, 4096)), f"{BROKEN}|entries of more"),
    "TIFF with a size of text": (lambda: tiff_picture(40, 40, (256, 2, 4, 0x30303030)), BROKEN),
    "TIFF of no rows in a strip": (lambda: tiff_picture(40, 40, (278, 4, 1, 0), (279, 4, 1, 0)), BROKEN),
    "TIFF of 65535 samples": (lambda: tiff_picture(40, 40, (277, 3, 1, 65_535)), BROKEN),
    "TIFF of old JPEG": (lambda: tiff_picture(40, 40, (259, 3, 1, 6)), BROKEN),
    # Files that are nothing.
    "nothing": (lambda: b"", "the file is empty"),
    "zeros": (lambda: bytes(10**6), BROKEN),
    "a page": (lambda: b"<!DOCTYPE html><title>404</title>", BROKEN),
    "a Git LFS pointer": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", BROKEN),
    "a ZIP": (lambda: b"PK\x03\x04" + bytes(100), BROKEN),
    "a pickle": (lambda: b"\x80\x04\x95" + bytes(100), BROKEN),
}


@pytest.mark.parametrize("name", REFUSED)
def test_picture_when_hostile_is_refused_in_a_line(name: str) -> None:
    make, message = REFUSED[name]
    data = make()
    with pytest.raises(ImageError, match=message) as caught:
        decode_picture(data, side=512)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def grey_png(*before: bytes) -> bytes:
    return png(40, 40, colour=0, data=zlib.compress((b"\0" + bytes([120]) * 40) * 40), before=b"".join(before))


def many_pages(count: int) -> bytes:
    """A TIFF of many directories, all of one picture."""
    first = bytearray(tiff_picture(40, 40, data=bytes([120]) * 1600))
    length = 2 + 9 * 12 + 4
    directory, pages = bytes(first[8 : 8 + length - 4]), []
    for number in range(count):
        following = len(first) + (number + 1) * length if number + 1 < count else 8  # the last leads to the first
        pages.append(directory + struct.pack("<L", following))
    first[8 + length - 4 : 8 + length] = struct.pack("<L", len(first))
    return bytes(first) + b"".join(pages)


TAKEN: dict[str, Callable[[], bytes]] = {
    "PNG whose pixels unpack to megabytes": lambda: png(
        40, 40, colour=0, data=packed_zeros(2**28, behind=(b"\0" + bytes([120]) * 40) * 40)
    ),
    "PNG with a text that unpacks to megabytes": lambda: grey_png(png_chunk(b"zTXt", b"a\0\0" + packed_zeros(2**28))),
    "PNG with a hundred texts that unpack to megabytes": lambda: grey_png(
        *[png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + packed_zeros(2**24))] * 100
    ),
    "PNG with a profile that unpacks to megabytes": lambda: grey_png(
        png_chunk(b"iCCP", b"a\0\0" + packed_zeros(2**28))
    ),
    "PNG of a hundred thousand chunks": lambda: grey_png(*[png_chunk(b"tEXt", b"a\0b")] * 100_000),
    "PNG that promises 2^31 frames": lambda: grey_png(png_chunk(b"acTL", struct.pack(">LL", 2**31, 0))),
    "GIF of twenty thousand frames": lambda: (
        saved(Image.new("L", (40, 40), 120), "GIF")[:-1] + gif_frame(0, 0, 1, 1) * 20_000 + b";"
    ),
    "TIFF of twenty thousand pages that lead back": lambda: many_pages(20_000),
    "TIFF of a thousand entries that are the whole file": lambda: tiff_picture(
        40, 40, *((number, 7, 2_000_000, 4096) for number in range(1000, 1200)), data=bytes([120]) * 2_100_000
    ),
    "JPEG of ten thousand comments": lambda: (
        b"\xff\xd8" + (b"\xff\xfe\xff\xff" + bytes(65_533)) * 300 + saved(Image.new("L", (40, 40), 120), "JPEG")[2:]
    ),
    "JPEG of a million small segments": lambda: (
        b"\xff\xd8" + b"\xff\xfe\0\2" * 1_000_000 + saved(Image.new("L", (40, 40), 120), "JPEG")[2:]
    ),
    "JPEG with a film behind it": lambda: (
        saved(Image.new("L", (40, 40), 120), "JPEG") + np.random.default_rng(0).bytes(2**25)
    ),
}


@pytest.mark.timeout(60)  # seconds, not minutes
@pytest.mark.parametrize("name", TAKEN)
def test_picture_when_only_what_lies_around_it_is_hostile_is_taken(name: str) -> None:
    decoded = decode_picture(TAKEN[name](), side=512)
    assert decoded.size == (40, 40)
    assert np.abs(np.asarray(decoded.picture).astype(int) - 120).max() <= 1


def photograph(width: int, height: int) -> Image.Image:
    """Something smooth with edges in it."""
    down, right = np.linspace(0, 9, height)[:, None], np.linspace(0, 7, width)[None]
    waves = np.stack([np.sin(down + right), np.cos(2 * right) + 0 * down, np.sign(np.sin(5 * down)) + 0 * right], -1)
    return Image.fromarray((127 + 120 * waves).clip(0, 255).astype(np.uint8))


def test_jpeg_when_huge_is_nearly_what_it_were_whole() -> None:
    small = photograph(1024, 1024).resize((8400, 8400), Image.Resampling.BICUBIC)
    data = saved(small, "JPEG", quality=90)
    assert small.width * small.height > DRAFTED_PIXELS
    with Image.open(io.BytesIO(data)) as image:
        whole = np.asarray(to_square(image.convert("RGB"), 512, "bicubic", False)).astype(int)
    decoded = decode_picture(data, side=512)
    assert (decoded.size, decoded.picture.size) == ((8400, 8400), (4200, 4200))
    difference = np.abs(np.asarray(to_square(decoded.picture, 512, "bicubic", False)) - whole)
    assert difference.mean() < 0.25
    assert difference.max() <= 4
    # A draft keeps at least twice the pixels that are wanted.
    assert decode_picture(data, side=2101).picture.size == (8400, 8400)


def test_jpeg_when_huge_and_on_its_side_says_its_size_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(Image.new("L", (12_000, 6000), 120), "JPEG", exif=exif)
    decoded = decode_picture(data, side=64)
    assert (decoded.size, decoded.picture.size) == ((6000, 12_000), (3000, 6000))


def test_memory_when_never_so_much_is_refused_and_else_waited_for() -> None:
    budget = Budget(2**30)
    with pytest.raises(ImageError, match=r"takes 2\.0 GiB of memory, expected at most 1\.0 GiB"), budget.held(2**31):
        pass
    with budget.held(2**29), budget.held(2**29):
        pass
    with budget.held(2**30):  # all of it came back
        pass


INGEST = """
import resource, sys
from pathlib import Path
limit = int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
from components.common.cli import step_boundary
from components.ingest_images.config import IngestConfig
from components.ingest_images.ingest import ingest_images
with step_boundary("ingest_images"):
    images = ingest_images(IngestConfig(images_uri=sys.argv[1], resolution=512), Path(sys.argv[2]))
    print(sum(f.name.endswith(".png") for f in Path(sys.argv[2]).rglob("*")))
"""


def ingest_within(limit: int, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", INGEST, str(folder), str(folder.parent / "out"), str(limit)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        check=False,
    )


@pytest.mark.timeout(900)
def test_step_when_all_pictures_are_as_large_as_can_be_stays_within_its_memory(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    worst = {
        "a.png": (3, lambda: saved(Image.new("RGBA", (8000, 8000), (9, 9, 9, 99)), "PNG", compress_level=1)),
        "b.webp": (2, lambda: saved(Image.new("RGBA", (6000, 6000), (9, 9, 9, 99)), "WEBP", method=0)),
        "c.jpg": (2, lambda: saved(Image.new("CMYK", (9000, 9000)), "JPEG", progressive=True)),
        "d.tif": (
            1,
            lambda: saved(
                Image.new("RGB", (7000, 7000)), "TIFF", compression="tiff_adobe_deflate", tiffinfo={278: 7000}
            ),
        ),
        "e.png": (1, lambda: saved(Image.fromarray(np.full((14_000, 14_000), 9, np.uint16)), "PNG", compress_level=1)),
        "f.gif": (1, lambda: saved(Image.new("P", (13_000, 13_000)), "GIF")),
    }
    for name, (copies, make) in worst.items():
        data = make()
        for copy in range(copies):
            (folder / f"{copy}{name}").write_bytes(data)
    record_property("tried", sum(copies for copies, _ in worst.values()))
    assert MEDIUM.memory == "4Gi"  # what the step is given
    done = ingest_within(4 * 2**30, folder)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > len(worst)  # copies are left out, masks are there


def test_step_when_memory_is_short_names_the_picture(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("L", (40, 40)).save(folder / "0.png")
    Image.new("L", (13_000, 13_000)).save(folder / "1.png", compress_level=1)
    done = ingest_within(3 * 2**28, folder)
    assert done.returncode == 2, done.stderr
    assert "1.png: there is not enough memory to decode it" in done.stderr.splitlines()[-1]
    assert "0.png:" not in done.stderr.splitlines()[-1]


def test_step_when_there_are_more_pictures_than_memory_says_how_many(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for number in range(17):
        Image.new("L", (40, 40), number).save(tmp_path / "pictures" / f"{number}.png")
    config = IngestConfig(images_uri=str(tmp_path / "pictures"), resolution=4096)
    with pytest.raises(ImageError, match=r"17 pictures of 4096 x 4096 pixels take 1\.1 GiB of memory"):
        ingest_images(config, tmp_path / "out")
    assert LARGEST_MEMORY // 2 < 17 * 4096**2 * 4


def lines(*entries: object) -> bytes:
    return "\n".join(map(json.dumps, entries)).encode()


def entry(text: str, name: str = "0.png") -> dict[str, str]:
    return {"file_name": name, "text": text}


REFUSED_CAPTIONS: dict[str, tuple[str, bytes, str]] = {
    "NUL": ("0.txt", b"a\0cat", r"line 1 of 0\.txt has the control character U\+0000"),
    "escape of a terminal": ("0.txt", b"a cat\n\x1b[2J", r"line 2 of 0\.txt has the control character U\+001B"),
    "bell": ("0.txt", b"\n\n\x07", r"line 3 of 0\.txt has the control character U\+0007"),
    "delete": ("0.txt", b"\x7f", r"U\+007F"),
    "control sequence of one character": ("0.txt", "\x9b31m".encode(), r"U\+009B"),
    "UTF-16": ("0.txt", "a cat".encode("utf-16"), "no UTF-8 text"),
    "half a character": ("0.txt", b"\xed\xa0\x80", "no UTF-8 text"),
    "long character": ("0.txt", b"\xc0\x80", "no UTF-8 text"),
    "a picture": ("0.txt", b"\x89PNG\r\n\x1a\n", "no UTF-8 text"),
    "text without end": ("0.txt", b"cat " * 20_000, r"0\.txt has 80000 bytes, expected at most"),
    "metadata with NUL": (
        "metadata.jsonl",
        lines(entry("a"), entry("a\0")),
        r"line 2 of metadata\.jsonl has the control character U\+0000",
    ),
    "metadata with an escape": ("metadata.jsonl", lines(entry("\x1b]0;")), r"U\+001B"),
    "metadata with half a character": (
        "metadata.jsonl",
        b'{"file_name": "0.png", "text": "\\ud800"}',
        "half a character",
    ),
    "metadata, deep": (
        "metadata.jsonl",
        b'{"file_name":' + b"[" * 10**6,
        "line 1 of metadata.jsonl is no JSON .*nested",
    ),
    "metadata, deep and whole": (
        "metadata.jsonl",
        b'{"file_name": "0.png", "more": ' + b"[" * 10**5 + b"]" * 10**5 + b"}",
        "nested",
    ),
    "metadata, a huge number": ("metadata.jsonl", b'{"file_name": "0.png", "n": ' + b"9" * 10**5 + b"}", "is no JSON"),
    "metadata, NaN": ("metadata.jsonl", b'{"file_name": "0.png", "n": NaN}', "NaN is no number"),
    "metadata, infinity": ("metadata.jsonl", b'{"file_name": "0.png", "n": 1e999}', "too large"),
    "metadata, a long text": (
        "metadata.jsonl",
        lines(entry("a"), entry("cat " * 20_000)),
        "line 2 .* characters, expected at most",
    ),
    "metadata, a text of another kind": (
        "metadata.jsonl",
        lines({"file_name": "0.png", "text": ["x"] * 10**5}),
        "text '?\\['x'",
    ),
    "metadata, a name of another kind": ("metadata.jsonl", lines({"file_name": 5, "text": "x"}), "expected"),
    "metadata, a list": ("metadata.jsonl", lines([1] * 10**5), "expected"),
    "metadata, a page": ("metadata.jsonl", b"<html>\n</html>", "line 1 of metadata.jsonl is no JSON"),
    "metadata in one object": ("metadata.jsonl", b"{\n", "line 1 of metadata.jsonl is no JSON"),
    "metadata, UTF-16": ("metadata.jsonl", "{}".encode("utf-16"), "no UTF-8 text"),
}


@pytest.fixture
def one_picture(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "pictures" / "0.png")
    return tmp_path / "pictures"


def ingest(folder: Path) -> ImageSet:
    return ingest_images(IngestConfig(images_uri=str(folder), resolution=32), folder.parent / "out")


@pytest.mark.parametrize("name", REFUSED_CAPTIONS)
def test_caption_when_hostile_is_refused_in_a_line(name: str, one_picture: Path) -> None:
    file, data, message = REFUSED_CAPTIONS[name]
    (one_picture / file).write_bytes(data)
    with pytest.raises(ImageError, match=message) as caught:
        ingest(one_picture)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


STRANGERS = ["../0.png", "../../etc/passwd", "/etc/passwd", "", ".", "..", "a\nb.png", "\x1b[2J", "0.png/..", "\0"]


@pytest.mark.parametrize("name", STRANGERS)
def test_caption_when_of_no_picture_here_is_left_out(
    name: str, one_picture: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (one_picture / "metadata.jsonl").write_bytes(lines(entry("a toy cat"), entry("another", name)))
    (picture,) = ingest(one_picture).pictures
    assert picture.caption == "a toy cat"
    (message,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "which is no picture here" in message
    assert message.isprintable()


TAKEN_CAPTIONS: dict[str, tuple[str, bytes, str]] = {
    "a byte order mark": ("0.txt", "\ufeffa cat".encode(), "a cat"),
    "space of every kind": ("0.txt", "\ta\r\n\x0b\x0c\x1c\x85\u2028\u3000cat\n".encode(), "a cat"),
    "other writings": ("0.txt", "猫 قطة 🐈\u200d⬛".encode(), "猫 قطة 🐈\u200d⬛"),
    "ends of lines inside of JSON": (
        "metadata.jsonl",
        '{"file_name": "0.png", "text": "a\u2028toy\x85cat"}\r\n'.encode(),
        "a toy cat",
    ),
    "a hundred thousand lines": (
        "metadata.jsonl",
        lines(*({"file_name": f"{n}.jpg", "text": "x"} for n in range(100_000)), entry("a cat")),
        "a cat",
    ),
    "told twice": ("metadata.jsonl", lines(entry("a dog"), entry("a cat")), "a cat"),
}


@pytest.mark.parametrize("name", TAKEN_CAPTIONS)
def test_caption_when_strange_but_sound_is_taken(name: str, one_picture: Path) -> None:
    file, data, caption = TAKEN_CAPTIONS[name]
    (one_picture / file).write_bytes(data)
    assert [picture.caption for picture in ingest(one_picture).pictures] == [caption]
