"""Alignment: where a part lies in its frame, against a template learned from good parts.

A sweep of phase correlations with turned templates finds the rough place, ECC (OpenCV's enhanced
correlation coefficient) refines it. Chosen by measurement, see ``docs/decisions.md``. No torch
here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from fapm.config import Config
from fapm.frames.layout import Layout, Rectangle
from fapm.frames.stage import Stage
from fapm.plain import Described, Tensors, require

Motion = Literal["shift", "rigid", "similarity"]
Frame: TypeAlias = "NDArray[np.uint8]"
Grey: TypeAlias = "NDArray[np.float32]"
Matrix: TypeAlias = "NDArray[np.float64]"

# Edges in pixels of what is registered: first roughly, then finely.
COARSE, FINE = 64, 112
# Parts are found if they are shifted by up to this share of the frame's edge.
_REACH = 0.4
_ANGLES = range(0, 360, 5)
_SCALES = (0.8, 0.9, 1.0, 1.1, 1.2)
_SMALLEST, _LARGEST = 0.7, 1.4  # scales that are believed
_CANDIDATES = 3  # of a sweep that are refined
_COARSE_STEPS, _FINE_STEPS = 5, 10
# A freer motion is believed if it leaves less than this share of what stayed unexplained: a round
# part would otherwise be turned at random, a well-placed one resampled for nothing.
_WORTH = 0.8
# Less of the template's view inside the frame is too little to call a part good.
MIN_COVERED = 0.6

_IDENTITY: Matrix = np.eye(3)[:2]


@dataclass(frozen=True)
class Template:
    """The look of good parts, in one place.

    Attributes
    ----------
    motion
        how parts may be moved.
    grey
        float32 ``[FINE, FINE]``, the mean of good parts.
    picture
        uint8 ``[S, S, 3]``, a typical good part: what is put where a frame ends.
    usual
        rough correlation of a median good part: a frame that reaches it is not moved further.
    floor
        correlation below which a frame is not registered.
    """

    motion: Motion
    grey: Grey
    picture: Frame
    usual: float
    floor: float


@dataclass(frozen=True)
class Registration:
    """The place of the template in a frame.

    Attributes
    ----------
    matrix
        float64 ``[2, 3]``: from pixels ``x, y`` of the template to pixels of the frame, both of
        edge ``S``.
    correlation
        with the template, ``-1 .. 1``: the confidence.
    covered
        share of the template's view that lies inside the frame.
    """

    matrix: Matrix
    correlation: float
    covered: float

    @property
    def moved(self) -> bool:
        """Whether the part lies elsewhere than in the template."""
        return not np.array_equal(self.matrix, _IDENTITY)

    @property
    def turn(self) -> float:
        """By how many degrees the part is turned, 0 .. 180, whichever way."""
        return float(np.degrees(abs(np.arctan2(self.matrix[1, 0], self.matrix[0, 0]))))


class Aligner:
    """Registers frames to a template and puts them in its place. Safe to use from threads."""

    def __init__(self, template: Template) -> None:
        self.template = template
        self._fine = template.grey
        self._coarse = shrink_coarsely(self._fine)
        window = cv2.createHanningWindow((COARSE, COARSE), cv2.CV_32F)
        self._window = np.asarray(window, np.float32)
        centre = (COARSE - 1) / 2
        near = np.abs(np.fft.fftfreq(COARSE)) <= _REACH
        self._reach = np.outer(near, near).astype(np.uint8)
        self._sweeps: dict[Motion, list[tuple[Matrix, NDArray[np.float32]]]] = {}
        for motion in _up_to(template.motion):
            turns = _ANGLES if motion != "shift" else range(1)
            sizes = _SCALES if motion == "similarity" else (1.0,)
            poses = [
                np.asarray(cv2.getRotationMatrix2D((centre, centre), angle, scale), np.float64)
                for scale in sizes
                for angle in turns
            ]
            self._sweeps[motion] = [(pose, self._turned(pose)) for pose in poses]

    def register(self, frame: Frame) -> Registration:
        """Find the template in a frame, uint8 ``[S, S, 3]``."""
        return self.register_grey(shrink(frame), len(frame))

    def register_grey(self, grey: Grey, edge: int) -> Registration:
        """:meth:`register` for what :func:`shrink` makes of a frame of that edge."""
        # A bright defect must not outweigh the part.
        grey = grey.clip(self._fine.min(), self._fine.max())
        small = shrink_coarsely(grey)
        spectrum = _phases(small, self._window)
        matrix, freest, rough = _IDENTITY, None, correlation(self._coarse, small)
        for motion, sweep in self._sweeps.items():
            if rough >= self.template.usual:
                break
            tried = [
                _refine(self._coarse, small, pose, motion, _COARSE_STEPS)
                for pose in self._peaks(spectrum, sweep)
            ]
            found, reached = max(tried, key=lambda pair: pair[1])
            if 1 - reached < _WORTH * (1 - rough):
                matrix, freest, rough = found, motion, reached
        if freest is None:
            return Registration(_IDENTITY, correlation(self._fine, grey), 1.0)
        matrix, reached = _refine(
            self._fine, grey, scaled(matrix, FINE / COARSE), freest, _FINE_STEPS
        )
        if reached < 0:  # lost again
            return Registration(_IDENTITY, correlation(self._fine, grey), 1.0)
        if reached < self.template.floor:  # not found, and better judged where it lies
            return Registration(_IDENTITY, reached, 1.0)
        matrix = scaled(matrix, edge / FINE)
        return Registration(matrix, reached, _covered(matrix, edge))

    def place(self, frame: Frame, found: Registration) -> Frame:
        """The frame as the template lies, uint8 ``[S, S, 3]``.

        Where the frame ends, a typical good part goes on: what nobody saw must not be a defect.
        """
        if not found.moved:
            return frame
        placed = warp_back(frame, found.matrix, cv2.INTER_CUBIC)
        unseen = _unseen(found.matrix, len(frame)).view(np.uint8)
        return np.asarray(cv2.copyTo(self.template.picture, unseen, placed), np.uint8)

    def _turned(self, pose: Matrix) -> NDArray[np.float32]:
        size = (COARSE, COARSE)
        turned = cv2.warpAffine(self._coarse, pose, size, borderMode=cv2.BORDER_REPLICATE)
        return _phases(np.asarray(turned, np.float32), self._window)

    def _peaks(
        self, spectrum: NDArray[np.float32], sweep: Sequence[tuple[Matrix, NDArray[np.float32]]]
    ) -> Iterator[Matrix]:
        """The likeliest poses of a sweep, each with the shift that phase correlation finds."""
        found = []
        for number, (_, turned) in enumerate(sweep):
            cross = cv2.mulSpectrums(spectrum, turned, 0, conjB=True)
            surface = cv2.idft(cross, flags=cv2.DFT_REAL_OUTPUT)
            _, peak, _, place = cv2.minMaxLoc(surface, self._reach)
            found.append((peak, number, place))
        for _, number, place in sorted(found, reverse=True)[:_CANDIDATES]:
            pose = sweep[number][0].copy()
            pose[:, 2] += [p - COARSE * (p > COARSE // 2) for p in place]
            yield pose


@dataclass(frozen=True)
class Align(Stage):
    """The stage that puts frames in the template's place."""

    name: ClassVar[str] = "align"

    template: Template

    @cached_property
    def aligner(self) -> Aligner:
        """Registers frames to the template; made when it is first needed, since it takes time."""
        return Aligner(self.template)

    @classmethod
    def wanted(cls, config: Config) -> bool:
        """With ``config.align``."""
        return config.align != "none"

    @classmethod
    def absent(cls, config: Config) -> bool:
        """Without ``config.align``, or where ``auto`` chose to leave it out."""
        return config.align in ("none", "auto")

    def agrees(self, config: Config) -> bool:
        """With ``config.align`` of the template's motion, or ``auto``."""
        return config.align in ("auto", self.template.motion)

    def apply(self, frame: Frame) -> tuple[Frame, Registration]:
        """The frame as the template lies, and where it showed the template."""
        found = self.aligner.register(frame)
        return self.aligner.place(frame, found), found

    def restore(self, anomaly_map: NDArray[np.float32], trace: Registration) -> NDArray[np.float32]:
        """A map of the placed frame in the frame's own geometry.

        0 where the frame shows what lies outside the template's view: nothing was judged there.
        """
        return restore(anomaly_map, trace)

    def restore_box(self, box: Rectangle, trace: Registration) -> Rectangle:
        """The upright rectangle around one, where the part really lies."""
        return moved_box(box, trace.matrix, len(self.template.picture))

    def doubt(self, trace: Registration, verdict: str) -> str | None:
        """The part was not found in the frame, or too little of it for a ``good``."""
        if not trace.correlation >= self.template.floor:
            return (
                f"the part was not found: it resembles the good ones by {trace.correlation:.2f}, "
                f"at least {self.template.floor:.2f} is needed"
            )
        if verdict == "good" and trace.covered < MIN_COVERED:
            share = f"{100 * trace.covered:.0f} %"
            return f"only {share} of the area that the good pictures show is in the picture"
        return None

    def described(self) -> Described:
        """The motion and two levels; the template's two pictures."""
        own = self.template
        levels = {"motion": own.motion, "usual": own.usual, "floor": own.floor}
        return levels, {"grey": own.grey, "picture": own.picture}

    @classmethod
    def restored(cls, described: Mapping[str, Any], tensors: Tensors, layout: Layout) -> Align:
        """As :meth:`Stage.restored`."""
        motion, usual, floor = (described[name] for name in ("motion", "usual", "floor"))
        grey, picture = tensors["grey"], tensors["picture"]
        require(
            motion in get_args(Motion)
            and all(isinstance(level, float) and -1 <= level <= 1.001 for level in (usual, floor))
            and grey.dtype == np.float32
            and picture.dtype == np.uint8
            and grey.shape == (FINE, FINE)
            and picture.shape == (*layout.shape, 3)
            and bool(np.isfinite(grey).all())
            and float(np.abs(grey).max()) <= 256,
            "its template contradicts itself",
        )
        return cls(Template(motion, grey, picture, usual, floor))


