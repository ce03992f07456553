"""The paper's figures, drawn for print: matplotlib, readable in grey and by the colour-blind.

Equal data give equal bytes, in PNG and SVG alike: no date is written and no random number is used.
Fonts are matplotlib's own. In an SVG they are outlines, so that it looks the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from fapm.inspection.rendering import SATURATION
from fapm.reports.heatmap import overlay
from fapm.reproduce import published
from fapm.reproduce.figure_data import Cluster, Clusters, Example, Point
from fapm.reproduce.published import Method
from fapm.system.files import replaced_when_complete

FORMATS = ("png", "svg")
_DPI = 200
_WIDTH = 7.0  # inches: two columns of a paper

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "svg.hashsalt": "fapm",
    "savefig.dpi": _DPI,
}
# The colours of Okabe and Ito, which the colour-blind can tell apart.
_INK, _GREY = "#222222", "#6b6b6b"
_OURS, _NEAR, _FAR = "#D55E00", "#0072B2", "#D55E00"

# Possible positions of a label: points to the right and up of its mark, nearest first.
_OFFSETS = [
    (dx * reach, dy * reach)
    for reach in (1, 2, 3, 4, 5)
    for dx, dy in ((7, 0), (-7, 0), (0, 7), (0, -7), (6, 6), (-6, 6), (6, -6), (-6, -6))
]
_BESIDE = 7  # points; a label farther off is joined with its mark


class _Mark(NamedTuple):
    name: str
    fps: float
    auroc: float
    colour: str
    ours: bool = False


def figure1(ours: Sequence[Point], others: Mapping[str, Method], note: str) -> Figure:
    """Draw frames a second against image AUROC, and below it both meanings of frames a second.

    Our points show frames a second by the wall clock, as those of the paper do.

    Parameters
    ----------
    note
        a remark on how ours were measured.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure((_WIDTH, 4.6), layout="constrained")
        axes, strip = figure.subplots(
            2, sharex=True, height_ratios=(3.1, 0.14 * (len(ours) + 1) + 0.1)
        )
        marks = [
            _Mark(name, method.fps, method.average.image, _GREY) for name, method in others.items()
        ]
        marks += [_Mark(p.name, p.fps_wall, p.image_auroc, _OURS, True) for p in ours]
        for mark in marks:
            axes.plot(mark.fps, mark.auroc, "o", mec=mark.colour, mew=1.1, ms=5.5,
                      mfc=mark.colour if mark.ours else "white")  # fmt: skip
        _draw_meanings(strip, ours)
        speeds = [*(mark.fps for mark in marks), *(point.fps_device for point in ours)]
        missing = 100 - min(mark.auroc for mark in marks)
        axes.set_xscale("log")
        axes.set_xlim(min(speeds) / 1.5, max(speeds) * 1.8)
        axes.set_ylim(100 - 1.08 * missing, 100 + 0.1 * missing)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.tick_params(labelbottom=True)
        axes.set_xlabel("frames a second, from file to map (log scale)")
        axes.set_ylabel("image AUROC, %")
        axes.grid(axis="y", color="#e4e4e4", lw=0.6)
        axes.set_axisbelow(True)
        _note(figure, note)
        _settle(figure)
        _label(figure, axes, marks)
    return figure


def figure3(shown: Clusters, name: str) -> Figure:
    """Draw the vectors and keys of a near patch at K keys, and of a far one at K and 2K."""
    with mpl.rc_context(_STYLE):
        figure = Figure((_WIDTH, 2.5), layout="constrained")
        grid, *panels = figure.subplots(1, 4, width_ratios=(0.92, 1, 1, 1))
        top = float(max(c.distances.max() for c in (shown.near, shown.far)))
        _draw_radii(grid, shown)
        panels_of = (
            (shown.near, "a", "near patch", _NEAR),
            (shown.far, "b", "far patch", _FAR),
            (shown.again, "c", "far patch", _FAR),
        )
        for axes, (cluster, letter, title, colour) in zip(panels, panels_of, strict=True):
            drawn = _draw_cluster(axes, cluster, letter, title, colour, top)
        bar = figure.colorbar(drawn, ax=panels, pad=0.01, aspect=25, shrink=0.8)
        bar.set_label("distance to the nearest key")
        bar.outline.set_visible(False)
        _note(
            figure,
            f"{name}: {shown.pictures} good pictures, layer {shown.layer}. Stars are keys. Places "
            "by t-SNE: only nearness within a panel means anything.",
        )
        _settle(figure)
    return figure


