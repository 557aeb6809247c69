"""What of a picture file are its pixels, and what only lies beside them: profiles, texts, EXIF, previews.

A decoder that meets damage beside the pixels, or a text that unpacks to gigabytes, gives up on the whole file. It
gets the pixels alone; of the rest only the orientation matters, and that is read by itself. Nothing is copied more
than once, however many parts a file says that it has.
"""

from __future__ import annotations

import dataclasses
import struct
import zlib
from collections.abc import Iterator

from components.common.errors import ImageError
from components.ingest_images.tiff_tags import PIXEL_TAGS, XMP, first_tags, pixel_tags_only

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_PIXELS = (b"tRNS", b"acTL", b"fcTL", b"fdAT")
"""The ancillary chunks that decide about what is seen; critical ones begin with a capital letter."""
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_PNG_XMP = b"XML:com.adobe.xmp"
_PNG_OLD_EXIF = b"Raw profile type exif"
_JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"II\0*", b"MM*\0")  # the last two are wrong, and are read
_WEBP_PIXELS = (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF")
_WEBP_METADATA_FLAGS = 0x20 | 0x08 | 0x04  # of VP8X: a colour profile, EXIF, XMP
_LONGEST_TEXT = 2**20
"""Bytes of a text, packed or not, that are looked through for an orientation, which stands at the beginning."""
_LONGEST_TAG = 2**22
"""Bytes of a TIFF's entry about pixels: where each strip lies, of a picture of strips of a row. Decoders unpack it."""
_MOST_SCANS = 200
"""Of a JPEG; the finest way to send one takes fewer. Each costs a pass over the whole picture."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
    """A picture file taken apart.

    Attributes:
        pixels: the file without what lies beside its pixels; as it was where that cannot be told.
        exif: EXIF with or without its `Exif` header, empty where there is none; a TIFF is its own.
        xmp: the XMP document, empty where there is none.
    """

    pixels: bytes
    exif: bytes = b""
    xmp: bytes = b""


def take_apart(data: bytes) -> Parts:
    """The parts of a PNG, JPEG, WebP or TIFF; a file of another kind, or damaged in its structure, as it is.

    Raises:
        ImageError: when it is made of so many parts that decoding them takes minutes or gigabytes.
    """
    try:
        if data.startswith(_PNG):
            return _png(data)
        if data.startswith(b"\xff\xd8\xff"):
            return _jpeg(data)
        if is_webp(data):
            return _webp(data)
        if data.startswith(_TIFF):
            return _tiff(data)
    except (ValueError, struct.error, IndexError):  # the decoder says what is wrong
        return Parts(pixels=data)
    return Parts(pixels=data)


def _png(data: bytes) -> Parts:
    whole, kept = memoryview(data), [memoryview(_PNG)]
    exif, xmp, old_exif = b"", b"", b""
    at = len(_PNG)
    while at < len(data):
        length, kind = struct.unpack_from(">L4s", data, at)
        end = at + 12 + length
        body = whole[at + 8 : end - 4]
        if not kind.isalpha() or end > len(data):
            raise ValueError("no whole chunk")
        if kind[:1].isupper() or kind in _PNG_PIXELS:
            kept.append(whole[at:end])
        elif kind == b"eXIf":
            exif = bytes(body[:_LONGEST_TEXT])
        elif kind in _PNG_TEXTS:
            keyword, _, rest = bytes(body[:_LONGEST_TEXT]).partition(b"\0")
            if keyword == _PNG_XMP:
                xmp = _text_of_chunk(kind, rest)
            elif keyword == _PNG_OLD_EXIF:
                old_exif = _old_exif(_text_of_chunk(kind, rest))
        at = end
        if kind == b"IEND":
            break
    return Parts(pixels=b"".join(kept), exif=exif or old_exif, xmp=xmp)


def _text_of_chunk(kind: bytes, rest: bytes) -> bytes:
    """The text of a chunk, given what stands behind its keyword; no more than its beginning where it is packed."""
    packed = kind == b"zTXt"
    if packed:
        rest = rest[1:]
    elif kind == b"iTXt":
        packed = rest[:1] == b"\1"
        rest = rest[2:].split(b"\0", 2)[-1]  # behind the method: language, translated keyword
    if not packed:
        return rest
    try:
        return zlib.decompressobj().decompress(rest, _LONGEST_TEXT)
    except zlib.error:
        return b""


def _old_exif(text: bytes) -> bytes:
    """What ImageMagick wrote before PNG had a chunk for EXIF: a name, a length, and hexadecimal digits."""
    try:
        return bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii"))
    except ValueError:
        return b"?"  # there is EXIF, and it cannot be read


def _jpeg(data: bytes) -> Parts:
    whole, exif, xmp = memoryview(data), b"", b""
    kept = [whole[:2]]
    for marker, at, end in _jpeg_segments(data):
        if marker == 0xDA:
            picture_end = data.find(b"\xff\xd9", at)  # inside of a scan an FF is followed by a zero
            if data.count(b"\xff\xda", at, len(data) if picture_end < 0 else picture_end) > _MOST_SCANS:
                raise ImageError(f"it has more than {_MOST_SCANS} scans, expected a few: save it again")
            # A telephone's previews and depth maps, behind the picture, are not found without their table in APP2.
            return Parts(pixels=b"".join((*kept, whole[at:])), exif=exif, xmp=xmp)
        body = data[at + 4 : end]
        if marker == 0xE1 and body.startswith(b"Exif\0\0"):
            exif = exif or body
        elif marker == 0xE1 and body.startswith(_JPEG_XMP):
            xmp = body
        elif not (0xE0 <= marker <= 0xEF or marker == 0xFE) or _says_colours(marker, body):
            kept.append(whole[at:end])
    raise ValueError("no scan")


def _says_colours(marker: int, body: bytes) -> bool:
    """Whether the decoder tells from a JPEG segment which colours the channels are."""
    jfif = marker == 0xE0 and body.startswith(b"JFIF\0") and len(body) >= 14
    return jfif or (marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12)


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, where it begins and ends; what lies between segments is passed over, as decoders do."""
    at = 2
    while True:
        at = data.index(b"\xff", at)
        marker = data[at + 1]
        if marker in (0x00, 0xFF):  # an escaped byte or padding
            at += 2 if marker == 0x00 else 1
            continue
        alone = marker == 0x01 or 0xD0 <= marker <= 0xD9
        end = at + 2 + (0 if alone else struct.unpack_from(">H", data, at + 2)[0])
        if end > len(data):
            raise ValueError("no whole segment")
        yield marker, at, end
        at = end


def is_webp(data: bytes) -> bool:
    """Whether a file says that it is a WebP."""
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def webp_size(data: bytes) -> tuple[int, int]:
    """Width and height of a WebP, whose decoder takes memory for them as soon as it is opened.

    Reference: RFC 9649, sections 2.5 to 2.7.

    Raises:
        ValueError: when the header says none.
    """
    kind, body = data[12:16], data[20:30]
    if kind == b"VP8X" and len(body) == 10:
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8L" and body[:1] == b"\x2f":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    raise ValueError("its header says no size")


def _webp(data: bytes) -> Parts:
    whole, exif, xmp = memoryview(data), b"", b""
    kept = list[bytes | memoryview]()
    at, end = 12, min(len(data), 8 + struct.unpack_from("<L", data, 4)[0])
    while at + 8 <= end:
        kind, length = struct.unpack_from("<4sL", data, at)
        body = whole[at + 8 : at + 8 + length]
        if kind in _WEBP_PIXELS:
            if len(body) < length:
                raise ValueError("no whole chunk")
            if kind == b"VP8X":
                kept += [whole[at : at + 8], bytes([body[0] & ~_WEBP_METADATA_FLAGS]), body[1:]]
            else:
                kept += [whole[at : at + 8], body]
            kept.append(whole[at + 8 + length : at + 8 + length + length % 2])
        elif kind == b"EXIF":
            exif = bytes(body[:_LONGEST_TEXT])
        elif kind == b"XMP ":
            xmp = bytes(body[:_LONGEST_TEXT])
        at += 8 + length + length % 2
    size = 4 + sum(map(len, kept))
    return Parts(pixels=b"".join((b"RIFF", struct.pack("<L", size), b"WEBP", *kept)), exif=exif, xmp=xmp)


def _tiff(data: bytes) -> Parts:
    tags = first_tags(data)
    if any(tag.number in PIXEL_TAGS and tag.size > _LONGEST_TAG for tag in tags.values()):
        raise ImageError(f"its directory has entries of more than {_LONGEST_TAG} bytes: save it with fewer strips")
    xmp = tags[XMP].value if XMP in tags else None
    return Parts(pixels=pixel_tags_only(data), exif=data, xmp=bytes((xmp or memoryview(b""))[:_LONGEST_TEXT]))
