"""A picture is the same as a path, as bytes, in a file, from Pillow and as an array."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fapm
import parts
from fapm.errors import FapmError, ImageError
from fapm.pictures import codec

ORIENTATION = 274


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A picture of each kind, large enough for a JPEG to be decoded at a quarter."""
    picture = np.kron(parts.part(3), np.ones((4, 5, 1), np.uint8))
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    for suffix in (".jpg", ".png", ".tif", ".webp", ".bmp"):
        options = {} if suffix == ".bmp" else {"exif": exif}
        Image.fromarray(picture).save(tmp_path / f"colour{suffix}", **options)
    Image.fromarray(picture[..., 0].astype(np.uint16) * 200).save(tmp_path / "deep.png")
    Image.fromarray(np.dstack([picture, picture[..., 0]])).save(tmp_path / "clear.png")
    Image.fromarray(picture).convert("P").save(tmp_path / "palette.png")
    Image.fromarray(picture).convert("CMYK").save(tmp_path / "inks.tif")
    return tmp_path


@pytest.mark.parametrize("edge", [None, 32])
def test_bytes_and_files_are_decoded_as_a_path(folder: Path, edge: int | None) -> None:
    for path in folder.iterdir():
        expected = codec.read(path, edge=edge)
        data = path.read_bytes()
        with path.open("rb") as file:
            file.seek(100)  # as whoever looked at its head has left it
            for source in (data, bytearray(data), memoryview(data), io.BytesIO(data), file):
                found = codec.read(source, edge=edge)
                np.testing.assert_array_equal(found.pixels, expected.pixels)
                assert (found.height, found.width) == (expected.height, expected.width)
        assert codec.read_size(data) == codec.read_size(path)


def test_pillow_pictures_follow_the_same_rules(folder: Path) -> None:
    for path in folder.iterdir():
        expected = codec.read(path)
        with Image.open(path) as picture:
            for _ in range(2):
                found = codec.read(picture)
                np.testing.assert_array_equal(found.pixels, expected.pixels)
                assert found.brightest in (expected.brightest, None)
            assert codec.name_of(picture, "array 1") == str(path)
    with Image.open(folder / "deep.png") as picture:
        assert codec.read(picture).brightest == codec.read(folder / "deep.png").brightest
    with pytest.raises(ImageError, match=r"^array: 32-bit float samples have no fixed range"):
        codec.read(Image.new("F", (8, 8)))
    with pytest.raises(ImageError, match="the limit is 63"):
        codec.read(Image.new("L", (8, 8)), max_pixels=63)


def test_predictions_are_the_same(detector: fapm.Detector, folder: Path) -> None:
    path = folder / "colour.jpg"
    with Image.open(path) as opened, path.open("rb") as file, os.scandir(folder) as entries:
        entry = next(entry for entry in entries if entry.name == "colour.jpg")
        array = codec.read_image(path)
        scores = [
            detector.score(picture)
            for picture in (path, str(path), entry, path.read_bytes(), file, opened, array)
        ]
    assert scores[:5] == [scores[0]] * 5
    assert scores[5] == scores[6]
    assert scores[6] == pytest.approx(scores[0], rel=0.05)  # a quarter: averaged before rounding
    assert detector.predict(entry).source == str(path)
    assert [found.source for found in detector.predict([path.read_bytes(), array])] == [
        "array 0", "array 1",
    ]  # fmt: skip
    assert len(detector.predict(np.array([str(path), str(path)]))) == 2
    [streamed] = detector.stream(path)
    assert streamed.source == str(path)


@pytest.mark.parametrize(("height", "width"), [(130, 150), (200, 255), (252, 503)])
def test_a_jpeg_of_less_than_four_times_the_frame_scores_as_its_pixels(
    detector: fapm.Detector, tmp_path: Path, height: int, width: int
) -> None:
    path = tmp_path / "part.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(noise).save(path, quality=75)
    assert detector.score(path) == detector.score(codec.read_image(path))


class Tensor:
    """Like one of torch's."""

    shape = (64, 64, 3)

    def numpy(self) -> None: ...


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        (np.array("x.png"), "dtype is <U5"),
        (None, "None is not a picture; cv2.imread gives it for a file that is missing"),
        (5, "int is not a NumPy array; expected uint8"),
        (Tensor(), r"Tensor is not a NumPy array; .*; call \.numpy\(\)"),
        (np.zeros((8, 8)), "dtype is float64"),
        (b"", r"the file is empty \(0 bytes\)"),
        (b"notes", "not a JPEG, PNG, BMP, TIFF or WebP picture"),
        (io.StringIO("notes"), "the file is open as text; open it with mode 'rb'"),
    ],
)
def test_what_is_no_picture(detector: fapm.Detector, source: Any, complaint: str) -> None:
    for judge in (detector.predict, detector.score):
        with pytest.raises(ImageError, match=f"^array.*: {complaint}") as caught:
            judge(source)
        assert "\n" not in str(caught.value)
        if not isinstance(source, Tensor):
            with pytest.raises(ImageError, match=complaint):
                judge([parts.part(0), source])
    with pytest.raises(FapmError, match=complaint):
        fapm.fit([source], resize=64)


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_a_matrix_is_a_grey_picture() -> None:
    grey = parts.part(0)[..., 0]
    np.testing.assert_array_equal(codec.as_image(np.matrix(grey)), codec.as_image(grey))


def test_a_closed_file_says_so() -> None:
    file = io.BytesIO(b"x")
    file.close()
    with pytest.raises(ImageError, match="cannot be read: I/O operation on closed file"):
        codec.read(file)


def test_fit_takes_what_predict_takes(tmp_path: Path) -> None:
    paths = [parts.save(tmp_path / f"{i}.png", parts.part(i)) for i in range(4)]
    by_path = fapm.fit(paths, resize=64)
    with paths[0].open("rb") as file:
        mixed = [file, paths[1].read_bytes(), Image.open(paths[2]), codec.read_image(paths[3])]
        found = fapm.fit(mixed, resize=64, keep_aspect=True)
    assert fapm.fit(np.array([str(p) for p in paths]), resize=64).threshold_ == by_path.threshold_
    assert found.fitted_.pictures == ("array 0", "array 1", "array 2", "array 3")
    assert found.threshold_ == pytest.approx(by_path.threshold_)
    with os.scandir(tmp_path) as entries:
        listed = sorted(entries, key=lambda entry: entry.name)
    assert fapm.fit(listed, resize=64).fitted_.pictures == by_path.fitted_.pictures
