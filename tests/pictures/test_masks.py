"""A mask says where a defect is, or it is said that it does not."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from conftest import Command
from fapm.errors import ImageError, MaskError
from fapm.pictures.masks import looks_like_mask, read_masks


def blob(value: int = 255) -> NDArray[np.uint8]:
    mask = np.zeros((48, 64), np.uint8)
    mask[10:30, 20:50] = value
    return mask


def save(path: Path, mask: NDArray[np.generic], **how: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path, **how)
    return path


def read(*paths: Path, shape: tuple[int, int] = (48, 64)) -> NDArray[np.bool_]:
    return read_masks(paths, *shape).inside


def test_mask_is_true_where_the_picture_is_not_black(tmp_path: Path) -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[2:4, 4:6] = 1
    expected = mask > 0
    Image.fromarray(mask).save(tmp_path / "grey.png")
    Image.fromarray(mask.astype(np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(mask.astype(np.float32)).save(tmp_path / "float.tif")
    Image.fromarray(mask.astype(bool)).save(tmp_path / "bit.png")
    Image.fromarray(mask[..., None] * np.array([0, 0, 255], np.uint8)).save(tmp_path / "blue.bmp")
    indexed = Image.fromarray(mask)
    indexed.putpalette([0, 0, 0, 128, 0, 0])
    indexed.save(tmp_path / "palette.png")
    for name in ("grey.png", "deep.png", "float.tif", "bit.png", "blue.bmp", "palette.png"):
        found = read(tmp_path / name, shape=(8, 8))
        assert found.dtype == np.bool_
        np.testing.assert_array_equal(found, expected, err_msg=name)


def test_a_mask_takes_the_size_of_its_picture(tmp_path: Path) -> None:
    mask = save(tmp_path / "mask.png", blob())
    found = read(mask, shape=(96, 128))
    assert found[20:60, 40:100].all()
    assert found.sum() == 40 * 60
    # A thumbnail's edges were rounded.
    assert read(save(tmp_path / "small.png", blob()[:, :63]), shape=(767, 1003)).any()


def test_mask_errors_name_the_mask(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"none_mask\.png: no such file"):
        read(tmp_path / "none_mask.png")


@pytest.mark.parametrize("quality", [60, 75, 90, 95])
def test_what_jpeg_adds_around_a_defect_does_not_count(quality: int, tmp_path: Path) -> None:
    mask = save(tmp_path / "mask.jpg", blob(), quality=quality)
    assert (np.asarray(Image.open(mask)) > 0).sum() > blob().astype(bool).sum()  # it does add
    found = read_masks([mask], 48, 64)
    np.testing.assert_array_equal(found.inside, blob() > 0)
    assert found.graded


def test_a_smoothed_mask_counts_from_half(tmp_path: Path) -> None:
    smooth = cv2.GaussianBlur(blob(), (9, 9), 3)
    found = read_masks([save(tmp_path / "mask.png", smooth)], 48, 64)
    assert found.graded
    assert abs(int(found.inside.sum()) - 20 * 30) < 30


def test_numbered_objects_all_count(tmp_path: Path) -> None:
    numbers = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64)
    found = read_masks([save(tmp_path / "mask.png", numbers)], 48, 64)
    assert not found.graded
    assert found.inside.sum() == 48 * 64 - 1


def test_a_mask_of_another_shape_is_refused(tmp_path: Path) -> None:
    turned = save(tmp_path / "turned.png", blob().T.copy())
    with pytest.raises(MaskError, match=r"turned\.png: the mask has 48 x 64 .* picture 64 x 48"):
        read(turned)
    with pytest.raises(MaskError, match="of another shape"):
        read(save(tmp_path / "wide.png", blob()), shape=(480, 655))


def test_several_masks_are_merged(tmp_path: Path) -> None:
    upper, lower = blob(), blob()
    upper[20:], lower[:20] = 0, 0
    found = read(save(tmp_path / "0.png", upper), save(tmp_path / "1.png", lower))
    np.testing.assert_array_equal(found, blob() > 0)


def test_a_black_mask_says_nothing(tmp_path: Path) -> None:
    black = save(tmp_path / "black.png", blob(0))
    with pytest.raises(MaskError, match=r"black\.png: the mask of a defect is black everywhere"):
        read(black)
    assert read(black, save(tmp_path / "other.png", blob())).any()


def test_masks_whose_colours_are_all_black(tmp_path: Path) -> None:
    labels = Image.fromarray(blob(1))
    labels.putpalette([0] * 6)
    labels.save(tmp_path / "palette.png")
    alpha = np.zeros((48, 64, 4), np.uint8)
    alpha[..., 3] = blob()
    for path in (tmp_path / "palette.png", save(tmp_path / "alpha.png", alpha)):
        np.testing.assert_array_equal(read(path), blob() > 0, err_msg=path.name)


def test_a_picture_does_not_look_like_a_mask(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (48, 64), np.uint8)
    assert looks_like_mask(save(tmp_path / "mask.png", blob()))
    assert not looks_like_mask(save(tmp_path / "picture.png", noise))


def test_evaluate_warns_of_masks_and_leaves_their_pictures_out_of_pixel_metrics(
    run: Command, washers: Path, model: Path, tmp_path: Path
) -> None:
    root = tmp_path / "washer"
    shutil.copytree(washers, root)
    masks = root / "ground_truth" / "hole"
    save(masks / "000_mask.png", np.zeros((64, 48), np.uint8))
    save(masks / "001_mask.png", np.zeros((64, 64), np.uint8))
    Image.open(masks / "002_mask.png").save(masks / "002_mask.jpg")
    (masks / "002_mask.png").unlink()
    finished = run("evaluate", root, "--model", model, "--quiet")
    assert finished.code == 0
    assert finished.err == ""
    finished = run("evaluate", root, "--model", model)
    warned = [line for line in finished.err.splitlines() if line.startswith("warning: ")]
    assert len(warned) == 3
    assert "000_mask.png: the mask has 48 x 64 pixels and its picture 64 x 64" in warned[0]
    assert "001_mask.png: the mask of a defect is black" in warned[1]
    assert all("does not count in pixel metrics" in line for line in warned[:2])
    assert "masks that are JPEG or have more than 16 grey levels: 1 of 1, e.g. " in warned[2]
    assert "pixel AUROC   -" not in finished.out