def figure4(examples: Sequence[Example], name: str) -> Figure:
    """Draw pictures, ground truth and heatmaps, from top to bottom."""
    rows: list[tuple[str, Callable[[Example], NDArray[np.uint8]]]] = [
        ("picture", lambda e: e.picture)
    ]
    if any(e.mask is not None for e in examples):
        rows.append(("ground truth", _mask))
    rows.append(("heatmap", lambda e: e.heatmap))
    with mpl.rc_context(_STYLE):
        edge = min(1.6, (_WIDTH - 0.8) / len(examples))
        shapes = {e.picture.shape[0] / e.picture.shape[1] for e in examples}
        # Pictures of several shapes are centred in squares, so that the titles are in line.
        tallest = max(shapes) if max(shapes) - min(shapes) < 0.02 else 1.0
        width = max(4.0, edge * len(examples) + 0.8)  # no narrower than the note
        figure = Figure((width, edge * tallest * len(rows) + 0.7))
        figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
        cells = figure.subplots(len(rows), len(examples), squeeze=False)
        for (title, pixels), line in zip(rows, cells, strict=True):
            line[0].set_ylabel(title)
            for example, axes in zip(examples, line, strict=True):
                axes.imshow(pixels(example), vmin=0, vmax=255, interpolation="antialiased")
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
                if tallest not in shapes:
                    _centre(axes, *example.picture.shape[:2])
        for example, axes in zip(examples, cells[0], strict=True):
            axes.set_title(example.kind.replace("_", " "))
        for example, axes in zip(examples, cells[-1], strict=True):
            score = "" if np.isnan(example.score) else f"\nscore {example.score:.2f}"
            axes.set_xlabel(f"{example.verdict}{score}", fontsize=7)
        _draw_scale(figure, cells[-1])
        _note(
            figure,
            f"{name}: the first pictures of each kind by name. Below, verdict and score;\n"
            "the score, as the map, in parts of its threshold, which good pictures alone have set.",
        )
        _settle(figure)
    return figure


def save(figure: Figure, folder: Path, stem: str) -> list[Path]:
    """Write a figure in each of :data:`FORMATS`, each file whole or not at all.

    Raises
    ------
    OutputError
        A file cannot be written.
    """
    silent: dict[str, dict[str, Any]] = {
        "png": {"Software": None},
        "svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
    }
    written = []
    for kind in FORMATS:
        buffer = BytesIO()
        with mpl.rc_context(_STYLE):
            figure.savefig(buffer, format=kind, metadata=silent[kind])
        path = folder / f"{stem}.{kind}"
        with replaced_when_complete(path) as file:
            file.write(buffer.getvalue())
        written.append(path)
    return written


def _settle(figure: Figure) -> None:
    """Fix the layout. The solver's last digits vary, and with them the names in an SVG."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        bounds = axes.get_position(original=True).bounds
        axes.set_position(_box(*(round(float(edge), 4) for edge in bounds)))


def _draw_meanings(axes: Axes, ours: Sequence[Point]) -> None:
    """Draw a line for each detector, from frames a second by the wall clock to the graph's."""
    lines = [("FAPM, its authors", published.FPS_WALL, published.FPS_DEVICE, _GREY)]
    lines += [(p.name, p.fps_wall, p.fps_device, _OURS) for p in ours]
    for row, (name, wall, device, colour) in enumerate(lines):
        axes.plot((wall, device), (row, row), "-", color=colour, lw=1.2)
        axes.plot(wall, row, "o", color=colour, ms=3.5)
        axes.plot(device, row, ">", color=colour, ms=4)
        axes.annotate(f"{name}: {wall:.0f} to {device:.0f}", (wall, row), (-7, 0),
                      textcoords="offset points", ha="right", va="center", fontsize=7,
                      color=colour)  # fmt: skip
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.tick_params(axis="x", which="both", length=0, labelbottom=False)
    axes.set_title("frames a second: from file to map (dot), of the graph alone (arrow)",
                   loc="left", fontsize=7, color=_GREY)  # fmt: skip


def _note(figure: Figure, text: str) -> None:
    figure.supxlabel(text, x=0.01, ha="left", fontsize=6.5, color=_GREY)


def _label(figure: Figure, axes: Axes, marks: Sequence[_Mark]) -> None:
    """Write a name beside each mark where it covers nothing, with a thin line if it is far off."""
    renderer: Any = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    point = renderer.points_to_pixels(1)
    frame = axes.get_window_extent(renderer)
    places = axes.transData.transform([(mark.fps, mark.auroc) for mark in marks])
    taken = [_box(x - 5 * point, y - 5 * point, 10 * point, 10 * point) for x, y in places]
    for mark, (x, y) in zip(marks, places, strict=True):
        style: dict[str, Any] = {
            "color": mark.colour,
            "fontweight": "bold" if mark.ours else "normal",
            "annotation_clip": False,
        }
        trial = axes.annotate(mark.name, (mark.fps, mark.auroc), **style)
        size = trial.get_window_extent(renderer)
        trial.remove()

        def box(offset: tuple[float, float], x: float = x, y: float = y, size: Bbox = size) -> Bbox:
            dx, dy = offset
            left = x + dx * point - size.width * (0.5 - 0.5 * np.sign(dx))
            bottom = y + dy * point - size.height * (0.5 - 0.5 * np.sign(dy))
            return _box(left, bottom, size.width, size.height)

        def covered(offset: tuple[float, float], box: Callable[..., Bbox] = box) -> float:
            asked = box(offset)
            outside = _area(asked) - _common(asked, frame)
            return outside + sum(_common(asked, other) for other in taken)

        offset = min(_OFFSETS, key=covered)  # the first of the best
        taken.append(box(offset))
        dx, dy = offset
        axes.annotate(
            mark.name,
            (mark.fps, mark.auroc),
            offset,
            textcoords="offset points",
            ha=("center", "left", "right")[int(np.sign(dx))],
            va=("center", "bottom", "top")[int(np.sign(dy))],
            arrowprops=(
                {"arrowstyle": "-", "color": mark.colour, "lw": 0.5, "shrinkA": 0, "shrinkB": 3}
                if max(abs(dx), abs(dy)) > _BESIDE
                else None
            ),
            **style,
        )