def restore(placed_map: NDArray[np.float32], found: Registration) -> NDArray[np.float32]:
    """A map of the placed frame, float32 ``[S, S]``, in the frame's own geometry.

    0 where the frame shows what lies outside the template's view: nothing was judged there.
    """
    if not found.moved:
        return placed_map
    size = placed_map.shape[::-1]
    # Bilinear inside; the edge goes on for half a pixel, so that it does not fade.
    restored = np.asarray(
        cv2.warpAffine(placed_map, found.matrix, size, borderMode=cv2.BORDER_REPLICATE), np.float32
    )
    inverse = np.asarray(cv2.invertAffineTransform(found.matrix), np.float64)
    restored[_unseen(inverse, len(placed_map))] = 0
    return restored


def moved_box(
    box: tuple[float, float, float, float], matrix: Matrix, edge: int
) -> tuple[float, float, float, float]:
    """The upright box around one, both ``x, y, width, height`` in fractions of the frame's edge.

    ``matrix`` goes from pixels of the template to those of the frame. What would lie outside the
    frame is cut off.
    """
    x, y, width, height = box
    corners = np.array([[x, y], [x + width, y], [x, y + height], [x + width, y + height]])
    places = ((corners * edge - 0.5) @ matrix[:, :2].T + matrix[:, 2] + 0.5) / edge
    low, high = places.min(axis=0).clip(0, 1), places.max(axis=0).clip(0, 1)
    (x, y), (width, height) = low.tolist(), (high - low).tolist()
    return x, y, width, height


