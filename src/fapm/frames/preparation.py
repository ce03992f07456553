"""From pictures to the frames that the encoder sees, and the way back. No torch here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fapm import rules
from fapm.config import Config
from fapm.errors import ConfigError, ImageError
from fapm.frames.align import Align, Registration
from fapm.frames.flatfield import FlatField
from fapm.frames.layout import Layout, Rectangle, layout_of
from fapm.frames.light import Light
from fapm.frames.look import Look, look
from fapm.frames.roi import Roi, shape_error
from fapm.frames.stage import Stage
from fapm.pictures import codec
from fapm.pictures.resize import Interpolation, resize_image, rotate
from fapm.pictures.sources import Picture, picture_size
from fapm.plain import shortened

# Every stage there is, in the order in which frames pass them.
STAGES: tuple[type[Stage], ...] = (FlatField, Light, Align)

_THUMBNAIL = 160  # pixels of the longer side
_LISTED = 5  # failures that have a line each


@dataclass(frozen=True)
class Failure:
    """A picture that could not be inspected, and why, in one line.

    Attributes
    ----------
    source
        path of the file, or the name of an array.
    error
        one line, which names the picture.

    Examples
    --------
    >>> import fapm
    >>> detector = fapm.fit("good", resize=64)
    >>> for result in detector.stream(["part.png", "lost.png"]):
    ...     print(result.error if isinstance(result, fapm.Failure) else result.verdict)
    good
    lost.png: no such file; check the path
    """

    source: str
    error: str

    def __repr__(self) -> str:
        return f"Failure({shortened(self.source)}, {shortened(self.error, 120)})"


def summary(failures: Sequence[Failure]) -> list[str]:
    """A few failures line by line, many in one."""
    if len(failures) <= _LISTED:
        return [failure.error for failure in failures]
    return [
        f"{len(failures)} pictures, which fapm info --json lists; the first: {failures[0].error}"
    ]


@dataclass(frozen=True)
class Frame:
    """A picture made ready for the encoder.

    Attributes
    ----------
    name
        path of the file, or the name of an array.
    pixels
        RGB uint8 ``[h, w, 3]``.
    height, width
        of the picture, in pixels.
    thumbnail
        JPEG of the picture, where it is asked for.
    traces
        by the name of a stage: what it did to this frame.
    look
        the measure of drift, where it is asked for.
    turned
        further frames of the picture, turned by equal steps, where they are asked for.
    alpha_ignored, brightest
        those of :class:`fapm.pictures.codec.Decoded`.
    """

    name: str
    pixels: NDArray[np.uint8]
    height: int
    width: int
    thumbnail: bytes | None = None
    traces: Mapping[str, Any] = field(default_factory=dict)
    look: Look | None = None
    turned: tuple[NDArray[np.uint8], ...] = ()
    alpha_ignored: bool = False
    brightest: int | None = None

    @property
    def registration(self) -> Registration | None:
        """The place of the part in the picture; None without alignment."""
        return self.traces.get(Align.name)

    @property
    def matrix(self) -> NDArray[np.float64]:
        """float64 ``[2, 3]``: from pixels of the template to those of the frame as it was."""
        found = self.registration
        return np.eye(2, 3) if found is None else found.matrix

    def without_pixels(self) -> Frame:
        """The part of a frame that is kept once it is encoded."""
        return replace(self, pixels=np.empty((0, 0, 3), np.uint8), turned=())


@dataclass(frozen=True)
class Preparation:
    """The way from a picture to its frame, and the way back of a map or a place.

    Attributes
    ----------
    layout
        size of frames, their crop and their tiles.
    interpolation
        of the resize, the encoder's own.
    stages
        further steps, in the order of :data:`STAGES`.
    roi
        what of a frame is inspected; None: everything.
    """

    layout: Layout
    interpolation: Interpolation
    stages: tuple[Stage, ...] = ()
    roi: Roi | None = None

    def stage(self, name: str) -> Stage | None:
        """The stage of this name; None without."""
        return next((stage for stage in self.stages if stage.name == name), None)

    def read(
        self,
        picture: Picture,
        *,
        max_pixels: int,
        name: str = "array",
        thumbnail: bool = False,
        with_look: bool = False,
        turns: int = 1,
    ) -> Frame | Failure:
        """Decode one picture and make it ready; a :class:`Failure` if it cannot be used.

        Parameters
        ----------
        name
            of a picture that has none; a file is called by its path.
        thumbnail, with_look
            whether the frame carries these.
        turns
            how many frames are wanted, at equal steps counter-clockwise. The first is the picture
            as it lies, the others are :attr:`Frame.turned`.
        """
        name = codec.name_of(picture, name)
        try:
            found = codec.read(
                picture, name=name, edge=max(self.layout.canvas), max_pixels=max_pixels
            )
        except ImageError as error:
            return Failure(name, str(error))
        pixels, size = found.pixels, (found.height, found.width)
        if reason := self.layout.error(size) or shape_error(self.roi, size):
            return Failure(name, f"{name}: {reason}")
        seen = self.layout.frame(pixels, self.interpolation, found.extent)
        frame, traces = self.apply(seen)
        return Frame(
            name,
            frame,
            *size,
            thumbnail=_thumbnail(pixels) if thumbnail else None,
            traces=traces,
            # As the camera shows it: wherever the part lies, whatever the light.
            look=look(seen) if with_look else None,
            turned=tuple(self._turned(pixels, traces, 360 * i / turns) for i in range(1, turns)),
            alpha_ignored=found.alpha_ignored,
            brightest=found.brightest,
        )

    def apply(self, frame: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """A resized frame, RGB uint8 ``[h, w, 3]``, after all stages; and their traces by name."""
        traces = {}
        for stage in self.stages:
            frame, traces[stage.name] = stage.apply(frame)
        return frame, traces

    def _turned(
        self, picture: NDArray[np.uint8], traces: Mapping[str, Any], degrees: float
    ) -> NDArray[np.uint8]:
        # Turned before it is resized: a frame that is squashed to a square would be sheared.
        frame = self.layout.frame(rotate(picture, degrees), self.interpolation)
        for stage in self.stages:
            frame = stage.apply_turned(frame, traces[stage.name])
        return frame

    def restore(
        self, anomaly_map: NDArray[np.float32], traces: Mapping[str, Any]
    ) -> NDArray[np.float32]:
        """A map of the finished frame as a map of the frame before all stages, float32 ``[h, w]``.

        :meth:`fapm.frames.layout.Layout.restore` takes it on to the picture.
        """
        for stage in reversed(self.stages):
            anomaly_map = stage.restore(anomaly_map, traces[stage.name])
        return anomaly_map

    def inspected(self, traces: Mapping[str, Any]) -> NDArray[np.bool_] | None:
        """The inspected pixels of the frame before all stages, bool ``[h, w]``; None: all."""
        if self.roi is None:
            return None
        return self.restore(self.roi.inside.astype(np.float32), traces) >= 0.5

    def place(self, cell: int, cells: tuple[int, int], traces: Mapping[str, Any]) -> Rectangle:
        """The place in the picture of a cell of a map of ``H, W`` cells, in shares of its edges."""
        box = self.layout.cell_box(cell, cells)
        for stage in reversed(self.stages):
            if stage.name in traces:
                box = stage.restore_box(box, traces[stage.name])
        return self.layout.restore_box(box)

    def doubt(self, traces: Mapping[str, Any], verdict: str) -> str | None:
        """The first reason why a frame is ``unsure`` whatever its score; None without."""
        doubts = (stage.doubt(traces[stage.name], verdict) for stage in self.stages)
        return next(filter(None, doubts), None)


def require_command(config: Config, command: str) -> None:
    """Refuse options that a command cannot take; see :mod:`fapm.rules`.

    Raises
    ------
    ConfigError
        The config asks for one of them.
    """
    stages = [kind.name for kind in STAGES if kind.wanted(config)]
    for line in rules.refused(command, config.given, stages):
        raise ConfigError(line)


def layout_for(config: Config, pictures: Iterable[Picture]) -> Layout:
    """The layout of frames of these pictures; they are read only where it depends on them.

    Raises
    ------
    ConfigError
        The pictures are of many shapes, or smaller than a tile.
    """
    return layout_of(config, picture_size(pictures) if config.follows_pictures else None)


def readable_frames(
    pictures: Iterable[Picture], preparation: Preparation, *, count: int, max_pixels: int
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
        frame = preparation.read(picture, max_pixels=max_pixels)
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
    small = resize_image(pixels, max(1, round(height * scale)), max(1, round(width * scale)))
    return codec.encode_jpeg(small, quality=80)