def _box(left: float, bottom: float, width: float, height: float) -> Bbox:
    return Bbox.from_bounds(left, bottom, width, height)


def _common(one: Bbox, other: Bbox) -> float:
    """Area that two boxes share."""
    shared = Bbox.intersection(one, other)
    return _area(shared) if shared else 0.0


def _area(box: Bbox) -> float:
    return float(box.width * box.height)


def _draw_radii(axes: Axes, shown: Clusters) -> None:
    """Draw the covering radius of every patch, and mark the two patches that are shown."""
    rows, columns = shown.radii.shape
    axes.spines[:].set_visible(False)
    axes.imshow(shown.radii, cmap="Greys", vmin=0, vmax=1.15 * shown.radii.max())
    axes.set(xticks=[], yticks=[])
    axes.set_title(f"radius of each\npatch, K = {len(shown.near.keys)}")
    for row in range(rows):
        for column in range(columns):
            radius = shown.radii[row, column]
            dark = radius > 0.6 * shown.radii.max()
            axes.text(column, row, f"{radius:.2g}", ha="center", va="center", fontsize=5,
                      color="white" if dark else _INK)  # fmt: skip
    for cluster, colour in ((shown.near, _NEAR), (shown.far, _FAR)):
        corner = (cluster.column - 0.5, cluster.row - 0.5)
        axes.add_patch(Rectangle(corner, 1, 1, fill=False, ec=colour, lw=1.6, zorder=3))


def _draw_cluster(
    axes: Axes, cluster: Cluster, letter: str, title: str, colour: str, top: float
) -> PathCollection:
    """Draw vectors joined to their keys; the colour shows the distance."""
    places, keys = cluster.places, cluster.places[cluster.keys]
    spokes = np.stack([places, places[cluster.nearest]], axis=1)
    axes.add_collection(LineCollection(list(spokes), colors="#d8d8d8", linewidths=0.25))
    drawn = axes.scatter(
        places[:, 0], places[:, 1], c=cluster.distances,
        s=2.5, lw=0, cmap="viridis_r", vmin=0, vmax=top, zorder=2,
    )  # fmt: skip
    axes.scatter(keys[:, 0], keys[:, 1], marker="*", s=42, c=colour, ec="white", lw=0.6, zorder=3)
    axes.set(xticks=[], yticks=[])
    axes.set_box_aspect(1)
    axes.margins(0.06)
    axes.set_title(
        f"({letter}) {title}, K = {len(keys)}\nradius {cluster.radius:.3g}", color=colour
    )
    for spine in axes.spines.values():
        spine.set(visible=True, color=colour)
    return drawn


def _centre(axes: Axes, height: int, width: int) -> None:
    """Place a picture in the middle of a square of its longer edge."""
    edge = max(height, width)
    axes.set_xlim((width - edge) / 2 - 0.5, (width + edge) / 2 - 0.5)
    axes.set_ylim((height + edge) / 2 - 0.5, (height - edge) / 2 - 0.5)


def _mask(example: Example) -> NDArray[np.uint8]:
    """Draw the mask, white in the defect; a good part has none."""
    height, width = example.picture.shape[:2]
    mask = np.zeros((height, width), np.uint8) if example.mask is None else 255 * example.mask
    return np.repeat(mask.astype(np.uint8)[:, :, None], 3, axis=2)


def _draw_scale(figure: Figure, line: Sequence[Axes]) -> None:
    """Draw the scale of the heatmap's colours, painted over grey as the heatmap is."""
    height, width = 240, 24
    levels = np.linspace(SATURATION, 0, height, dtype=np.float32)[:, None].repeat(width, axis=1)
    grey = np.full((height, width, 3), 150, np.uint8)
    # The threshold's contour runs along the border too: it is cut off.
    painted = overlay(np.pad(grey, ((9, 9), (9, 9), (0, 0)), mode="edge"),
                      np.pad(levels, 9, mode="edge"), 1.0)[9:-9, 9:-9]  # fmt: skip
    bar = line[-1].inset_axes((1.06, 0, 0.08, 1))
    bar.imshow(painted, aspect="auto", extent=(0, 1, 0, SATURATION))
    bar.set_title("map", fontsize=6.5)
    bar.set_xticks([])
    bar.set_yticks((0, 0.5, 1, 1.5, 2), ("0", "0.5", "threshold", "1.5", "2"), fontsize=6.5)
    bar.yaxis.tick_right()
    bar.spines[:].set_visible(False)
