"""Pictures from a source to an `ImageSet`: checked, upright, square."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from components.common.artifacts import ImageSet, Picture
from components.common.errors import ImageError
from components.common.sources.picture_listing import Listing, list_pictures
from components.common.sources.pictures import Source, open_source
from components.common.storage.local_files import readable_name
from components.ingest_images.captions import read_captions
from components.ingest_images.config import IngestConfig
from components.ingest_images.decoding import Decoded, decode_picture
from components.ingest_images.preparing import crop_top_left, to_square

logger = logging.getLogger(__name__)

WORKERS = 4
"""Pictures in memory at once; a photograph of 24 megapixels takes about 150 MB while it is decoded."""

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
    captions = read_captions(source, listing)

    def attempt(key: str) -> Prepared | str:
        try:
            return _prepare(source.read(key), key, captions.get(key), config)
        except ImageError as error:
            return f"{readable_name(key)}: {error}"

    prepared, errors = [], []
    with ThreadPoolExecutor(WORKERS) as pool:
        for result in pool.map(attempt, [info.key for info in listing.pictures]):
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


def _prepare(data: bytes, key: str, caption: str | None, config: IngestConfig) -> Prepared:
    decoded = decode_picture(data)
    width, height = decoded.picture.size
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
    (width, height), side = decoded.picture.size, config.resolution
    if decoded.remark:
        yield decoded.remark
    if decoded.frames > 1:
        yield f"took the first of {decoded.frames} frames"
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
    for image in (decoded.picture, decoded.mask):
        if image is not None:
            digest.update(image.tobytes())
    return digest.hexdigest()


def _without_duplicates(prepared: Sequence[Prepared]) -> list[Prepared]:
    first: dict[str, Prepared] = {}
    for each in prepared:
        kept = first.setdefault(each.content, each)
        if kept is not each:
            logger.warning("%s: shows the same as %s and is left out", each.picture.source, kept.picture.source)
    return list(first.values())