def shrink(frame: Frame) -> Grey:
    """The pixels of a frame that are registered: float32 ``[FINE, FINE]``."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, (FINE, FINE), interpolation=cv2.INTER_AREA).astype(np.float32)


def _covered(matrix: Matrix, edge: int) -> float:
    """Share of the template's view that lies inside the frame."""
    if np.array_equal(matrix, _IDENTITY):
        return 1.0
    corner = edge - 1
    square = np.array([[0, 0], [corner, 0], [corner, corner], [0, corner]], np.float32)
    seen = (square @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
    shared, _ = cv2.intersectConvexConvex(seen, square)
    return float(shared / max(cv2.contourArea(seen), 1e-6))


def _phases(grey: Grey, window: Grey) -> NDArray[np.float32]:
    """Spectrum of unit magnitudes, float32 ``[COARSE, COARSE]`` as OpenCV packs it."""
    centred = (grey - grey.mean()) * window
    spectrum = cv2.dft(centred, flags=cv2.DFT_COMPLEX_OUTPUT)
    magnitude = cv2.magnitude(spectrum[..., 0], spectrum[..., 1])
    whitened = cv2.idft(spectrum / (magnitude + 1e-6)[..., None], flags=cv2.DFT_REAL_OUTPUT)
    # Packed, a product and its way back take half as long; there are 72 of them, or 360.
    return np.asarray(cv2.dft(whitened, flags=cv2.DFT_SCALE), np.float32)


def _refine(
    template: Grey, grey: Grey, start: Matrix, motion: Motion, steps: int
) -> tuple[Matrix, float]:
    """ECC from a start: the matrix, and the correlation of what both show."""
    # From near the identity: beyond 90 degrees OpenCV loses the angle.
    placed = warp_back(grey, start, cv2.INTER_LINEAR)
    seen = (~_unseen(start, len(grey))).astype(np.uint8)
    # OpenCV goes on with black outside: a fraction of a pixel would mix it into the outermost ones.
    seen[[0, -1]], seen[:, [0, -1]] = 0, 0
    kind = {"shift": cv2.MOTION_TRANSLATION, "rigid": cv2.MOTION_EUCLIDEAN}.get(
        motion, cv2.MOTION_AFFINE
    )
    stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, steps, 1e-4)
    try:
        reached, step = cv2.findTransformECC(
            template, placed, np.eye(2, 3, dtype=np.float32), kind, stop, seen, 1
        )
    except cv2.error:  # it does not converge, or nothing is seen
        return start, -1.0
    matrix = (_whole(start) @ _whole(step.astype(np.float64)))[:2]
    if motion == "similarity":
        matrix = _nearest_similarity(matrix)
    scale = np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    return matrix, float(reached) if _SMALLEST <= scale <= _LARGEST else -1.0


