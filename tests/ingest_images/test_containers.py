"""What lies beside pixels, and is damaged or huge, leaves them as they are; orientation is read where it can be."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from components.common.errors import ImageError
from components.ingest_images.decoding import decode_picture
from tests.ingest_images.conftest import random_pixels
from tests.ingest_images.test_decoding import saved

PIXELS = random_pixels(24, 40)
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
ORIENTED_6 = (0x112, 3, struct.pack("<HH", 6, 0))
BOMB = zlib.compress(bytes(2**26), 9)


def exif_of(*entries: tuple[int, int, bytes], count: int | None = None) -> bytes:
    """EXIF of entries with one value each, given as (tag, type, the four bytes of the value)."""
    table = b"".join(struct.pack("<HHL", tag, kind, 1) + value for tag, kind, value in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries) if count is None else count) + table + bytes(4)


RATIONAL_OUTSIDE = (0x11A, 5, struct.pack("<L", 2**31))
TEXT_RESOLUTION = (0x11A, 2, b"72\0\0")


def png_chunk(kind: bytes, body: bytes, *, sound: bool = True) -> bytes:
    checksum = zlib.crc32(kind + body) ^ (0 if sound else 1)
    return struct.pack(">L", len(body)) + kind + body + struct.pack(">L", checksum)


def png(*chunks: bytes, behind: bool = False) -> bytes:
    raw = saved(Image.fromarray(PIXELS), "PNG")
    place = raw.index(b"IEND") - 4 if behind else raw.index(b"IDAT") - 4
    return raw[:place] + b"".join(chunks) + raw[place:]


def jpeg(*segments: tuple[int, bytes], mode: str = "RGB") -> bytes:
    raw = saved(Image.fromarray(PIXELS).convert(mode), "JPEG")
    parts = (bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body for marker, body in segments)
    return raw[:2] + b"".join(parts) + raw[2:]


def webp(*chunks: tuple[bytes, bytes], flags: int = 0) -> bytes:
    image = saved(Image.fromarray(PIXELS), "WEBP")
    size = struct.pack("<L", 39)[:3] + struct.pack("<L", 23)[:3]
    before = [(b"VP8X", bytes([flags, 0, 0, 0]) + size), *(each for each in chunks if each[0] == b"ICCP")]
    after = [each for each in chunks if each[0] != b"ICCP"]
    body = b"WEBP" + b"".join(map(riff, before)) + image[12:] + b"".join(map(riff, after))
    return b"RIFF" + struct.pack("<L", len(body)) + body


def riff(chunk: tuple[bytes, bytes]) -> bytes:
    kind, body = chunk
    return kind + struct.pack("<L", len(body)) + body + bytes(len(body) % 2)


def tiff(*tags: tuple[int, int, int, bytes]) -> bytes:
    """A TIFF with tags added, given as (tag, type, count, the four bytes of the value or its place)."""
    raw = saved(Image.fromarray(PIXELS), "TIFF")
    (start,) = struct.unpack_from("<L", raw, 4)
    (count,) = struct.unpack_from("<H", raw, start)
    old = [raw[start + 2 + 12 * index : start + 14 + 12 * index] for index in range(count)]
    numbers = {number for number, *_ in tags}
    kept = [entry for entry in old if struct.unpack_from("<H", entry)[0] not in numbers]
    table = sorted([*kept, *(struct.pack("<HHL", *tag[:3]) + tag[3] for tag in tags)], key=lambda entry: entry[1::-1])
    place = len(raw) + len(raw) % 2
    directory = struct.pack("<H", len(table)) + b"".join(table) + bytes(4)
    return raw[:4] + struct.pack("<L", place) + raw[8:].ljust(place - 8, b"\0") + directory


BESIDE: dict[str, Callable[[], bytes]] = {
    "png: checksum of a text": lambda: png(png_chunk(b"tEXt", b"parameters\0a cat", sound=False)),
    "png: checksum of a text behind the pixels": lambda: png(png_chunk(b"tEXt", b"a\0b", sound=False), behind=True),
    "png: text that unpacks to 64 MB": lambda: png(png_chunk(b"zTXt", b"workflow\0\0" + BOMB)),
    "png: international text that unpacks to 64 MB": lambda: png(png_chunk(b"iTXt", b"w\0\1\0\0\0" + BOMB)),
    "png: XMP that unpacks to 64 MB": lambda: png(png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + BOMB)),
    "png: text that does not unpack": lambda: png(png_chunk(b"zTXt", b"workflow\0\0no zlib")),
    "png: 70 MB of texts": lambda: png(*[png_chunk(b"tEXt", b"a\0" + bytes(1_000_000))] * 70),
    "png: text without keyword": lambda: png(png_chunk(b"iTXt", b"")),
    "png: profile that unpacks to 64 MB": lambda: png(png_chunk(b"iCCP", b"name\0\0" + BOMB)),
    "png: profile of no method": lambda: png(png_chunk(b"iCCP", b"name\0\7")),
    "png: resolution without a unit": lambda: png(png_chunk(b"pHYs", b"\0")),
    "png: gamma without a value": lambda: png(png_chunk(b"gAMA", b"")),
    "png: chunk nobody knows": lambda: png(png_chunk(b"caBX", bytes(50), sound=False)),
    "jpeg: EXIF with a resolution outside of it": lambda: jpeg((0xE1, b"Exif\0\0" + exif_of(RATIONAL_OUTSIDE))),
    "jpeg: EXIF with a resolution as text": lambda: jpeg((0xE1, b"Exif\0\0" + exif_of(TEXT_RESOLUTION))),
    "jpeg: EXIF that is cut off": lambda: jpeg((0xE1, b"Exif\0\0" + exif_of(TEXT_RESOLUTION, count=900))),
    "jpeg: profile of no number": lambda: jpeg((0xE2, b"ICC_PROFILE\0")),
    "jpeg: profile that is none": lambda: jpeg((0xE2, b"ICC_PROFILE\0\1\1" + bytes(500))),
    "jpeg: table of previews that is none": lambda: jpeg((0xE2, b"MPF\0" + b"no tiff")),
    "jpeg: table of previews that is empty": lambda: jpeg((0xE2, b"MPF\0" + exif_of())),
    "jpeg: JFIF that is cut off": lambda: jpeg((0xE0, b"JFIF\0")),
    "jpeg: Adobe that is cut off": lambda: jpeg((0xEE, b"Adobe")),
    "jpeg: Photoshop's resources cut off": lambda: jpeg((0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\x10\0")),
    "jpeg: XMP of many segments": lambda: jpeg(*[(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + b"x" * 60_000)] * 9),
    "jpeg: comment that is no text": lambda: jpeg((0xFE, b"\xff\xd8\xff\xdb\x80")),
    "webp: EXIF that is cut off": lambda: webp((b"EXIF", exif_of(count=9)), flags=8),
    "webp: XMP that is no text": lambda: webp((b"XMP ", b"\xff\0\xfe"), flags=4),
    "webp: profile that is none": lambda: webp((b"ICCP", b"none"), flags=32),
    "webp: the file ends within EXIF": lambda: webp((b"EXIF", exif_of(TEXT_RESOLUTION)), flags=8)[:-8],
    "tiff: resolution as text": lambda: tiff((0x11A, *TEXT_RESOLUTION[1:2], 3, b"72\0\0")),
    "tiff: profile outside of it": lambda: tiff((34675, 7, 10**6, struct.pack("<L", 2**31))),
    "tiff: XMP as text": lambda: tiff((700, 2, 4, b"abc\0")),
    "tiff: EXIF outside of it": lambda: tiff((34665, 4, 1, struct.pack("<L", 2**31))),
}
SOUND = {"png": png, "jpeg": jpeg, "webp": webp, "tiff": tiff}


@pytest.mark.parametrize("name", BESIDE)
def test_pixels_when_something_beside_them_is_damaged_are_the_same(name: str) -> None:
    expected = decode_picture(SOUND[name.partition(":")[0]]())
    decoded = decode_picture(BESIDE[name]())
    np.testing.assert_array_equal(np.asarray(decoded.picture), np.asarray(expected.picture))
    assert (decoded.mask, decoded.animated, decoded.remark) == (None, False, "")


@pytest.mark.parametrize("mode", ["CMYK", "L"])
def test_colours_when_a_jpeg_has_a_broken_profile_are_the_same(mode: str) -> None:
    expected, found = (
        decode_picture(jpeg(*segments, mode=mode)).picture
        for segments in ((), ((0xE2, b"ICC_PROFILE\0\1\1broken"), (0xEE, b"Adob")))
    )
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


@pytest.mark.parametrize("exif", [b"no exif", b"II*\0\xff\xff\xff\x7f", b"MM", b"II*\0\x08\0\0\0"])
def test_orientation_when_exif_is_no_exif_is_said_to_be_unknown(exif: bytes) -> None:
    for data in (
        jpeg((0xE1, b"Exif\0\0" + exif)),
        png(png_chunk(b"eXIf", exif)),
        webp((b"EXIF", exif), flags=8),
    ):
        decoded = decode_picture(data)
        assert decoded.picture.size == (40, 24)
        assert "its EXIF cannot be read" in decoded.remark


OLD_EXIF = b"\nexif\n      26\n" + exif_of(ORIENTED_6).hex().encode() + b"\n"
ORIENTED: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: jpeg((0xE1, b"Exif\0\0" + exif_of(ORIENTED_6))),
    "jpeg, XMP": lambda: jpeg((0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)),
    "jpeg, XMP and EXIF without": lambda: jpeg(
        (0xE1, b"Exif\0\0" + exif_of()), (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)
    ),
    "png": lambda: png(png_chunk(b"eXIf", exif_of(ORIENTED_6))),
    "png, behind the pixels": lambda: png(png_chunk(b"eXIf", exif_of(ORIENTED_6)), behind=True),
    "png, XMP": lambda: png(png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)),
    "png, packed XMP": lambda: png(png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP))),
    "png, ImageMagick": lambda: png(png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(OLD_EXIF))),
    "webp": lambda: webp((b"EXIF", exif_of(ORIENTED_6)), flags=8),
    "webp, XMP": lambda: webp((b"XMP ", XMP), flags=4),
    "tiff": lambda: tiff((0x112, 3, 1, ORIENTED_6[2])),
}
ORIENTED_BESIDE_DAMAGE: dict[str, Callable[[], bytes]] = {
    "jpeg, resolution as text": lambda: jpeg((0xE1, b"Exif\0\0" + exif_of(ORIENTED_6, TEXT_RESOLUTION))),
    "jpeg, resolution outside": lambda: jpeg((0xE1, b"Exif\0\0" + exif_of(RATIONAL_OUTSIDE, ORIENTED_6))),
    "jpeg, no such type": lambda: jpeg((0xE1, b"Exif\0\0" + exif_of((0x10F, 99, b"abcd"), ORIENTED_6))),
    "jpeg, entries cut off": lambda: jpeg((0xE1, b"Exif\0\0" + exif_of(ORIENTED_6, count=40))),
    "jpeg, a long integer": lambda: jpeg((0xE1, b"Exif\0\0" + exif_of((0x112, 4, struct.pack("<L", 6))))),
    "jpeg, broken EXIF and XMP": lambda: jpeg((0xE1, b"Exif\0\0??"), (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)),
    "png, checksum": lambda: png(png_chunk(b"eXIf", exif_of(ORIENTED_6), sound=False)),
    "webp, resolution as text": lambda: webp((b"EXIF", exif_of(ORIENTED_6, TEXT_RESOLUTION)), flags=8),
    "tiff, profile outside": lambda: tiff((0x112, 3, 1, ORIENTED_6[2]), (34675, 7, 99, struct.pack("<L", 2**31))),
}


@pytest.mark.parametrize("name", ORIENTED)
def test_orientation_when_everything_is_sound_is_that_of_pillow(name: str) -> None:
    data = ORIENTED[name]()
    with Image.open(io.BytesIO(data)) as image:
        expected = ImageOps.exif_transpose(image)
    assert expected.size == (24, 40)
    np.testing.assert_array_equal(np.asarray(decode_picture(data).picture), np.asarray(expected))


@pytest.mark.parametrize("name", ORIENTED_BESIDE_DAMAGE)
def test_orientation_when_other_entries_are_damaged_is_honoured(name: str) -> None:
    stored = decode_picture(SOUND[name.partition(",")[0]]()).picture
    decoded = decode_picture(ORIENTED_BESIDE_DAMAGE[name]())
    np.testing.assert_array_equal(np.asarray(decoded.picture), np.rot90(np.asarray(stored), -1))
    assert decoded.remark == ""


@pytest.mark.parametrize("value", [0, 1, 9, 255])
def test_orientation_when_there_is_no_such_one_changes_nothing(value: int) -> None:
    decoded = decode_picture(jpeg((0xE1, b"Exif\0\0" + exif_of((0x112, 3, struct.pack("<HH", value, 0))))))
    assert (decoded.picture.size, decoded.remark) == ((40, 24), "")


BROKEN_PIXELS: dict[str, Callable[[], bytes]] = {
    "png: checksum of the pixels": lambda: png()[:-13] + bytes([png()[-13] ^ 1]) + png()[-12:],
    "png: checksum of the transparency": lambda: png(png_chunk(b"tRNS", bytes(6), sound=False)),
    "png: no end": lambda: png(png_chunk(b"tEXt", b"a\0b", sound=False))[:-12],
    "png: no pixels": lambda: png().replace(b"IDAT", b"iDAT"),
    "jpeg: cut short": lambda: jpeg((0xE1, b"Exif\0\0broken"))[:-300],
    "jpeg: EXIF as long as the file": lambda: jpeg()[:2] + b"\xff\xe1\xff\xff" + jpeg()[2:],
    "webp: cut short": lambda: webp((b"EXIF", b"broken"), flags=8)[:-300],
    "tiff: cut short": lambda: tiff()[:500],
}


@pytest.mark.parametrize("name", BROKEN_PIXELS)
def test_pixels_when_they_are_damaged_are_refused(name: str) -> None:
    with pytest.raises(ImageError, match=r"damaged or cut short|no picture that can be read"):
        decode_picture(BROKEN_PIXELS[name]())


def test_frames_when_a_png_is_animated_and_has_a_damaged_text_are_seen() -> None:
    info = PngInfo()
    info.add_text("a", "b")
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    raw = bytearray(saved(frames[0], "PNG", save_all=True, append_images=frames[1:], pnginfo=info))
    raw[raw.index(b"tEXt") + 4] ^= 1
    decoded = decode_picture(bytes(raw))
    assert decoded.animated
    assert (np.asarray(decoded.picture) == [255, 0, 0]).all()
