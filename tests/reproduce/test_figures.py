"""``fapm reproduce figures``: what the figures show, and the files they are written to."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from numpy.typing import NDArray
from PIL import Image

import parts
from conftest import Command, Refusal
from fapm import Detector
from fapm.cli.studies import reproduce_figures
from fapm.cli.studies.reproduce_figures import _speed_and_accuracy
from fapm.config import Config
from fapm.datasets.loading import load_dataset
from fapm.engines.base import Runtime
from fapm.reproduce import figure_data, figures, published
from fapm.reproduce.figure_data import Example, Measured, Point

TINY = Config.create(resize=64)

POINTS = [
    Point("fast, fp32", 256.1, 148.5, 99.96),
    Point("fast, int8", 343.6, 173.6, 99.94),
    Point("accurate, fp32", 109.2, 70.9, 99.77),
    Point("accurate, int8", 147.5, 83.7, 99.83),
]


def check_pair(folder: Path, stem: str) -> None:
    """A PNG of a sane size that opens, and an SVG that loads nothing and runs nothing."""
    with Image.open(folder / f"{stem}.png") as picture:
        picture.load()
        assert 600 <= picture.width <= 2400
        assert 300 <= picture.height <= 2400
        assert len(np.unique(np.asarray(picture.convert("L")))) > 10  # something is drawn
    root = ElementTree.parse(folder / f"{stem}.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    for element in root.iter():
        assert not element.tag.endswith(("script", "foreignObject"))
        for key, value in element.attrib.items():
            if key.endswith("href"):
                assert value.startswith(("#", "data:image/png;base64,"))
            assert "url(http" not in value
    assert b"<metadata" not in (folder / f"{stem}.svg").read_bytes()  # where a date would be


@pytest.fixture(scope="module")
def clusters(washers: Path) -> figure_data.Clusters:
    return figure_data.clusters(load_dataset(washers), TINY, Runtime())


@pytest.fixture(scope="module")
def detector(washers: Path) -> Detector:
    return Detector(TINY).fit(washers / "train" / "good")


def test_figures_3_and_4_of_two_data_sets_one_broken(
    washers: Path, run: Command, tmp_path: Path
) -> None:
    shutil.copytree(washers, tmp_path / "data" / "washer")
    parts.save(tmp_path / "data" / "broken" / "train" / "good" / "0.png", parts.part(0))
    output = tmp_path / "figures"
    arguments = ("--resize", 64, "--only", "3,4", "--output", output)
    finished = run("reproduce", "figures", tmp_path / "data", *arguments)
    assert finished.code == 0, finished.err
    stems = ("figure4-washer", "figure3-washer")
    names = [f"{stem}.{kind}" for stem in stems for kind in ("png", "svg")]
    assert finished.out.split() == [str(output / name) for name in names]
    assert sorted(path.name for path in output.iterdir()) == sorted(names)
    assert "left out, broken: " in finished.err
    assert "no test pictures in this mvtec layout" in finished.err
    first = {name: (output / name).read_bytes() for name in names}
    for stem in stems:
        check_pair(output, stem)

    assert run("reproduce", "figures", washers, *arguments, "--quiet").code == 0
    assert {name: (output / name).read_bytes() for name in names} == first


@pytest.mark.slow
def test_figure_1_measures_each_setting_on_each_data_set(
    washers: Path, run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = reproduce_figures._settings

    def small(config: Config, runtime: Runtime) -> dict[str, Config]:
        """The same settings on small frames: what is proven here does not depend on their size."""
        settings = chosen(config, runtime)
        sizes = {settings[f"{name}, fp32"].resize for name in ("fast", "accurate")}
        assert sizes == {224, 336}
        return {n: setting.model_copy(update={"resize": 64}) for n, setting in settings.items()}

    monkeypatch.setattr(reproduce_figures, "_settings", small)
    monkeypatch.setattr(figure_data, "_ROUNDS", 1)
    finished = run(
        "reproduce", "figures", washers, "--output", tmp_path, "--resize", 64, "--only", "1"
    )
    assert finished.code == 0, finished.err
    check_pair(tmp_path, "figure1")
    figure = json.loads((tmp_path / "figure1.json").read_text())
    names = [
        f"{setting}, {precision}"
        for setting in ("fast", "accurate", "efficientnet_lite0, 64 px")
        for precision in ("fp32", "int8")
    ]
    assert [point["name"] for point in figure["points"]] == names
    for point in figure["points"]:
        found = figure["by_data_set"]["washer"][point["name"]]
        assert point["fps_device"] == pytest.approx(1000 / found["device_ms"])
        assert point["fps_wall"] == pytest.approx(1000 / found["wall_ms"])
        assert 50 < point["image_auroc"] <= 100
    assert figure["published"]["FAPM"] == {"fps": 44.1, "image_auroc": 99.0}
    assert {"machine", "date", "engine"} <= figure.keys()


@pytest.mark.parametrize(
    ("names", "shown"),
    [(("bottle", "own", "screw"), ("bottle", "screw")), (("own", "other"), ("own", "other"))],
)
def test_figure_1_averages_what_the_published_averages_are_of(
    names: tuple[str, ...], shown: tuple[str, ...], tmp_path: Path
) -> None:
    aurocs = dict(zip(names, (90.0, 50.0, 80.0), strict=False))
    measured = {name: {"fast": Measured(auroc, 2.0, 4.0)} for name, auroc in aurocs.items()}
    _speed_and_accuracy(measured, {"encoder"}, "engine", tmp_path)
    figure = json.loads((tmp_path / "figure1.json").read_text())
    (point,) = figure["points"]
    assert point["image_auroc"] == np.mean([aurocs[name] for name in shown])
    assert figure["means_of"] == list(shown)
    assert list(figure["by_data_set"]) == list(names)


def test_points_are_means_over_data_sets() -> None:
    one = {"a": Measured(100, 2.0, 4.0), "b": Measured(90, 10.0, 20.0)}
    other = {"a": Measured(98, 6.0, 12.0), "b": Measured(80, 30.0, 60.0)}
    assert figure_data.points([one, other]) == [
        Point("a", 1000 / 4, 1000 / 8, 99),
        Point("b", 1000 / 20, 1000 / 40, 85),
    ]


def test_labels_of_figure_1_cover_nothing() -> None:
    figure = figures.figure1(POINTS, published.METHODS, "note")
    axes = figure.axes[0]
    renderer = FigureCanvasAgg(figure).get_renderer()
    texts = {text.get_text(): text.get_window_extent(renderer) for text in axes.texts}
    assert set(texts) == {*published.METHODS, *(point.name for point in POINTS)}
    for (one, box), (other, other_box) in itertools.combinations(texts.items(), 2):
        assert not box.overlaps(other_box), (one, other)
    marks = axes.transData.transform([line.get_xydata()[0] for line in axes.lines])
    assert len(marks) == len(texts)
    for name, box in texts.items():
        assert not any(box.contains(*mark) for mark in marks), name
    whole = figure.bbox
    assert all(whole.x0 <= b.x0 and b.x1 <= whole.x1 and b.y1 <= whole.y1 for b in texts.values())


def test_figure_1_is_the_same_for_the_same_points(tmp_path: Path) -> None:
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        figures.save(figures.figure1(POINTS, published.METHODS, "note"), folder, "figure1")
    for kind in figures.FORMATS:
        files = [(tmp_path / name / f"figure1.{kind}").read_bytes() for name in "ab"]
        assert files[0] == files[1]


def test_figure_3_shows_the_farthest_patch_and_a_near_one(clusters: figure_data.Clusters) -> None:
    radii = np.sort(clusters.radii.ravel())
    assert clusters.far.radius == radii[-1]
    assert clusters.near.radius == radii[len(radii) // 4]
    assert clusters.radii[clusters.near.row, clusters.near.column] == clusters.near.radius
    assert clusters.radii[clusters.far.row, clusters.far.column] == clusters.far.radius
    assert (clusters.again.row, clusters.again.column) == (clusters.far.row, clusters.far.column)
    assert (len(clusters.far.keys), len(clusters.near.keys)) == (10, 10)
    assert clusters.pictures == 12
    assert len(clusters.again.keys) == 20
    assert list(clusters.again.keys[:10]) == list(clusters.far.keys)
    assert clusters.again.radius < clusters.far.radius
    for cluster in (clusters.near, clusters.far, clusters.again):
        assert cluster.distances.max() == pytest.approx(cluster.radius, rel=1e-4)


def test_a_cluster_says_how_far_each_vector_is_from_its_key() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(2500, 6)).astype(np.float32)
    keys = [0, 1777, 3, 2499]
    cluster = figure_data._cluster((2, 5), torch.from_numpy(vectors), keys, 3.5, 0)
    assert (cluster.row, cluster.column, cluster.radius) == (2, 5, 3.5)
    # Every third, and the keys.
    chosen = sorted({*range(0, 2500, 3), *keys})
    assert [chosen[row] for row in cluster.keys] == keys
    shown = vectors[chosen].astype(np.float64)
    distances = np.linalg.norm(shown[:, None] - vectors[keys].astype(np.float64), axis=2)
    assert cluster.distances == pytest.approx(distances.min(axis=1), abs=1e-3)
    assert [chosen[row] for row in cluster.nearest] == [keys[i] for i in distances.argmin(axis=1)]
    assert cluster.places.shape == (len(chosen), 2)


def test_examples_are_a_good_part_and_the_first_defects(washers: Path, detector: Detector) -> None:
    shown = figure_data.examples(detector, load_dataset(washers))
    assert [example.kind for example in shown] == ["good", "hole", "hole", "hole"]
    assert [example.verdict for example in shown] == ["good", "defect", "defect", "defect"]
    assert shown[0].mask is None
    assert shown[0].score < 1 < shown[1].score
    expected = np.zeros((parts.EDGE, parts.EDGE), np.bool_)
    expected[parts.HOLE] = True
    np.testing.assert_array_equal(shown[1].mask, expected)
    np.testing.assert_array_equal(shown[1].picture, parts.part(200, hole=True))
    changes = [np.abs(e.heatmap.astype(float) - e.picture).mean(axis=2) for e in shown]
    assert changes[0].max() < 26 < 40 < changes[1][parts.HOLE].min()


def test_examples_pass_over_what_cannot_be_read(
    washers: Path, detector: Detector, tmp_path: Path
) -> None:
    root = shutil.copytree(washers, tmp_path / "washer")
    (root / "test" / "hole" / "000.png").write_bytes(b"no picture")
    (root / "ground_truth" / "hole" / "001_mask.png").write_bytes(b"no mask")
    shown = figure_data.examples(detector, load_dataset(root))
    assert [example.kind for example in shown] == ["good", "hole"]
    np.testing.assert_array_equal(shown[1].picture, parts.part(202, hole=True))


def example(**changes: object) -> Example:
    picture: NDArray[np.uint8] = np.full((30, 60, 3), 90, np.uint8)
    fields = {
        "kind": "bent_lead", "picture": picture, "mask": None, "heatmap": picture,
        "score": 1.5, "verdict": "defect", **changes,
    }  # fmt: skip
    return Example(**fields)  # type: ignore[arg-type]


def test_figure_4_has_a_row_of_masks_only_where_there_are_any() -> None:
    mask = np.ones((30, 60), np.bool_)
    for first, rows in ((example(), 2), (example(mask=mask), 3)):
        figure = figures.figure4([first, example()], "part")
        assert len(figure.axes) == rows * 2
        assert figure.axes[0].get_title() == "bent lead"


def test_figure_4_lines_up_pictures_of_several_shapes() -> None:
    tall = np.full((80, 40, 3), 90, np.uint8)
    figure = figures.figure4([example(), example(picture=tall, heatmap=tall)], "part")
    figure.draw_without_rendering()
    flat, upright = (axes.get_window_extent() for axes in figure.axes[:2])
    assert (flat.y0, flat.y1) == pytest.approx((upright.y0, upright.y1))
    assert flat.width == pytest.approx(flat.height)
    assert figure.axes[0].get_xlim() == (-0.5, 59.5)
    assert figure.axes[0].get_ylim() == (44.5, -15.5)


def test_figure_4_without_a_threshold_says_no_share_of_it() -> None:
    figure = figures.figure4([example(score=np.nan, verdict="unsure")], "part")
    assert figure.axes[-1].get_xlabel() == "unsure"
    assert figures.figure4([example()], "part").axes[-1].get_xlabel() == ("defect\nscore 1.50")


def test_bad_input(washers: Path, good: Path, tmp_path: Path, refusal: Refusal) -> None:
    output = ("--output", tmp_path / "figures")
    assert refusal("reproduce", "figures", washers, *output, "--only", "1,2") == (
        "only: no figure '2'; choose of 1, 3, 4"
    )
    assert "no such file or folder" in refusal("reproduce", "figures", tmp_path / "no", *output)
    said = refusal("reproduce", "figures", good, *output, "--quiet")
    assert said == f"{good}: no test pictures in this folder layout"
    taken = tmp_path / "file"
    taken.touch()
    said = refusal("reproduce", "figures", washers, "--output", taken)
    assert said.startswith(f"{taken}: cannot create")


@pytest.mark.parametrize("name", ["matplotlib", "sklearn"])
def test_without_the_extra_it_says_what_to_type(name: str, washers: Path, tmp_path: Path) -> None:
    script = (
        "import sys\n"
        f"sys.modules[{name!r}] = None\n"
        "sys.argv = ['fapm', *sys.argv[1:]]\n"
        "from fapm.cli.app import main\n"
        "main()"
    )
    arguments = ["reproduce", "figures", str(washers), "--output", str(tmp_path / "figures")]
    finished = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False
    )
    assert (finished.returncode, finished.stdout) == (2, "")
    assert finished.stderr == (
        f"fapm: figures: {name} is not installed; type: pip install 'fapm[research]'\n"
    )
    assert not (tmp_path / "figures").exists()
