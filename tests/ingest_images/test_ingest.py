"""Pictures from a folder to an `ImageSet`."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.common.artifacts import ImageSet
from components.common.errors import ArtifactError, ConfigError, ImageError, InputError, StorageError
from components.common.sources.picture_listing import fingerprint_images
from components.ingest_images.config import INTERPOLATIONS, IngestConfig
from components.ingest_images.ingest import ingest_images
from tests.ingest_images.conftest import random_pixels


def ingest(folder: Path, **settings: object) -> ImageSet:
    """The image set of a folder, as it is read back from disk."""
    output = folder.parent / "out"
    given = ingest_images(IngestConfig(images_uri=str(folder), **{"resolution": 32, **settings}), output)
    read = ImageSet.read(output)
    assert read.pictures == given.pictures
    assert read.digest == given.digest
    return read


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def as_the_reference_does(image: Image.Image, size: int, interpolation: str, center_crop: bool) -> np.ndarray:
    """The picture as `TextualInversionDataset` of diffusers prepares it, before the flip."""
    resampling = {
        "linear": Image.Resampling.BILINEAR,
        "bilinear": Image.Resampling.BILINEAR,
        "bicubic": Image.Resampling.BICUBIC,
        "lanczos": Image.Resampling.LANCZOS,
        "nearest": Image.Resampling.NEAREST,
    }
    pixels = np.array(image).astype(np.uint8)
    if center_crop:
        h, w = pixels.shape[:2]
        crop = min(h, w)
        pixels = pixels[(h - crop) // 2 : (h + crop) // 2, (w - crop) // 2 : (w + crop) // 2]
    return np.array(Image.fromarray(pixels).resize((size, size), resample=resampling[interpolation]))


@pytest.mark.parametrize("center_crop", [False, True])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_pixels_when_any_interpolation_equal_the_reference(interpolation: str, center_crop: bool, folder: Path) -> None:
    shapes = [(50, 50), (47, 64), (64, 47), (33, 100), (20, 31)]
    for index, (height, width) in enumerate(shapes):
        Image.fromarray(random_pixels(height, width, seed=index)).save(folder / f"{index}.png")
    images = ingest(folder, interpolation=interpolation, center_crop=center_crop)
    for index, (shape, pixels) in enumerate(zip(shapes, images.pixels, strict=True)):
        source = Image.fromarray(random_pixels(*shape, seed=index))
        np.testing.assert_array_equal(pixels, as_the_reference_does(source, 32, interpolation, center_crop))


def test_pictures_when_cropped_say_where(folder: Path) -> None:
    Image.fromarray(random_pixels(100, 64)).save(folder / "tall.png")
    Image.fromarray(random_pixels(64, 129)).save(folder / "wide.png")
    tall, wide = ingest(folder, center_crop=True).pictures
    assert (tall.source, tall.original_size, tall.size) == ("tall.png", (100, 64), (32, 32))
    assert tall.crop_top_left == (9, 0)  # (100 - 64) / 2 pixels, halved with the picture
    assert wide.crop_top_left == (0, 16)
    assert [picture.crop_top_left for picture in ingest(folder).pictures] == [(0, 0), (0, 0)]


def test_pictures_when_listed_are_sorted_and_logged(three_pictures: Path, caplog: pytest.LogCaptureFixture) -> None:
    (three_pictures / "more").mkdir()
    Image.fromarray(random_pixels(40, 40, seed=9)).save(three_pictures / "more" / "10.JPG")
    with caplog.at_level(logging.INFO):
        images = ingest(three_pictures)
    assert [picture.source for picture in images.pictures] == ["0.png", "1.png", "2.png", "more/10.JPG"]
    assert "1.png: 60 x 40 -> 32 x 32 pixels" in caplog.text
    assert f"4 pictures of 32 x 32 from file://{three_pictures}, 1 with caption, 0 with mask" in caplog.text


def test_digest_when_run_twice_is_the_same(three_pictures: Path) -> None:
    assert ingest(three_pictures).digest == ingest(three_pictures).digest


def test_hidden_and_system_files_when_present_make_no_noise(
    three_pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (three_pictures / ".git").mkdir()
    (three_pictures / ".git" / "x.png").write_bytes(b"no picture")
    (three_pictures / "__MACOSX").mkdir()
    (three_pictures / "__MACOSX" / "0.png").write_bytes(b"no picture")
    (three_pictures / "README.md").write_text("what this is")
    (three_pictures / "notes.txt").write_text("of no picture")
    assert len(ingest(three_pictures, center_crop=True).pictures) == 3
    assert warnings_of(caplog) == []


def test_pictures_when_in_several_folders_are_taken_with_a_warning(
    three_pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (three_pictures / "more").mkdir()
    (three_pictures / "0.png").rename(three_pictures / "more" / "0.png")
    assert len(ingest(three_pictures, center_crop=True).pictures) == 3
    (line,) = warnings_of(caplog)
    assert line.endswith("pictures lie in several folders, and all are taken: ., more")


def test_unknown_files_when_present_are_named_in_one_line(
    three_pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (three_pictures / "IMG_1.HEIC").write_bytes(b"x")
    (three_pictures / "b.pdf").write_bytes(b"x")
    ingest(three_pictures, center_crop=True)
    (line,) = warnings_of(caplog)
    assert "left out IMG_1.HEIC, b.pdf" in line
    assert ".png .jpg" in line


def test_source_when_empty_says_what_is_expected(folder: Path) -> None:
    with pytest.raises(ImageError, match=rf"no picture in file://{folder}: it holds nothing; .* \.png \.jpg"):
        ingest(folder)


def test_source_when_without_pictures_says_what_is_there(folder: Path) -> None:
    for index in range(7):
        (folder / f"{index}.pdf").write_bytes(b"x")
    with pytest.raises(ImageError, match=r"it holds 0\.pdf, 1\.pdf, .* 4\.pdf and 2 more; expected"):
        ingest(folder)


def test_source_when_folder_is_missing_says_so(folder: Path) -> None:
    with pytest.raises(ImageError, match=f"found no folder {folder}/cats"):
        ingest(folder / "cats")


def test_source_when_it_is_a_file_says_so(three_pictures: Path) -> None:
    with pytest.raises(ImageError, match=r"found a file at .*0\.png, expected a folder of pictures"):
        ingest(three_pictures / "0.png")


def test_source_when_it_looks_like_a_dataset_name_gives_the_address(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="hf://datasets/diffusers/cat_toy_example"):
        ingest_images(IngestConfig(images_uri="diffusers/cat_toy_example"), tmp_path / "out")


def test_source_when_the_scheme_is_unknown_names_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'ftp'.*gs://bucket/prefix, s3://"):
        ingest_images(IngestConfig(images_uri="ftp://host/pictures"), tmp_path / "out")


def test_pictures_when_several_are_bad_are_all_named(three_pictures: Path) -> None:
    good = (three_pictures / "0.png").read_bytes()
    (three_pictures / "3.png").write_bytes(good[: len(good) // 2])
    (three_pictures / "4.jpg").write_bytes(b"<html>not found</html>")
    (three_pictures / "5.gif").write_bytes(b"")
    with pytest.raises(ImageError) as caught:
        ingest(three_pictures)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"3 of 6 pictures in file://{three_pictures} cannot be used: ")
    assert "3.png: the picture is damaged or cut short" in message
    assert "4.jpg: this is no picture that can be read: it begins with b'<html>not found<'" in message
    assert "5.gif: the file is empty" in message
    assert not (three_pictures.parent / "out").exists()


def test_pictures_when_hundreds_are_bad_are_counted(folder: Path) -> None:
    for index in range(150):
        (folder / f"{index:03d}.png").write_bytes(b"no")
    with pytest.raises(ImageError, match=r"150 of 150 pictures .* 019\.png: .*; and 130 more") as caught:
        ingest(folder)
    assert "020.png" not in str(caught.value)


def test_small_picture_when_warned_of_is_enlarged(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.fromarray(random_pixels(31, 31)).save(folder / "a.png")
    Image.fromarray(random_pixels(32, 32)).save(folder / "b.png")
    assert ingest(folder).pixels[0].shape == (32, 32, 3)
    (line,) = warnings_of(caplog)
    assert line.startswith("a.png: 31 x 31 pixels, smaller than 32 x 32: enlarged")


def test_small_picture_when_refused_is_named(folder: Path) -> None:
    Image.fromarray(random_pixels(31, 400)).save(folder / "a.png")
    Image.fromarray(random_pixels(32, 32)).save(folder / "b.png")
    with pytest.raises(ImageError, match=r"1 of 2 pictures .*a\.png: 400 x 31 pixels, smaller than 32 x 32"):
        ingest(folder, small_images="refuse")


@pytest.mark.parametrize(
    ("height", "width", "center_crop", "warned"),
    [(40, 44, False, False), (40, 45, False, True), (45, 40, False, True), (40, 80, True, False)],
)
def test_distortion_when_more_than_a_tenth_is_warned_of(
    height: int, width: int, center_crop: bool, warned: bool, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.fromarray(random_pixels(height, width)).save(folder / "a.png")
    ingest(folder, center_crop=center_crop)
    assert [("squeezed into a square" in line) for line in warnings_of(caplog)] == [True] * warned


def test_duplicates_when_present_are_taken_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.fromarray(random_pixels(40, 40)).save(folder / "a.png")
    Image.fromarray(random_pixels(40, 40)).save(folder / "b.bmp")  # the same picture in another format
    shutil.copy(folder / "a.png", folder / "c.png")
    Image.fromarray(random_pixels(40, 40, seed=1)).save(folder / "d.png")
    assert [picture.source for picture in ingest(folder).pictures] == ["a.png", "d.png"]
    assert warnings_of(caplog) == [
        "b.bmp: shows the same as a.png and is left out",
        "c.png: shows the same as a.png and is left out",
    ]


def test_duplicates_when_only_the_shape_differs_are_kept(folder: Path) -> None:
    Image.new("RGB", (40, 50), "red").save(folder / "a.png")
    Image.new("RGB", (50, 40), "red").save(folder / "b.png")
    assert len(ingest(folder).pictures) == 2


def test_first_frame_when_animated_is_taken(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(folder / "a.gif", save_all=True, append_images=frames[1:])
    (pixels,) = ingest(folder).pixels
    assert (pixels == [255, 0, 0]).all()
    assert warnings_of(caplog) == ["a.gif: took the first of several frames"]


def test_mask_when_partly_transparent_is_resized_like_the_picture(folder: Path) -> None:
    rgba = random_pixels(60, 40, 4)
    rgba[:, :, 3] = 255
    rgba[:30, :, 3] = 0
    Image.fromarray(rgba).save(folder / "a.png")
    Image.fromarray(random_pixels(40, 40, seed=3)).save(folder / "b.png")
    images = ingest(folder, center_crop=True, interpolation="nearest")
    mask, none = images.masks
    assert none is None
    assert mask is not None
    assert mask.shape == (32, 32)
    assert (mask[:16] == 0).all()
    assert (mask[16:] == 255).all()
    assert (images.pixels[0][:16] == 255).all()  # on white


def test_captions_when_beside_the_picture_are_kept(three_pictures: Path) -> None:
    lines = [
        {"file_name": "0.png", "text": "the text file comes before this"},
        {"file_name": "1.png", "text": "  from \n metadata ", "other": 1},
        {"file_name": "2.png", "text": ""},
    ]
    (three_pictures / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    captions = [picture.caption for picture in ingest(three_pictures).pictures]
    assert captions == ["a toy cat", "from metadata", None]


def test_captions_when_in_a_subfolder_belong_to_its_pictures(folder: Path) -> None:
    (folder / "train").mkdir()
    for name in ("a.png", "train/a.png"):
        Image.fromarray(random_pixels(40, 40, seed=len(name))).save(folder / name)
    (folder / "train" / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "inner"}')
    pictures = ingest(folder).pictures
    assert [(picture.source, picture.caption) for picture in pictures] == [
        ("a.png", None),
        ("train/a.png", "inner"),
    ]


def test_captions_when_metadata_names_no_picture_is_warned_of(
    three_pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (three_pictures / "metadata.jsonl").write_text('{"file_name": "cat.png", "text": "x"}')
    ingest(three_pictures, center_crop=True)
    (line,) = warnings_of(caplog)
    assert "metadata.jsonl names cat.png, which is no picture here" in line


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"file_name": "0.png"', "line 2 of metadata.jsonl is no JSON"),
        ("[]", "line 2 of metadata.jsonl is .*expected"),
        ('{"image": "0.png", "text": "x"}', "line 2 of metadata.jsonl is .*file_name"),
        ('{"file_name": "0.png", "text": 5}', "line 2 of metadata.jsonl has the text 5"),
    ],
)
def test_captions_when_metadata_is_malformed_name_the_line(line: str, message: str, three_pictures: Path) -> None:
    (three_pictures / "metadata.jsonl").write_text('{"file_name": "0.png", "text": "x"}\n' + line)
    with pytest.raises(ImageError, match=message):
        ingest(three_pictures)


def test_captions_when_they_have_control_characters_name_the_line(three_pictures: Path) -> None:
    (three_pictures / "1.txt").write_text("a toy\ncat\0")
    with pytest.raises(ImageError, match=r"line 2 of 1\.txt has the control character U\+0000"):
        ingest(three_pictures)


def test_captions_when_not_utf8_name_the_file(three_pictures: Path) -> None:
    (three_pictures / "1.txt").write_bytes("Kätzchen".encode("latin-1"))
    with pytest.raises(ImageError, match=r"1\.txt is no UTF-8 text"):
        ingest(three_pictures)
    (three_pictures / "1.txt").write_bytes("Kätzchen".encode("utf-8-sig"))
    assert ingest(three_pictures).pictures[1].caption == "Kätzchen"


def test_fingerprint_when_nothing_relevant_changes_is_the_same(three_pictures: Path) -> None:
    first = fingerprint_images(str(three_pictures))
    (three_pictures / "README.md").write_text("x")
    (three_pictures / ".DS_Store").write_bytes(b"y")
    assert fingerprint_images(f"file://{three_pictures}/") == first


@pytest.mark.parametrize("change", ["picture", "caption", "new", "renamed", "removed"])
def test_fingerprint_when_something_changes_is_another(change: str, three_pictures: Path) -> None:
    first = fingerprint_images(str(three_pictures))
    match change:
        case "picture":
            raw = bytearray((three_pictures / "0.png").read_bytes())
            raw[-1] ^= 1
            (three_pictures / "0.png").write_bytes(raw)
        case "caption":
            (three_pictures / "0.txt").write_text("a toy dog")
        case "new":
            shutil.copy(three_pictures / "0.png", three_pictures / "9.png")
        case "renamed":
            (three_pictures / "0.png").rename(three_pictures / "9.png")
        case "removed":
            (three_pictures / "0.png").unlink()
    assert fingerprint_images(str(three_pictures)) != first


def test_fingerprint_when_there_is_no_picture_refuses(folder: Path) -> None:
    with pytest.raises(ImageError, match="found no picture"):
        fingerprint_images(str(folder))


def test_ingest_when_the_listing_is_as_expected_goes_on_and_else_refuses(three_pictures: Path) -> None:
    expected = fingerprint_images(str(three_pictures))
    assert len(ingest(three_pictures, images_fingerprint=expected).pictures) == 3
    (three_pictures / "0.png").unlink()
    with pytest.raises(ImageError, match=r"changed since the preflight step.*start a new run"):
        ingest(three_pictures, images_fingerprint=expected)


def test_output_when_it_holds_other_things_is_refused(three_pictures: Path) -> None:
    config = IngestConfig(images_uri=str(three_pictures), resolution=32)
    with pytest.raises(ArtifactError, match="folder with other things in it"):
        ingest_images(config, three_pictures)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"images_uri": ""}, "images_uri: found nothing, expected a folder of example pictures"),
        ({"images_uri": "  "}, "images_uri: found .  ., expected it without white space around it"),
        ({"resolution": 0}, "resolution: found 0"),
        ({"resolution": -512}, "resolution: found -512"),
        ({"interpolation": "hamming"}, "interpolation: found 'hamming', expected one of linear, bilinear, bicu"),
        ({"interpolation": ""}, "interpolation: found ''"),
        ({"small_images": "drop"}, "small_images: found 'drop', expected one of warn, refuse"),
    ],
)
def test_config_when_a_value_cannot_be_right_names_the_field(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        IngestConfig(**{"images_uri": "x", **settings})


def test_names_when_they_are_no_utf8_are_shown_escaped(three_pictures: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for ending in (".png", ".txt"):
        (three_pictures / f"0{ending}").rename(three_pictures / os.fsdecode(b"k\xe4tzchen" + ending.encode()))
    pictures = {picture.source: picture.caption for picture in ingest(three_pictures).pictures}
    assert pictures == {"1.png": None, "2.png": None, "k\\xe4tzchen.png": "a toy cat"}
    assert "k\\xe4tzchen.png: 40 x 40" in caplog.text
    assert len(fingerprint_images(str(three_pictures))) == 64


def test_fingerprint_when_names_are_utf8_stays_what_it_was(folder: Path) -> None:
    for name in ("słowo.png", "a b.png", "100%.png", "x\\xe4.png"):
        (folder / name).write_bytes(b"x")
    version = hashlib.sha256(b"x").hexdigest()
    names = sorted(["słowo.png", "a b.png", "100%.png", "x\\xe4.png"])
    listed = json.dumps([[name, 1, version] for name in names], separators=(",", ":"), ensure_ascii=False)
    assert fingerprint_images(str(folder)) == hashlib.sha256(listed.encode()).hexdigest()


@pytest.mark.parametrize("key", ["a.png", "0.txt", "notes.pdf"])
def test_source_when_one_file_is_a_dead_link_is_refused(three_pictures: Path, key: str) -> None:
    (three_pictures / key).unlink(missing_ok=True)
    (three_pictures / key).symlink_to("../gone")
    for use in (lambda: ingest(three_pictures), lambda: fingerprint_images(str(three_pictures))):
        with pytest.raises(StorageError, match=rf"{key} -> \.\./gone: bring back"):
            use()


def test_source_when_it_is_a_dead_link_says_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "pictures").symlink_to("volume/pictures")
    with pytest.raises(ImageError, match=r"leads nowhere, .*/pictures -> volume/pictures"):
        ingest(tmp_path / "pictures")


def test_orientation_when_exif_is_damaged_is_warned_of(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.fromarray(random_pixels(40, 40)).save(folder / "0.png", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert len(ingest(folder).pictures) == 1
    assert "0.png: its EXIF cannot be read (its directory lies outside of it)" in caplog.text
