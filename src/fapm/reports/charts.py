"""Charts as inline SVG: no script, no library, nothing to load.

Each chart is 360 units wide, so that its text keeps its size on a phone. Colours are the CSS
variables of the page (``--good``, ``--defect``, ``--ink`` and so on), so that one drawing serves
light, dark and print.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

PRO_LIMIT = 0.3  # beyond this false-positive rate overlap says nothing about a detector

_Floats = NDArray[np.float64]
_Value = TypeVar("_Value", float, _Floats)

_WIDTH = 360
_LEFT, _RIGHT = 44, 340
_BINS = 30
_LETTER = 6.9  # usual width; SVG cannot measure text
_BAR_HEIGHT = 74
_PANEL_HEIGHT = _BAR_HEIGHT + 18  # with its legend
_PANEL_GAP = 8
_CURVE_TOP, _CURVE_BOTTOM = 24, 232

# Scores above this multiple of the way from the lowest to the threshold share one bin: defects that
# are far off must not squash the region near the threshold.
_REACH = 5.0


@dataclass(frozen=True)
class _Series:
    """Scores that share a colour in the histogram."""

    name: str
    colour: str
    scores: _Floats


@dataclass(frozen=True)
class _Bins:
    """Bins of equal width from ``first * width``, and perhaps one more for all higher scores."""

    width: float
    first: int
    count: int
    overflow: bool

    @property
    def low(self) -> float:
        return self.first * self.width

    @property
    def high(self) -> float:
        return (self.first + self.count) * self.width

    @property
    def slots(self) -> float:
        """Length of the axis in bins; a gap of one half sets the overflow bin apart."""
        return self.count + (2.5 if self.overflow else 0)

    def x(self, score: float) -> float:
        """Position of a score that is not above ``high``."""
        return self.slot_x((score - self.low) / self.width)

    def slot_x(self, slot: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * slot / self.slots

    def counts(self, scores: _Floats) -> NDArray[np.int64]:
        """int64 ``[count + overflow]``, pictures per bin."""
        slot = np.floor(np.clip(scores, self.low, self.high) / self.width) - self.first
        # Rounding may put the largest score a hair beyond the last edge.
        index = np.clip(slot, 0, self.count - 1).astype(np.int64)
        if self.overflow:
            index[scores > self.high] = self.count
        return np.bincount(index, minlength=self.count + self.overflow)

    def bar(self, index: int) -> tuple[float, float, str]:
        """Left and right edge of a bar, and its scores in words."""
        if index == self.count:
            left, right = self.slot_x(self.count + 0.5), self.slot_x(self.count + 2.5)
            return left, right, f"above {_number(self.high, self.width)}"
        edges = (self.first + index) * self.width, (self.first + index + 1) * self.width
        words = " to ".join(_number(edge, self.width) for edge in edges)
        return self.slot_x(index), self.slot_x(index + 1), words


def score_histogram(
    normal_scores: _Floats,
    scores: _Floats,
    labels: Sequence[int | None],
    threshold: float,
    unsure_threshold: float,
) -> str:
    """Draw the scores of normal and inspected pictures, with the thresholds; an SVG element.

    Two panels share one axis. The upper one shows the leave-one-out scores of the normal pictures,
    the lower one the scores of the inspected pictures. Defects far to the right share one bin that
    says so.

    Parameters
    ----------
    normal_scores
        float64 ``[N]``, may be empty.
    scores
        float64 ``[n]``, may be empty.
    labels
        0 good, 1 defect, None unknown, for each of ``scores``.
    threshold, unsure_threshold
        NaN if not known.

    Returns
    -------
    The empty string if there is no score at all.
    """
    truth = np.array([-1 if label is None else label for label in labels], dtype=np.int64)
    captioned = {
        "each left out of the memory": [_Series("normal", "--normal", normal_scores)],
        "inspected": [
            _Series("good", "--good", scores[truth == 0]),
            _Series("defect", "--defect", scores[truth == 1]),
            _Series("unlabelled", "--unlabelled", scores[truth == -1]),
        ],
    }
    panels = [
        (caption, present)
        for caption, panel in captioned.items()
        if (present := [series for series in panel if len(series.scores)])
    ]
    if not panels:
        return ""
    levels = [("unsure", unsure_threshold), ("defect", threshold)]
    levels = [(name, level) for name, level in levels if not math.isnan(level)]
    bins = _choose_bins(normal_scores, scores, [level for _, level in levels])
    top = 14 + 16 * len(levels)
    bottom = top + len(panels) * (_PANEL_HEIGHT + _PANEL_GAP) - _PANEL_GAP
    shapes, words = [], []
    for number, (caption, panel) in enumerate(panels):
        y = top + number * (_PANEL_HEIGHT + _PANEL_GAP)
        shapes.append(_bars(panel, bins, y + _PANEL_HEIGHT))
        words.append(_legend(caption, panel, y + 8))
    for row, (name, level) in enumerate(levels):
        y = 12 + 16 * row
        shapes.append(_level_line(name, bins.x(level), y - 9, bottom))
        words.append(_level_words(f"{name} above {brief(level)}", bins.x(level), y))
    told = [f"{len(series.scores)} {series.name}" for _, panel in panels for series in panel]
    told += [f"{name} above {brief(level)}" for name, level in levels]
    return _svg(
        "histogram",
        bottom + 36,
        "Score histogram",
        f"Number of pictures by score: {', '.join(told)}.",
        # Text is drawn last, so that no line runs through it.
        [*shapes, _score_axis(bins, bottom), *words],
    )


def roc_chart(fpr: _Floats, tpr: _Floats, operating_point: tuple[float, float] | None) -> str:
    """Draw a ROC curve; an SVG element.

    Parameters
    ----------
    fpr, tpr
        float64 ``[k]``, rising from 0 to 1.
    operating_point
        false- and true-positive rate of the given verdicts, if there were any.
    """
    words = "Share of defects caught against share of false alarms, for every threshold."
    marks = [_curve(fpr, tpr, 1.0), _line(_curve_x(0, 1), _curve_y(0), _curve_x(1, 1), _curve_y(1))]
    if operating_point is not None:
        false, true = operating_point
        words += f" At the fitted threshold {true:.1%} caught, {false:.1%} false alarms."
        marks.append(
            f'<circle cx="{_curve_x(false, 1):.1f}" cy="{_curve_y(true):.1f}" r="5" '
            'style="fill:var(--paper);stroke:var(--ink);stroke-width:2.5">'
            f"<title>fitted threshold: {true:.1%} caught, {false:.1%} false alarms</title></circle>"
        )
    labels = "false alarms among good pictures", "defects caught"
    return _curve_chart("roc", "ROC curve", words, marks, 1.0, labels)


def pro_chart(fpr: _Floats, pro: _Floats) -> str:
    """Draw the per-region overlap up to a false-positive rate of 0.3; an SVG element.

    Parameters
    ----------
    fpr, pro
        float64 ``[k]``, rising from 0 to 1.
    """
    inside = fpr < PRO_LIMIT
    x = np.append(fpr[inside], PRO_LIMIT)
    y = np.append(pro[inside], np.interp(PRO_LIMIT, fpr, pro))
    words = "Mean share of a defect region marked against share of good pixels marked."
    labels = "good pixels marked by mistake", "defect area marked"
    return _curve_chart("pro", "PRO curve", words, [_curve(x, y, PRO_LIMIT)], PRO_LIMIT, labels)


def _round_ticks(low: float, high: float, most: int) -> list[float]:
    """Choose at most about ``most`` multiples of 1, 2 or 5 times a power of ten in the range."""
    step = _round_step((high - low) / most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def _choose_bins(normal: _Floats, inspected: _Floats, thresholds: Sequence[float]) -> _Bins:
    everything = np.concatenate([normal, inspected, np.array(thresholds, dtype=np.float64)])
    low, high = float(everything.min()), float(everything.max())
    # All equal, as far as a drawing can tell: there is no range to divide.
    if high - low <= max(1e-9 * max(abs(low), abs(high)), 1e-30):
        margin = abs(low) / 10 or 1.0
        low, high = low - margin, high + margin
    # Without thresholds the bulk of the pictures determines the range. If most inspected pictures
    # are far off, the range must include them.
    body = max(thresholds, default=float(np.quantile(np.append(normal, inspected), 0.75)))
    reach = low + _REACH * (body - low)
    if len(inspected):
        reach = max(reach, float(np.median(inspected)))
    overflow = low < reach < high
    width = _round_step(((reach if overflow else high) - low) / _BINS)
    first = math.floor(low / width)
    last = math.ceil((reach if overflow else high) / width)
    # The last round edge may have passed the highest score after all.
    return _Bins(width, first, max(1, last - first), overflow and last * width < high)


def _bars(panel: Sequence[_Series], bins: _Bins, bottom: float) -> str:
    """Draw stacked bars and their count axis."""
    counts = np.stack([bins.counts(series.scores) for series in panel])  # [series, bins]
    totals = counts.sum(axis=0)
    scale = _BAR_HEIGHT / int(totals.max())
    parts = []
    for tick in _round_ticks(0, int(totals.max()), 3):
        if tick == int(tick):
            y = bottom - scale * tick
            parts += [_line(_LEFT, y, _RIGHT, y), _text(_LEFT - 6, y + 4, f"{tick:.0f}", "end")]
    for index in np.flatnonzero(totals):
        left, right, scores = bins.bar(int(index))
        y = float(bottom)
        told = []
        parts.append("<g>")
        for series, count in zip(panel, counts[:, index], strict=True):
            y -= scale * count
            told.append(f"{count} {series.name}")
            parts.append(
                f'<rect x="{left + 0.5:.2f}" y="{y:.2f}" width="{right - left - 1:.2f}" '
                f'height="{scale * count:.2f}" style="fill:var({series.colour})"/>'
            )
        parts.append(f"<title>score {scores}: {', '.join(told)}</title></g>")
    return "".join(parts)


def _legend(caption: str, panel: Sequence[_Series], y: float) -> str:
    parts, x = [], float(_LEFT)
    for series in panel:
        words = f"{len(series.scores):,} {series.name}"
        parts.append(
            f'<rect x="{x:.1f}" y="{y - 9:.1f}" width="10" height="10" rx="2" '
            f'style="fill:var({series.colour})"/>'
        )
        parts.append(_text(x + 14, y, words, "start", "--ink"))
        x += 26 + _LETTER * len(words)
    if x + _LETTER * len(caption) < _RIGHT:
        parts.append(_text(_RIGHT, y, caption, "end"))
    return "".join(parts)


def _level_line(name: str, x: float, top: float, bottom: float) -> str:
    dashes = ";stroke-dasharray:4 3" if name == "unsure" else ""
    return (
        f'<line x1="{x:.1f}" y1="{top:.1f}" x2="{x:.1f}" y2="{bottom:.1f}" '
        f'style="stroke:var(--ink);stroke-width:1.5{dashes}"/>'
    )


def _level_words(words: str, x: float, y: float) -> str:
    # The label stands on the right unless the drawing ends there.
    if x + 5 + _LETTER * len(words) < _RIGHT:
        return _text(x + 5, y, words, "start", "--ink")
    return _text(x - 5, y, words, "end", "--ink")


def _score_axis(bins: _Bins, y: float) -> str:
    parts = [_line(_LEFT, y, bins.x(bins.high), y, "--muted")]
    ticks = _round_ticks(bins.low, bins.high, 7)
    step = ticks[1] - ticks[0] if len(ticks) > 1 else bins.width
    # The overflow bin has its own label, which needs room.
    end = _RIGHT - 90 if bins.overflow else _RIGHT
    for x, tick in ((bins.x(tick), tick) for tick in ticks):
        if x <= end:
            parts += [_line(x, y, x, y + 4, "--muted")]
            parts += [_text(x, y + 16, _number(tick, step), "middle")]
    if bins.overflow:
        left, right, words = bins.bar(bins.count)
        parts.append(_line(left, y, right, y, "--muted"))
        parts.append(_text(_RIGHT, y + 16, words, "end"))
    parts.append(_text((_LEFT + _RIGHT) / 2, y + 32, "image score", "middle"))
    return "".join(parts)


def _curve_chart(
    name: str,
    title: str,
    words: str,
    marks: Sequence[str],
    x_max: float,
    labels: tuple[str, str],
) -> str:
    parts = []
    for tick in _round_ticks(0, 1, 5):
        y = _curve_y(tick)
        parts += [_line(_LEFT, y, _RIGHT, y), _text(_LEFT - 6, y + 4, f"{tick:.0%}", "end")]
    for tick in _round_ticks(0, x_max, 5):
        x = _curve_x(tick, x_max)
        parts += [_line(x, _CURVE_TOP, x, _CURVE_BOTTOM)]
        parts += [_text(x, _CURVE_BOTTOM + 16, f"{tick:.0%}", "middle")]
    parts += marks
    parts.append(_text((_LEFT + _RIGHT) / 2, _CURVE_BOTTOM + 32, labels[0], "middle"))
    # The title stands above the axis, not sideways along it, so that it is easy to read.
    parts.append(_text(6, 12, labels[1], "start"))
    return _svg(name, _CURVE_BOTTOM + 36, title, words, parts)


def _curve(x: _Floats, y: _Floats, x_max: float) -> str:
    # The eye sees no more than half a pixel; a pixel-wise curve may have a million corners.
    points = np.stack([_curve_x(x, x_max), _curve_y(y)], axis=1)  # [k, 2]
    points = np.round(points * 2) / 2
    points = points[np.append(True, (np.diff(points, axis=0) != 0).any(axis=1))]
    path = " ".join(f"{px:g},{py:g}" for px, py in points)
    floor = f"{points[-1, 0]:g},{_CURVE_BOTTOM} {points[0, 0]:g},{_CURVE_BOTTOM}"
    return (
        f'<polygon points="{path} {floor}" style="fill:var(--accent);opacity:.12"/>'
        f'<polyline points="{path}" style="fill:none;stroke:var(--accent);stroke-width:2.5"/>'
    )


def _curve_x(value: _Value, x_max: float) -> _Value:
    return _LEFT + (_RIGHT - _LEFT) * value / x_max


def _curve_y(value: _Value) -> _Value:
    return _CURVE_BOTTOM - (_CURVE_BOTTOM - _CURVE_TOP) * value


def _svg(name: str, height: float, title: str, words: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" role="img" '
        f'class="chart" aria-labelledby="{name}-title {name}-words" font-size="13">'
        f'<title id="{name}-title">{title}</title><desc id="{name}-words">{words}</desc>'
        f"{''.join(parts)}</svg>"
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str = "--rule") -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'style="stroke:var({colour})"/>'
    )


def _text(x: float, y: float, words: str, anchor: str, colour: str = "--muted") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" '
        f'style="fill:var({colour})">{words}</text>'
    )


def _round_step(step: float) -> float:
    """The smallest 1, 2 or 5 times a power of ten that is not below ``step``."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= step * (1 - 1e-9))


def _number(value: float, step: float) -> str:
    """Write a multiple of ``step`` with no more digits than it needs."""
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if decimals > 4 or abs(value) >= 1e6:
        return f"{value:.3g}"
    return f"{value:,.{decimals}f}"


def brief(value: float) -> str:
    """Three digits that mean something."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
