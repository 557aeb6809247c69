"""Pictures from a source to an `ImageSet`: checked, upright, square."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from components.common.artifacts import ImageSet, Picture
from components.common.errors import ImageError
from components.common.sources.picture_listing import LARGEST_PICTURE, Listing, list_pictures, read_listed
from components.common.sources.pictures import Source, open_source
from components.common.storage import ObjectInfo
from components.common.storage.local_files import readable_name
from components.ingest_images.captions import read_captions
from components.ingest_images.config import IngestConfig
from components.ingest_images.decoding import LARGEST_MEMORY, Decoded, bands, decode_picture
from components.ingest_images.preparing import crop_top_left, to_square

logger = logging.getLogger(__name__)

WORKERS = 4
"""Pictures that are worked on at once, as far as `FILES_MEMORY` and `LARGEST_MEMORY` allow."""

FILES_MEMORY = 2 * LARGEST_PICTURE
"""Bytes of files in memory at once: each as it is, and without what lies beside its pixels."""

PREPARED_MEMORY = LARGEST_MEMORY // 2
"""Bytes of all prepared pictures, which are held twice when they are written. `LARGEST_MEMORY` is for them and for what
is decoded beside them, so that the step stays within the 4 GiB that it is given."""

_PREPARED_PIXEL_BYTES = 4  # three colours and a mask
ASPECT_RATIO_WARNED_OF = 1.1
_ERRORS_SHOWN = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepared:
    """A picture ready for the `ImageSet`.

    Attributes:
        picture, pixels, mask: what the `ImageSet` keeps of it.
        content: a digest of what the picture showed before resizing.
        warnings: what its owner should know about how it turned out.
    """

    picture: Picture
    pixels: np.ndarray
    mask: np.ndarray | None
    content: str
    warnings: tuple[str, ...]


class Budget:
    """Bytes of memory that workers share."""

    def __init__(self, size: int) -> None:
        """Takes the bytes that there are."""
        self._size = self._left = size
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def held(self, size: int) -> Iterator[None]:
        """Waits until so many bytes are left, and takes them for the time of the block.

        Raises:
            ImageError: when there are never so many.
        """
        if size > self._size:
            raise ImageError(
                f"the picture is too large: it takes {size / 2**30:.1f} GiB of memory, expected at most"
                f" {self._size / 2**30:.1f} GiB beside the prepared pictures: scale it down, or give fewer pictures"
            )
        with self._changed:
            self._changed.wait_for(lambda: size <= self._left)
            self._left -= size
        try:
            yield
        finally:
            with self._changed:
                self._left += size
                self._changed.notify_all()


def ingest_images(config: IngestConfig, output: Path) -> ImageSet:
    """The pictures of the source as squares of `config.resolution` pixels, sorted by name, and in `output`.

    Pictures that show the same are taken once.

    Raises:
        ImageError: when there is no picture, the source changed since the preflight step, or pictures cannot
            be used; the message names all of them.
        ArtifactError: when `output` cannot be written.
        StorageError: when the source does not give what it lists.
    """
    source = open_source(config.images_uri)
    listing = list_pictures(source)
    if config.images_fingerprint not in ("", listing.fingerprint):
        raise ImageError(
            f"{source.uri} changed since the preflight step of this run (found {listing.fingerprint[:12]}, "
            f"expected {config.images_fingerprint[:12]}): start a new run when nothing writes there any more"
        )
    prepared = _without_duplicates(_prepare_all(source, listing, config))
    images = ImageSet(
        pictures=tuple(each.picture for each in prepared),
        pixels=tuple(each.pixels for each in prepared),
        masks=tuple(each.mask for each in prepared),
    )
    written = images.write(output)
    logger.info(
        "%d pictures of %d x %d from %s, %d with caption, %d with mask",
        len(images.pictures),
        config.resolution,
        config.resolution,
        source.uri,
        sum(picture.caption is not None for picture in images.pictures),
        sum(mask is not None for mask in images.masks),
    )
    return dataclasses.replace(images, digest=written.digest)


def _prepare_all(source: Source, listing: Listing, config: IngestConfig) -> list[Prepared]:
    count, side = len(listing.pictures), config.resolution
    size = count * side**2 * _PREPARED_PIXEL_BYTES
    if size > PREPARED_MEMORY:
        raise ImageError(
            f"{source.uri}: {count} pictures of {side} x {side} pixels take {size / 2**30:.1f} GiB of memory, expected"
            f" at most {PREPARED_MEMORY / 2**30:.1f} GiB: give fewer pictures or a smaller resolution"
        )
    captions = read_captions(source, listing)
    files, decoding = Budget(FILES_MEMORY), Budget(LARGEST_MEMORY - size)

    def attempt(info: ObjectInfo) -> Prepared | str:
        try:
            # In this order: who waits for memory to decode in waits for those alone who need nothing more.
            with files.held(2 * info.size), contextlib.ExitStack() as held:
                decoded = decode_picture(
                    read_listed(source, info),
                    side=side,
                    reserve=lambda size: held.enter_context(decoding.held(size)),
                )
                return _prepare(decoded, info.key, captions.get(info.key), config)
        except ImageError as error:
            return f"{readable_name(info.key)}: {error}"
        except MemoryError:
            return f"{readable_name(info.key)}: there is not enough memory to decode it: scale it down"

    prepared, errors = [], []
    with ThreadPoolExecutor(WORKERS) as pool:
        for result in pool.map(attempt, listing.pictures):
            if isinstance(result, Prepared):
                prepared.append(result)
                _log(result)
            else:
                errors.append(result)
    if errors:
        more = f"; and {len(errors) - _ERRORS_SHOWN} more" if len(errors) > _ERRORS_SHOWN else ""
        raise ImageError(
            f"{len(errors)} of {len(listing.pictures)} pictures in {source.uri} cannot be used: "
            f"{'; '.join(errors[:_ERRORS_SHOWN])}{more}. Replace or remove them"
        )
    return prepared


def _prepare(decoded: Decoded, key: str, caption: str | None, config: IngestConfig) -> Prepared:
    width, height = decoded.size
    side = config.resolution
    if config.small_images == "refuse" and min(width, height) < side:
        raise ImageError(f"{width} x {height} pixels, smaller than {side} x {side}: give a larger picture")

    def squared(image: Image.Image) -> np.ndarray:
        return np.asarray(to_square(image, side, config.interpolation, config.center_crop))

    return Prepared(
        picture=Picture(
            source=readable_name(key),
            caption=caption,
            original_size=(height, width),
            crop_top_left=crop_top_left(width, height, side, config.center_crop),
            size=(side, side),
        ),
        pixels=squared(decoded.picture),
        mask=None if decoded.mask is None else squared(decoded.mask),
        content=_content_digest(decoded),
        warnings=tuple(_warnings(decoded, config)),
    )


def _warnings(decoded: Decoded, config: IngestConfig) -> Iterator[str]:
    (width, height), side = decoded.size, config.resolution
    if decoded.remark:
        yield decoded.remark
    if decoded.animated:
        yield "took the first of several frames"
    if decoded.picture.size != decoded.size:
        draft = "{} x {}".format(*decoded.picture.size)
        yield f"{width} x {height} pixels, decoded as a draft of {draft}: colours may be off by a little"
    if min(width, height) < side:
        yield f"{width} x {height} pixels, smaller than {side} x {side}: enlarged, so what is learned may be blurred"
    ratio = max(width, height) / min(width, height)
    if not config.center_crop and ratio > ASPECT_RATIO_WARNED_OF:
        yield f"{width} x {height} pixels squeezed into a square; center_crop would cut instead"


def _log(prepared: Prepared) -> None:
    picture = prepared.picture
    (height, width), (new_height, new_width) = picture.original_size, picture.size
    logger.info("%s: %d x %d -> %d x %d pixels", picture.source, width, height, new_width, new_height)
    for warning in prepared.warnings:
        logger.warning("%s: %s", picture.source, warning)


def _content_digest(decoded: Decoded) -> str:
    digest = hashlib.sha256(repr(decoded.picture.size).encode())
    for image in filter(None, (decoded.picture, decoded.mask)):
        for box in bands(image.size):
            digest.update(image.crop(box).tobytes())
    return digest.hexdigest()


def _without_duplicates(prepared: Sequence[Prepared]) -> list[Prepared]:
    first: dict[str, Prepared] = {}
    for each in prepared:
        kept = first.setdefault(each.content, each)
        if kept is not each:
            logger.warning("%s: shows the same as %s and is left out", each.picture.source, kept.picture.source)
    return list(first.values())
