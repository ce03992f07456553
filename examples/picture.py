"""From a picture's file to the frame that an exported graph takes, and from its score to a verdict.

Both Python examples use it; copy it beside your program. It needs numpy and pillow alone, and does
what FAPM does with the same file, so that scores agree.
"""

import numpy as np
from PIL import Image, ImageOps

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
BITS, SAMPLES = 258, 339  # TIFF tags: bits of a sample, and whether it has a sign
HIDDEN = 16  # alpha below it everywhere is a byte that nobody filled, and is ignored
SHAPE = 0.1  # a picture's aspect ratio may differ by this share from that of the good ones


def read_frame(path, about):
    """The frame of the picture in a file, RGB uint8 [h, w, 3]; about: detector.json.

    Raises ValueError, which names the file, where the picture cannot be used.
    """
    try:
        picture = read_picture(path)
        check_shape(picture, about.get("picture"))
        return frame_of(picture, about)
    except Exception as error:  # damaged bytes make Pillow raise nearly anything
        raise ValueError(f"{path}: {error}") from error


def read_picture(path):
    """The picture in a file, RGB uint8 [H, W, 3], upright, without transparency."""
    with Image.open(path, formats=FORMATS) as picture:
        check_samples(picture)
        picture.load()
        upright = ImageOps.exif_transpose(picture)
    if upright.mode.startswith("I"):
        grey = (np.asarray(upright) >> 8).astype(np.uint8)  # the high byte, whatever the content
        return np.repeat(grey[:, :, None], 3, axis=2)
    if not upright.has_transparency_data:
        return np.array(upright.convert("RGB"))
    rgba = np.array(upright.convert("RGBA"))
    colours, alpha = rgba[:, :, :3], rgba[:, :, 3:]
    if alpha.max() < HIDDEN:
        return np.ascontiguousarray(colours)
    return ((colours.astype(np.uint16) * alpha + 127) // 255).astype(np.uint8)  # over black


def check_samples(picture):
    """Refuse samples without a fixed range, and TIFFs that libraries read in different ways."""
    deep = picture.mode == "F" or (picture.mode == "I" and picture.format != "PNG")
    if picture.format == "TIFF":
        bits, kinds = picture.tag_v2.get(BITS, (1,)), picture.tag_v2.get(SAMPLES, (1,))
        deep = deep or not {*bits} <= {1, 8} or {*kinds} != {1}
    if deep:
        raise ValueError("not read by this example; save it as a PNG of 8 or 16 bits")


def check_shape(picture, expected):
    """Refuse a picture of another shape where frames keep it; expected: [height, width] or None."""
    if expected is None:
        return
    (height, width), (high, wide) = picture.shape[:2], expected
    if abs(high * width / (wide * height) - 1) >= SHAPE:
        raise ValueError(f"{width} x {height} pixels are another shape than {wide} x {high}")


def frame_of(picture, about):
    """A picture resized, and cropped where about says so."""
    size = about["resize"]
    height, width = size if isinstance(size, list) else (size, size)
    method = getattr(Image.Resampling, about["interpolation"].upper())
    image = Image.fromarray(picture)
    # Pictures far larger than frames are first averaged, by 2, 4, 8 ...
    times = min(image.width // width, image.height // height)
    if times > 1:
        image = image.reduce(1 << (times.bit_length() - 1))
    resized = image.resize((width, height), method)
    crop = about["crop"]
    if crop is None:
        return np.array(resized)
    top, left = (height - crop) // 2, (width - crop) // 2
    return np.array(resized)[top : top + crop, left : left + crop]


def verdict_of(score, about):
    """good, unsure or defect; - where one good picture gave no threshold."""
    if about["threshold"] is None:
        return "-"
    if score > about["threshold"]:
        return "defect"
    return "unsure" if score > about["unsure_threshold"] else "good"


def line_of(path, score, anomaly_map, about):
    """What to print of a picture; the worst place is a share of the frame's width and height."""
    height, width = anomaly_map.shape
    y, x = np.unravel_index(anomaly_map.argmax(), anomaly_map.shape)
    verdict = verdict_of(score, about)
    return f"{verdict} {score:.6g} worst at {x / width:.2f}, {y / height:.2f} {path}"
