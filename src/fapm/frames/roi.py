"""Regions of interest: what of a picture is inspected, drawn by a person or learned.

A region is given as a picture (white is inside), as polygons, or as a bool array. Inside the
detector it is a bool array of the encoder's frame.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fapm.config import Config
from fapm.errors import RoiError
from fapm.frames.layout import Layout
from fapm.memory import geometry
from fapm.pictures import codec
from fapm.pictures.sizes import near_shape, pixel_size, same_shape
from fapm.plain import Described, Tensors, require
from fapm.system.paths import is_file


@dataclass(frozen=True)
class Roi:
    """The region of a frame that is inspected.

    Attributes
    ----------
    inside
        bool ``[h, w]``, in the frame.
    drawn_on
        height and width of the pictures it was drawn on; pictures of another shape cannot have it.
        None: learned from frames.
    """

    inside: NDArray[np.bool_]
    drawn_on: tuple[int, int] | None = None

    def described(self) -> Described:
        """Describe it for a bundle."""
        drawn_on = self.drawn_on and list(self.drawn_on)
        return {"share": float(self.inside.mean()), "drawn_on": drawn_on}, {"roi": self.inside}

    @classmethod
    def restored(
        cls, described: Mapping[str, Any] | None, tensors: Tensors, shape: tuple[int, int]
    ) -> Roi | None:
        """Restore what :meth:`described` described, in a frame of ``h, w``; None of nothing.

        Raises
        ------
        BundleError
            It contradicts itself or the frame.
        """
        if described is None:
            return None
        inside, drawn_on = tensors["roi"], described["drawn_on"]
        require(
            inside.dtype == np.bool_
            and inside.shape == shape
            and described["share"] == float(inside.mean())
            and (
                drawn_on is None
                or (len(drawn_on) == 2 and all(isinstance(n, int) and n > 0 for n in drawn_on))
            ),
            "its region of interest contradicts itself",
        )
        return cls(inside, None if drawn_on is None else (drawn_on[0], drawn_on[1]))


Region: TypeAlias = "str | Path | NDArray[np.bool_] | Mapping[str, Any]"


class Regions(NamedTuple):
    """The region to inspect, as people give it; see :func:`drawn_roi`.

    Attributes
    ----------
    roi
        ``"auto"`` is learned from the good pictures.
    """

    roi: Region | None = None
    ignore: Region | None = None

    @property
    def automatic(self) -> bool:
        """Whether the region is to be learned."""
        return isinstance(self.roi, str) and self.roi == "auto"


EVERYTHING = Regions()

# Polygons are drawn so many times finer than the frame, and then averaged.
_FINER = 8
_LARGEST = 4096  # edge in pixels of what they are drawn on

_Point = tuple[float, float]


class Polygons(BaseModel):
    """The JSON of polygons: pixels of a picture of ``width`` x ``height``.

    ``{"width": 640, "height": 480, "polygons": [[[10, 10], [630, 10], [320, 470]]]}``; what is in
    any of them is inside.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = Field(ge=2, le=1_000_000)
    height: int = Field(ge=2, le=1_000_000)
    polygons: Annotated[list[Annotated[list[_Point], Field(min_length=3)]], Field(min_length=1)]


def drawn_roi(roi: Region | None, ignore: Region | None, layout: Layout) -> Roi | None:
    """The region of a frame that is inside ``roi`` and not inside ``ignore``.

    Parameters
    ----------
    roi, ignore
        path of a mask picture (128 of 255 and more is inside) or of a JSON of :class:`Polygons`,
        the same as a mapping, or bool ``[H, W]``; None: everything, and nothing.
    layout
        of the frames.

    Raises
    ------
    RoiError
        One of them cannot be read or has nothing inside, they were drawn on pictures of unlike
        shape, or nothing is left.
    ImageError
        A mask picture cannot be read.
    """
    drawn = None if roi is None else _read(roi, "roi", layout)
    if ignore is None:
        return drawn
    ignored = _read(ignore, "ignore", layout)
    ignored = Roi(~ignored.inside, ignored.drawn_on)
    return intersection(drawn, ignored) if drawn else _not_empty(ignored)


def intersection(one: Roi, other: Roi) -> Roi:
    """The region that is inside both.

    Raises
    ------
    RoiError
        Nothing is, or they were drawn on pictures of unlike shape.
    """
    sizes = one.drawn_on, other.drawn_on
    if sizes[0] and sizes[1] and not same_shape(sizes[0], sizes[1]):
        raise RoiError(
            f"roi: drawn on pictures of {pixel_size(sizes[0])} and of {pixel_size(sizes[1])} "
            "pixels; draw both on a picture of the part"
        )
    return _not_empty(Roi(one.inside & other.inside, sizes[1] or sizes[0]))


