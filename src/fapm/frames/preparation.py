"""From pictures to frames, which the encoder sees. No torch here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fapm.config import Config
from fapm.errors import ImageError
from fapm.frames.align import Aligner, Registration
from fapm.frames.layout import Layout, layout_of
from fapm.frames.light import Light, relit
from fapm.frames.look import Look, look
from fapm.frames.roi import Roi, shape_error
from fapm.pictures import codec
from fapm.pictures.resize import prepare_mask, resize_mask
from fapm.pictures.sources import Picture

_LISTED = 5  # failures that have a line each


@dataclass(frozen=True)
class Failure:
    """A picture that could not be inspected, and why, in one line."""

    source: str
    error: str


def summary(failures: Sequence[Failure]) -> list[str]:
    """A few failures line by line, many in one."""
    if len(failures) <= _LISTED:
        return [failure.error for failure in failures]
    return [
        f"{len(failures)} pictures, which fapm info --json lists; the first: {failures[0].error}"
    ]


_THUMBNAIL = 160  # pixels of the longer side


@dataclass(frozen=True)
class Frame:
    """A picture made ready: RGB uint8 ``[h, w, 3]``, its name, and its size before.

    ``registration`` says where the pixels lay before they were put in the template's place; None
    without alignment.
    ``look`` is what drift is measured by, where it is asked for.
    ``turned`` are further frames of the picture, turned by equal steps (``Config.rotations``).
    ``alpha_ignored`` and ``brightest`` are those of :class:`fapm.pictures.codec.Decoded`.
    """

    name: str
    pixels: NDArray[np.uint8]
    height: int
    width: int
    thumbnail: bytes | None = None
    registration: Registration | None = None
    look: Look | None = None
    turned: tuple[NDArray[np.uint8], ...] = ()
    alpha_ignored: bool = False
    brightest: int | None = None


def read_frame(
    picture: Picture,
    config: Config,
    interpolation: codec.Interpolation,
    *,
    max_pixels: int,
    layout: Layout | None = None,
    name: str = "array",
    thumbnail: bool = False,
    roi: Roi | None = None,
    light: Light | None = None,
    aligner: Aligner | None = None,
    with_look: bool = False,
    turned: bool = False,
) -> Frame | Failure:
    """Decode and resize one picture; a :class:`Failure` if it cannot be used.

    ``name`` is what a picture without a path is called; a file is called by its path. One of
    another shape than ``layout`` is for (by default any), or than ``roi`` was drawn on, cannot be
    used. With a ``light`` the frame is made as bright as that says, with an ``aligner`` it is put
    in its template's place. With ``turned`` it comes with those of the picture turned, for
    memorising.
    """
    layout = layout or layout_of(config)
    name = codec.name_of(picture, name)
    try:
        found = codec.read(
            picture, name=name, edge=reduced_edge(config, layout), max_pixels=max_pixels
        )
    except ImageError as error:
        return Failure(name, str(error))
    pixels, height, width = found.pixels, found.height, found.width
    if reason := layout.error((height, width)) or shape_error(roi, (height, width)):
        return Failure(name, f"{name}: {reason}")

    def prepared(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return frame_pixels(picture, config, layout, interpolation)

    frame = prepared(pixels)
    # What the camera shows: wherever the part lies, whatever the light.
    seen = look(frame) if with_look else None
    table = None if light is None else light.table(frame)
    frame = relit(frame, table)
    registration = None
    if aligner is not None:
        registration = aligner.register(frame)
        frame = aligner.place(frame, registration)
    # Turned before it is resized: a frame that is squashed to a square would be sheared.
    angles = [360 * i / config.rotations for i in range(1, config.rotations)] if turned else []
    return Frame(
        name,
        frame,
        height,
        width,
        _thumbnail(pixels) if thumbnail else None,
        registration,
        seen,
        tuple(relit(prepared(codec.rotate(pixels, angle)), table) for angle in angles),
        found.alpha_ignored,
        found.brightest,
    )


def frame_pixels(
    picture: NDArray[np.uint8], config: Config, layout: Layout, interpolation: codec.Interpolation
) -> NDArray[np.uint8]:
    """A picture's frame, RGB uint8 ``[h, w, 3]``."""
    if config.follows_pictures:
        return codec.resize_image(picture, *layout.shape, interpolation)
    return codec.prepare(picture, config.resize, config.crop, interpolation)


def reduced_edge(config: Config, layout: Layout) -> int:
    """How many pixels a picture's edges must keep when it is read."""
    return max(layout.shape) if config.follows_pictures else config.resize


def map_mask(mask: NDArray[np.bool_], config: Config, layout: Layout) -> NDArray[np.bool_]:
    """A picture's mask where its anomaly map is: bool ``[H, W]`` to ``[h, w]``."""
    if config.follows_pictures:
        return resize_mask(mask, *layout.map_shape)
    return prepare_mask(mask, config.resize, config.crop)


def readable_frames(
    pictures: Iterable[Picture],
    config: Config,
    interpolation: codec.Interpolation,
    *,
    count: int,
    max_pixels: int,
    layout: Layout | None = None,
) -> tuple[list[Picture], list[NDArray[np.uint8]]]:
    """The first ``count`` pictures that can be read, and their frames, RGB uint8 ``[h, w, 3]``.

    Raises
    ------
    ImageError
        None can be read.
    """
    chosen: list[Picture] = []
    frames: list[NDArray[np.uint8]] = []
    error = ""
    for picture in pictures:
        frame = read_frame(picture, config, interpolation, max_pixels=max_pixels, layout=layout)
        if isinstance(frame, Failure):
            error = error or frame.error
            continue
        chosen.append(picture)
        frames.append(frame.pixels)
        if len(frames) == count:
            break
    if not frames:
        raise ImageError(f"no picture could be read; the first: {error}")
    return chosen, frames


def _thumbnail(pixels: NDArray[np.uint8]) -> bytes:
    height, width = pixels.shape[:2]
    scale = min(1.0, _THUMBNAIL / max(height, width))
    small = codec.resize_image(pixels, max(1, round(height * scale)), max(1, round(width * scale)))
    return codec.encode_jpeg(small, quality=80)
