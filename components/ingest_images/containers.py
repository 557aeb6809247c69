"""What of a picture file are its pixels, and what only lies beside them: profiles, texts, EXIF, previews.

A decoder that meets damage beside the pixels, or a text that unpacks to gigabytes, gives up on the whole file. It
gets the pixels alone; of the rest only the orientation matters, and that is read by itself.
"""

from __future__ import annotations

import dataclasses
import struct
import zlib
from collections.abc import Iterator

from components.ingest_images.tiff_tags import XMP, first_tags, pixel_tags_only

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_PIXELS = (b"tRNS", b"acTL", b"fcTL", b"fdAT")
"""The ancillary chunks that decide about what is seen; critical ones begin with a capital letter."""
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_PNG_XMP = b"XML:com.adobe.xmp"
_PNG_OLD_EXIF = b"Raw profile type exif"
_JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_WEBP_PIXELS = (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF")
_WEBP_METADATA_FLAGS = 0x20 | 0x08 | 0x04  # of VP8X: a colour profile, EXIF, XMP
_LONGEST_TEXT = 2**20
"""Bytes that are unpacked in search of an orientation, which stands at the beginning."""


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
    """The parts of a PNG, JPEG, WebP or TIFF; a file of another kind, or damaged in its structure, as it is."""
    try:
        if data.startswith(_PNG):
            return _png(data)
        if data.startswith(b"\xff\xd8\xff"):
            return _jpeg(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data)
        if data.startswith(_TIFF):
            return _tiff(data)
    except (ValueError, struct.error, IndexError):  # the decoder says what is wrong
        return Parts(pixels=data)
    return Parts(pixels=data)


def _png(data: bytes) -> Parts:
    kept, exif, xmp, old_exif = [_PNG], b"", b"", b""
    at = len(_PNG)
    while at < len(data):
        length, kind = struct.unpack_from(">L4s", data, at)
        end = at + 12 + length
        body = data[at + 8 : end - 4]
        if not kind.isalpha() or end > len(data):
            raise ValueError("no whole chunk")
        if kind[:1].isupper() or kind in _PNG_PIXELS:
            kept.append(data[at:end])
        elif kind == b"eXIf":
            exif = body
        elif kind in _PNG_TEXTS:
            keyword, _, rest = body.partition(b"\0")
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
    kept, exif, xmp = [data[:2]], b"", b""
    for marker, segment, rest in _jpeg_segments(data):
        body = segment[4:]
        if marker == 0xDA:
            # A telephone's previews and depth maps, behind the picture, are not found without their table in APP2.
            return Parts(pixels=b"".join(kept) + rest, exif=exif, xmp=xmp)
        if marker == 0xE1 and body.startswith(b"Exif\0\0"):
            exif = exif or body
        elif marker == 0xE1 and body.startswith(_JPEG_XMP):
            xmp = body
        elif not (0xE0 <= marker <= 0xEF or marker == 0xFE) or _says_colours(marker, body):
            kept.append(segment)
    raise ValueError("no scan")


def _says_colours(marker: int, body: bytes) -> bool:
    """Whether the decoder tells from a JPEG segment which colours the channels are."""
    jfif = marker == 0xE0 and body.startswith(b"JFIF\0") and len(body) >= 14
    return jfif or (marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12)


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Marker, bytes, and what follows from there on; what lies between segments is passed over, as decoders do."""
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
        yield marker, data[at:end], data[at:]
        at = end


def _webp(data: bytes) -> Parts:
    kept, exif, xmp = [], b"", b""
    at, end = 12, min(len(data), 8 + struct.unpack_from("<L", data, 4)[0])
    while at + 8 <= end:
        kind, length = struct.unpack_from("<4sL", data, at)
        chunk = data[at : at + 8 + length + length % 2]
        body = chunk[8 : 8 + length]
        if kind == b"VP8X":
            chunk = chunk[:8] + bytes([chunk[8] & ~_WEBP_METADATA_FLAGS]) + chunk[9:]
        if kind in _WEBP_PIXELS:
            if len(body) < length:
                raise ValueError("no whole chunk")
            kept.append(chunk)
        elif kind == b"EXIF":
            exif = body
        elif kind == b"XMP ":
            xmp = body
        at += 8 + length + length % 2
    pixels = b"WEBP" + b"".join(kept)
    return Parts(pixels=b"RIFF" + struct.pack("<L", len(pixels)) + pixels, exif=exif, xmp=xmp)


def _tiff(data: bytes) -> Parts:
    tags = first_tags(data)
    return Parts(pixels=pixel_tags_only(data), exif=data, xmp=(XMP in tags and tags[XMP].value) or b"")