def shape_error(roi: Roi | None, size: tuple[int, int]) -> str:
    """Why a picture of ``size`` (height, width) cannot have this region; empty if it can."""
    if roi is None or roi.drawn_on is None or near_shape(roi.drawn_on, size):
        return ""
    return (
        f"{pixel_size(size)} pixels, but the ROI was drawn on {pixel_size(roi.drawn_on)}; pictures "
        "may be larger or smaller, but not of another shape"
    )


def _not_empty(roi: Roi) -> Roi:
    if not roi.inside.any():
        raise RoiError("roi: --roi and --ignore leave nothing to inspect; draw them anew")
    return roi


def _read(region: Region, name: str, layout: Layout) -> Roi:
    if isinstance(region, str) and region == "auto":
        raise RoiError(
            f"{name}: auto is learned from the good pictures, by fapm fit --roi auto; name a file"
        )
    if isinstance(region, np.ndarray):
        return _from_mask(region, name, layout)
    if isinstance(region, Mapping):
        return _from_polygons(region, name, layout)
    path = Path(region)
    if is_file(path) and (path.suffix.lower() == ".json" or _starts_like_json(path)):
        try:
            described = json.loads(path.read_bytes())
        except OSError as error:
            raise RoiError(f"{path}: cannot be read: {error.strerror or error}") from error
        except (ValueError, RecursionError) as error:
            reason = " ".join(str(error).split())
            raise RoiError(f"{path}: not a JSON that can be read ({reason})") from None
        return _from_polygons(described, str(path), layout)
    return _from_mask(codec.read_image(path).mean(axis=2) >= 128, str(path), layout)


def _starts_like_json(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(64).lstrip()[:1] in (b"{", b"[")
    except OSError:  # taken for a picture, whose reader says why
        return False


def _from_mask(mask: NDArray[Any], name: str, layout: Layout) -> Roi:
    if mask.dtype != np.bool_ or mask.ndim != 2 or min(mask.shape) < 2:
        raise RoiError(
            f"{name}: {mask.dtype} {list(mask.shape)} is no mask; expected bool [H, W], True inside"
        )
    if not mask.any():
        raise RoiError(f"{name}: nothing is inside: no pixel is white (128 of 255, or more)")
    return Roi(layout.inside(mask), (mask.shape[0], mask.shape[1]))


def _from_polygons(described: object, name: str, layout: Layout) -> Roi:
    try:
        drawing = Polygons.model_validate(described)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise RoiError(
            f"{name}: {place}: {first['msg'][:100]}; expected "
            '{"width": W, "height": H, "polygons": [[[x, y], [x, y], [x, y]]]} in pixels'
        ) from None
    width, height = drawing.width, drawing.height
    fine = np.minimum(_FINER * np.array(layout.canvas), _LARGEST)
    mask = np.zeros(fine, np.uint8)
    for number, corners in enumerate(drawing.polygons):
        points = np.array(corners) / (width, height)  # 0 .. 1 of the picture
        if not (np.abs(points - 0.5) <= 1.5).all() or not _overlaps(points):
            raise RoiError(
                f"{name}: polygon {number} lies outside the picture of {width} x {height} pixels"
            )
        cv2.fillPoly(mask, [np.rint(points * fine[::-1] - 0.5).astype(np.int32)], 1)
    if not mask.any():
        raise RoiError(f"{name}: nothing is inside: the polygons have no area")
    return Roi(layout.inside(mask.astype(np.bool_)), (height, width))


def _overlaps(points: NDArray[np.float64]) -> bool:
    """Whether a polygon's bounding box has a part of the unit square."""
    return bool((points.max(axis=0) > 0).all() and (points.min(axis=0) < 1).all())


def inspected_cells(
    roi: Roi | None,
    shapes: Sequence[tuple[int, int, int]],
    config: Config,
    layout: Layout,
) -> list[NDArray[np.bool_] | None]:
    """Per memory bank bool ``[H * W]``, the cells that are inspected; None: all.

    Parameters
    ----------
    shapes
        ``C, H, W`` of each layer the encoder gives.
    layout
        of the frames; default: a square that is not cut.

    Raises
    ------
    RoiError
        The region is smaller than a cell.
    """
    sizes = [layout.side_by_side((height, width)) for _, height, width in shapes]
    finest = geometry.finest(sizes)
    if not config.layer_wise:
        sizes = [finest]
    if roi is None:
        return [None] * len(sizes)
    layers = layout.inside_cells(roi.inside, sizes, config.coarse_upsampling)
    if not layers[0].any():
        edge = layout.tile_shape[0] * layout.tiling[0] / finest[0]
        raise RoiError(
            f"roi: too small: no cell of {edge:g} x {edge:g} pixels of the "
            f"{pixel_size(layout.shape)} pixel frame has half its area inside; draw it larger, or "
            "fit with a larger --resize"
        )
    return [*layers]