def _nearest_similarity(matrix: Matrix) -> Matrix:
    (a, b), (c, d) = matrix[:, :2]
    along, across = (a + d) / 2, (c - b) / 2
    linear = np.array([[along, -across], [across, along]])
    centre = np.full(2, (FINE - 1) / 2)
    shift = matrix[:, :2] @ centre + matrix[:, 2] - linear @ centre
    return np.column_stack([linear, shift])


def correlation(template: Grey, grey: Grey) -> float:
    a, b = template - template.mean(), grey - grey.mean()
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float((a * b).sum()) / norm if norm > 0 else 0.0


def warp_back(picture: NDArray[Any], matrix: Matrix, interpolation: int) -> NDArray[Any]:
    """The part of a picture at ``matrix``; its border is repeated outside."""
    return cv2.warpAffine(
        picture, matrix, picture.shape[1::-1],
        flags=interpolation | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip


def _unseen(matrix: Matrix, edge: int) -> NDArray[np.bool_]:
    """bool ``[S, S]``: pixels whose place at ``matrix`` is outside the picture."""
    inside = cv2.warpAffine(
        np.ones((edge, edge), np.uint8), matrix, (edge, edge),
        flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
    )  # fmt: skip
    return np.asarray(inside == 0)


def scaled(matrix: Matrix, factor: float) -> Matrix:
    """The same motion of pixel centres in pictures ``factor`` times as fine."""
    if np.array_equal(matrix, _IDENTITY):
        return matrix
    half = (factor - 1) / 2
    shift = factor * matrix[:, 2] + half - matrix[:, :2].sum(axis=1) * half
    return np.column_stack([matrix[:, :2], shift])


def _whole(matrix: Matrix) -> Matrix:
    return np.vstack([matrix, [0.0, 0.0, 1.0]])


def shrink_coarsely(grey: Grey) -> Grey:
    return np.asarray(cv2.resize(grey, (COARSE, COARSE), interpolation=cv2.INTER_AREA))


def _up_to(motion: Motion) -> tuple[Motion, ...]:
    steps: tuple[Motion, ...] = ("shift", "rigid", "similarity")
    return steps[: steps.index(motion) + 1]
