"""Drift: detect lasting changes between the pictures of the fit and those of the line.

Every value of a :class:`fapm.bundle.baseline.Baseline` has a control chart: the distances, the
brightness and the detail of each patch, and the position of the whole picture. The departure of a
value from the mean of the good pictures is measured in their deviations and clipped, so that no
single part counts for much. The part beyond a slack is added up, separately upwards and downwards,
and the sum never falls below 0 (two-sided CUSUM, Page 1954). A sum beyond the limit is an alarm,
and the change began with the picture after the last 0. Memory is constant: four numbers for each
value. This module does not need torch.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fapm.bundle.baseline import VALUES, Baseline
from fapm.errors import DriftError
from fapm.frames.look import GRID, PATCHES, Look, patch_means
from fapm.system.files import replaced_when_complete

Cause = Literal["camera", "light", "lens", "parts"]

CLIP = 3.0  # deviations: a larger departure counts as this
SLACK = 1.0  # deviations: a smaller departure does not count
LIMIT = 20.0  # ten pictures in a row that depart by CLIP or more
# With few good pictures their mean and deviation are uncertain themselves.
_FEW = 4.0
_RECENT = 0.1  # weight of a picture in the recent means
# Below this an alarm ends. In an alarm all charts above it count, because the effects of one cause
# reach the limit at different times.
_OVER = LIMIT / 2
# The light changed if most patches did by at least this share.
_TYPICAL = 0.015
_DARK = 10.0  # grey levels: in darker patches a relative change says little
_FORMAT = 1

_SAYS: dict[Cause, str] = {
    "camera": "the camera or the part's place moved",
    "light": "the light changed",
    "lens": "the lens is dirty or out of focus",
    "parts": "the parts look different, or dirt lies before them",
}


@dataclass(frozen=True)
class DriftState:
    """State of the monitor after a picture.

    Attributes
    ----------
    pictures
        number of pictures so far.
    score
        score of the farthest chart; more than 1 begins an alarm, less than 0.5 ends it.
    alarm
        whether there is a drift.
    cause
        ``light``: most patches became brighter or darker, all by about as much; ``camera``: the
        whole picture is displaced; ``lens``: patches permanently lost or gained detail or
        brightness; ``parts``: only distances grew. None without an alarm.
    patches
        numbers ``row * 7 + column`` of the patches that drifted, worst first.
    since, since_source
        number of the first picture that drifted, from 1, and its name; None without an alarm.
    brightness, detail, distance
        recent mean of the whole frame, divided by that at fit; NaN if that was 0.
    x, y
        displacement of the picture to the right and downwards since the fit, in shares of the
        frame's edge; large displacements are underestimated.
    """

    pictures: int
    score: float
    alarm: bool
    cause: Cause | None
    patches: tuple[int, ...]
    since: int | None
    since_source: str | None
    brightness: float
    detail: float
    distance: float
    x: float
    y: float

    def __str__(self) -> str:
        if self.cause is None:
            return f"no drift in {self.pictures} pictures, score {self.score:.2g}"
        facts = {
            "camera": f"by {100 * self.x:+.1f} % of the width, {100 * self.y:+.1f} % of the height",
            "light": f"brightness x {self.brightness:.2f}",
            "lens": f"detail x {self.detail:.2f}",
            "parts": f"distances x {self.distance:.2f}",
        }[self.cause]
        shown = ", ".join(f"{p // GRID + 1}/{p % GRID + 1}" for p in self.patches[:5])
        more = f" and {len(self.patches) - 5} more" if len(self.patches) > 5 else ""
        place = f"; row/column {shown}{more}" if shown and len(self.patches) < PATCHES / 2 else ""
        return (
            f"{_SAYS[self.cause]} ({facts}{place}), since picture {self.since}: {self.since_source}"
        )


class DriftMonitor:
    """Watch a series of pictures, one after the other.

    Parameters
    ----------
    baseline
        ``detector.fitted_.baseline``: statistics of the good pictures at fit.

    Attributes
    ----------
    state
        :class:`DriftState` after the last picture.

    Raises
    ------
    DriftError
        There is no baseline, because the detector was fitted on one picture.

    Examples
    --------
    >>> import fapm
    >>> detector = fapm.fit("good", resize=64)
    >>> monitor = fapm.DriftMonitor(detector.fitted_.baseline)
    >>> for result in detector.stream(["part.png", "part.png"], drift=monitor):
    ...     pass
    >>> monitor
    DriftMonitor(no drift in 2 pictures, score ...)
    """

    def __init__(self, baseline: Baseline | None) -> None:
        if baseline is None:
            raise DriftError(
                "drift: this bundle does not know how good pictures vary (fitted on one picture, "
                "or by an older fapm); fit it again on several"
            )
        self.baseline = baseline
        counted = np.tile(baseline.watched, 3)
        self._charted = np.concatenate([counted, np.ones(VALUES - 3 * PATCHES, bool)])
        self._slack = SLACK + _FEW / math.sqrt(baseline.count)
        self._clip = CLIP + _FEW / math.sqrt(baseline.count)
        self.reset()

    def __repr__(self) -> str:
        return f"DriftMonitor({self.state})"

    def reset(self) -> None:
        """Start anew, for example after the lens was cleaned."""
        self._pictures = 0
        self._sums = np.zeros((2, VALUES))  # upwards, downwards
        self._starts = np.zeros((2, VALUES), np.int64)  # picture after the sum's last 0
        self._names: dict[int, str] = {}  # of the pictures in _starts
        self._recent = self.baseline.means.astype(np.float64)
        self._since: int | None = None
        self.state = self._state()

    def update(self, seen: Look, frame_map: NDArray[np.float32], source: str = "") -> DriftState:
        """Take the next picture into account.

        Parameters
        ----------
        seen
            :func:`fapm.frames.look.look` of its frame.
        frame_map
            its anomaly map, float32 ``[S, S]``.
        """
        self._pictures += 1
        values = self.baseline.values(seen, patch_means(frame_map))
        self._recent += _RECENT * (values - self._recent)
        departures = (values - self.baseline.means) / self.baseline.scale
        departures = np.clip(departures, -self._clip, self._clip) * self._charted
        rises = np.stack([departures, -departures]) - self._slack
        fresh = self._sums == 0
        # The sum is at most twice the limit, so that an alarm ends soon after its cause.
        self._sums = np.clip(self._sums + rises, 0, 2 * LIMIT)
        self._sums[1, :PATCHES] = self._sums[1, 3 * PATCHES] = 0  # nearer than at fit is no drift
        self._starts[fresh] = self._pictures
        self._starts[self._sums == 0] = 0
        self._names[self._pictures] = source
        used = {*np.unique(self._starts).tolist(), self._since}
        self._names = {number: name for number, name in self._names.items() if number in used}
        largest = int(self._sums.argmax())
        if self._since is None and self._sums.flat[largest] > LIMIT:
            self._since = int(self._starts.flat[largest])
        elif self._sums.flat[largest] < _OVER:
            self._since = None
        self.state = self._state()
        return self.state

    def _state(self) -> DriftState:
        sums = self._sums.max(axis=0)
        alarm = self._since is not None
        means = self.baseline.means
        now = self._recent[-5:]
        distance, brightness, detail = (
            float(a / b) if b > 0 else math.nan for a, b in zip(now[:3], means[-5:-2], strict=True)
        )
        worst = sums[: 3 * PATCHES].reshape(3, PATCHES).max(axis=0)
        order = np.argsort(-worst, kind="stable")
        return DriftState(
            pictures=self._pictures,
            score=float(sums.max()) / LIMIT,
            alarm=alarm,
            cause=self._cause() if alarm else None,
            patches=tuple(int(p) for p in order if worst[p] > _OVER) if alarm else (),
            since=self._since,
            since_source=None if self._since is None else self._names[self._since],
            brightness=brightness,
            detail=detail,
            distance=distance,
            x=float(now[3] - means[-2]),
            y=float(now[4] - means[-1]),
        )

    def _cause(self) -> Cause:
        sums = self._sums.max(axis=0)
        brightness, detail = sums[PATCHES : 3 * PATCHES].reshape(2, PATCHES)
        _, whole_brightness, whole_detail, x, y = sums[3 * PATCHES :]
        light = max(brightness.max(), whole_brightness)
        camera = max(x, y)
        # Distances are no cause of their own: they grow with all other values.
        farthest = max(light, camera, detail.max(), whole_detail)
        if light > _OVER and light > farthest / 2 and self._all_lit(brightness > _OVER):
            return "light"
        if camera > _OVER:
            return "camera"
        return "lens" if farthest > _OVER else "parts"

    def _all_lit(self, drifted: NDArray[np.bool_]) -> bool:
        """Whether most patches changed in brightness alike, and the drifted ones not much more."""
        bright = slice(PATCHES, 2 * PATCHES)
        change = (self._recent - self.baseline.means)[bright]
        relative = change / (self.baseline.means[bright] + _DARK)
        typical = np.median(relative)
        means = relative.mean(), relative[drifted].mean() if drifted.any() else relative.mean()
        alike = all(typical * mean > mean**2 / 2 for mean in means)
        return bool(alike and abs(typical) > _TYPICAL)

    def save(self, path: Path) -> None:
        """Write the state and the charts as JSON, for :meth:`resume`.

        Raises
        ------
        OutputError
            The file cannot be written.
        """
        with replaced_when_complete(path) as file:
            file.write((self.to_json() + "\n").encode())

    def to_json(self) -> str:
        """JSON of the state and of all values that :meth:`resume` needs."""
        kept = {
            "format": _FORMAT,
            "baseline": self.baseline.digest,
            "sums": self._sums.tolist(),
            "starts": self._starts.tolist(),
            "names": {str(number): name for number, name in self._names.items()},
            "recent": self._recent.tolist(),
            "since": self._since,
        }
        shown = {k: v if v == v else None for k, v in asdict(self.state).items()}
        return json.dumps({"state": shown, "charts": kept})

    @classmethod
    def resume(cls, baseline: Baseline | None, path: Path) -> DriftMonitor:
        """Load the monitor that :meth:`save` wrote; it continues as if never interrupted.

        Raises
        ------
        DriftError
            The file cannot be read, is not the state of a monitor, or belongs to another fit.
        """
        monitor = cls(baseline)
        try:
            written = json.loads(path.read_bytes())
            charts, pictures = written["charts"], written["state"]["pictures"]
            if charts["baseline"] != monitor.baseline.digest:
                raise DriftError(
                    f"{path}: drift of another fit; name another file, or delete this one to "
                    "start anew"
                )
            monitor._restore(charts, pictures)
        except OSError as error:
            raise DriftError(f"{path}: cannot read: {error.strerror or error}") from error
        except (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError):
            raise DriftError(
                f"{path}: not a drift state; name another file, or delete this one to start anew"
            ) from None
        return monitor

    def _restore(self, charts: dict[str, Any], pictures: Any) -> None:
        sums, recent = np.array(charts["sums"], float), np.array(charts["recent"], float)
        starts = np.array(charts["starts"])
        names = {int(number): name for number, name in charts["names"].items()}
        since = charts["since"]
        sound = (
            charts["format"] == _FORMAT
            and type(pictures) is int
            and sums.shape == starts.shape == (2, VALUES)
            and recent.shape == (VALUES,)
            and starts.dtype == np.int64
            and bool(np.isfinite(recent).all() and (sums >= 0).all() and (sums <= 2 * LIMIT).all())
            and bool((starts >= 0).all() and (starts <= pictures).all())
            and all(isinstance(name, str) for name in names.values())
            and {*np.unique(starts).tolist(), since} - {0, None} <= names.keys()
            and (since is None or type(since) is int)
        )
        if not sound:
            raise ValueError
        self._pictures, self._sums, self._starts = pictures, sums, starts
        self._names, self._recent, self._since = names, recent, since
        self.state = self._state()
