"""``fapm reproduce``: what was measured, what is missing, and what was published."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

import parts
from conftest import Command, Refusal
from fapm import Config, Detector
from fapm.cli import app as cli
from fapm.engines.base import Runtime
from fapm.reproduce import categories, published
from fapm.reproduce.categories import Job
from fapm.reproduce.output import Column, Document, as_csv, as_html, markdown_table

SMALL = ("--preset", "fast", "--resize", "64")
VARIANTS = ["A", "B", "C", "D", "E", "F"]


@pytest.fixture
def root(washers: Path, tmp_path: Path) -> Path:
    """Two categories of MVTec AD, and a data set that is none."""
    for name in ("bottle", "carpet", "washer"):
        shutil.copytree(washers, tmp_path / "data" / name)
    return tmp_path / "data"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures each fit was given, as they happen."""
    seen: list[int] = []
    fit = Detector.fit

    def watched(self: Detector, source: Any, **rest: Any) -> Detector:
        seen.append(len(source))
        return fit(self, source, **rest)

    monkeypatch.setattr(Detector, "fit", watched)
    return seen


@pytest.fixture(autouse=True)
def _few_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(categories, "_ROUNDS", 1)


@pytest.fixture(scope="module")
def first_run(washers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``table1`` leaves of the bottle. It is copied, since data and files may be moved."""
    folder = tmp_path_factory.mktemp("first")
    bottle = shutil.copytree(washers, folder / "bottle")
    words = ["reproduce", "table1", bottle, "-o", folder / "out", *SMALL, "--quiet"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(categories, "_ROUNDS", 1)
        patch.setattr(sys, "argv", ["fapm", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    assert not ended.value.code
    return folder / "out"


def table1(run: Command, *arguments: object) -> dict[str, Any]:
    finished = run("reproduce", "table1", *arguments, *SMALL, "--json", "-", "--quiet")
    assert (finished.code, finished.err) == (0, "")
    document: dict[str, Any] = json.loads(finished.out)
    return document


def row_of(document: dict[str, Any], category: str) -> dict[str, Any]:
    (row,) = [row for row in document["rows"] if row["category"].startswith(category)]
    return row


# Table 1


def test_every_category_beside_what_was_published(run: Command, root: Path, output: Path) -> None:
    document = table1(run, root, "-o", output)
    names = [row["category"] for row in document["rows"]]
    assert names == [
        "carpet", "bottle", "textures, 1 of 5", "objects, 1 of 10", "all, 2 of 15", "washer",
    ]  # fmt: skip
    assert document["missing"] == [n for n in published.CATEGORIES if n not in ("bottle", "carpet")]
    bottle = row_of(document, "bottle")
    for metric in ("image_auroc", "pixel_auroc", "aupro"):
        assert 0.9 < bottle[metric] <= 1
    assert bottle["fps_device"] > 0 < bottle["fps_wall"]
    assert (bottle["n_train"], bottle["n_test"]) == (12, 6)
    assert bottle["published_percent"] == {
        "paper": {"image": 100, "pixel": 98.2},
        "log": {"image": 100, "pixel": 98.17},
        "patchcore": {"image": 100, "pixel": 98.6},
    }
    assert "published_percent" not in row_of(document, "washer")
    everything = row_of(document, "all")
    carpet = row_of(document, "carpet")
    assert everything["pixel_auroc"] == pytest.approx(
        (bottle["pixel_auroc"] + carpet["pixel_auroc"]) / 2
    )
    assert everything["published_percent"]["paper"]["pixel"] == pytest.approx((98.2 + 98.9) / 2)
    assert everything["fps_wall"] == pytest.approx(
        2 / (1 / bottle["fps_wall"] + 1 / carpet["fps_wall"])
    )


def test_the_table_in_four_formats(run: Command, root: Path, output: Path, first_run: Path) -> None:
    shutil.copytree(first_run, output)
    document = table1(run, root / "bottle", "-o", output)
    assert json.loads((output / "table1.json").read_text()) == document
    markdown = (output / "table1.md").read_text()
    assert "Not here: carpet, grid, leather, tile, wood, cable" in markdown
    (line,) = [text for text in markdown.splitlines() if text.startswith("| bottle")]
    bottle = row_of(document, "bottle")
    pixel = 100 * bottle["pixel_auroc"]
    assert f"| {pixel:.2f} | 98.2 ({pixel - 98.2:+.2f}) | 98.17 ({pixel - 98.17:+.2f}) |" in line
    with (output / "table1.csv").open() as file:
        cells = {row["category"]: row for row in csv.DictReader(file)}
    assert float(cells["bottle"]["pixel_percent"]) == pytest.approx(pixel)
    assert float(cells["bottle"]["pixel_paper_difference"]) == pytest.approx(pixel - 98.2)
    page = (output / "table1.html").read_text()
    assert page.count("<tr") == 2 + len(document["rows"])
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_a_second_run_takes_what_the_first_has_done(
    run: Command, root: Path, output: Path, fits: list[int]
) -> None:
    first = table1(run, root, "-o", output)
    assert fits == [12, 12, 12]
    assert table1(run, root, "-o", output) == first
    assert fits == [12, 12, 12]

    (root / "bottle" / "train" / "good" / "000.png").unlink()
    changed = table1(run, root, "-o", output)
    assert fits[3:] == [11]
    assert row_of(changed, "carpet") == row_of(first, "carpet")
    assert row_of(changed, "bottle")["n_train"] == 11


def _other_mask(root: Path, output: Path) -> tuple[object, ...]:
    parts.save(root / "ground_truth" / "hole" / "000_mask.png", parts.part(0)[:, :, 0])
    return ()


def _damaged(root: Path, output: Path) -> tuple[object, ...]:
    (output / "categories" / "bottle.json").write_text("{")
    return ()


def _nothing_ours(root: Path, output: Path) -> tuple[object, ...]:
    (output / "categories" / "bottle.json").write_text("[]")
    return ()


@pytest.mark.parametrize(
    "change",
    [
        _other_mask,
        _damaged,
        _nothing_ours,
        lambda root, output: ("--ratio", "0.2"),
        lambda root, output: ("--threads", "1"),
    ],
)
def test_what_no_longer_holds_is_measured_again(
    run: Command, root: Path, output: Path, fits: list[int],
    change: Callable[[Path, Path], tuple[object, ...]], first_run: Path,
) -> None:  # fmt: skip
    bottle = root / "bottle"
    shutil.copytree(first_run, output)
    table1(run, bottle, "-o", output)
    assert fits == []
    table1(run, bottle, "-o", output, *change(bottle, output))
    assert len(fits) == 1


def test_data_that_have_moved_are_the_same_data(
    run: Command, root: Path, output: Path, fits: list[int], first_run: Path
) -> None:
    shutil.copytree(first_run, output)
    shutil.move(root / "bottle", root.parent / "bottle")
    table1(run, root.parent / "bottle", "-o", output)
    assert fits == []


def test_a_broken_category_is_a_row_that_says_so(run: Command, root: Path, output: Path) -> None:
    shutil.rmtree(root / "carpet" / "test" / "good")
    for picture in (root / "washer" / "train" / "good").iterdir():
        picture.write_bytes(b"nothing")
    document = table1(run, root, "-o", output)
    error = row_of(document, "carpet")["error"]
    assert error == f"{root / 'carpet'}: test has 0 good and 3 defective pictures; both are needed"
    assert "none of 12 pictures could be read" in row_of(document, "washer")["error"]
    assert row_of(document, "textures")["category"] == "textures, 0 of 5"
    assert row_of(document, "bottle")["image_auroc"] > 0.9
    assert "carpet" not in document["missing"]
    for suffix in ("md", "csv", "html"):
        assert (
            "test has 0 good and 3 defective pictures" in (output / f"table1.{suffix}").read_text()
        )
    assert not (output / "categories" / "carpet.json").exists()


def test_a_broken_picture_is_told_of(run: Command, root: Path, output: Path) -> None:
    (root / "bottle" / "test" / "good" / "000.png").write_bytes(b"nothing")
    document = table1(run, root / "bottle", "-o", output)
    assert len(row_of(document, "bottle")["failed"]) == 1
    assert "bottle: 1 file could not be used; the first: " in (output / "table1.md").read_text()


def test_the_papers_score_on_another_encoder_comes_with_a_warning(
    run: Command, root: Path, output: Path
) -> None:
    knobs = ("--distance-unit", "one", "--neighbours", "4")
    for more, warned in ((knobs, True), (knobs[:2], False)):
        table1(run, root / "bottle", "-o", output, *more)
        assert ("saturates the softmax" in (output / "table1.md").read_text()) == warned


def test_without_masks_there_are_image_figures(run: Command, tmp_path: Path) -> None:
    parts.make_mvtec(tmp_path / "screw", masks=False)
    document = table1(run, tmp_path / "screw", "-o", tmp_path / "out")
    screw = row_of(document, "screw")
    assert screw["image_auroc"] > 0.9
    assert screw["pixel_auroc"] is None
    objects = row_of(document, "objects")
    assert objects["category"] == "objects, 1 of 10 (pixels 0)"
    assert objects["published_percent"]["paper"] == {"image": 95.2, "pixel": None}


@pytest.mark.slow
def test_side_by_side_they_find_the_same_without_speed(
    run: Command, root: Path, output: Path, fits: list[int]
) -> None:
    shutil.rmtree(root / "washer")
    beside = table1(run, root, "-o", output, "--jobs", "2")
    assert fits == []  # elsewhere
    alone = table1(run, root, "-o", output)
    assert len(fits) == 2  # speed was missing
    for name in ("bottle", "carpet"):
        assert row_of(beside, name)["fps_wall"] is None
        for metric in ("image_auroc", "pixel_auroc", "keys"):
            value = row_of(alone, name)[metric]
            assert row_of(beside, name)[metric] == pytest.approx(value, abs=1e-6)
    assert "--jobs 1 only" not in (output / "table1.md").read_text()
    assert table1(run, root, "-o", output, "--jobs", "2")["rows"] == alone["rows"]
    assert len(fits) == 2


class _Deadly:
    """Ends the process that is given it."""

    def __reduce__(self) -> tuple[Callable[[int], NoReturn], tuple[int]]:
        return os._exit, (3,)


def test_a_process_that_dies_is_the_row_of_its_own_category_only(root: Path) -> None:
    deadly: Any = _Deadly()
    jobs = [
        Job("bottle", root / "bottle", deadly, Runtime(), timed=False),
        Job("carpet", root / "nowhere", Config.create(), Runtime(), timed=False),
    ]
    found = {o.name: o for o in categories._in_processes(jobs, 2)}
    assert "its process ended with exit code 3" in str(found["bottle"].error)
    assert "no such file or folder" in str(found["carpet"].error)


# Table 2


def test_the_ablation_in_one_run(run: Command, root: Path, output: Path) -> None:
    finished = run(
        *("reproduce", "table2", root / "bottle", "--resize", "64", "--grid", "2"),
        *("--far-threshold", "0.3", "--rounds", "1", "--json", "-", "--quiet", "-o", output),
    )
    assert (finished.code, finished.err) == (0, "")
    document = json.loads(finished.out)
    rows = {row["variant"]: row for row in document["rows"]}
    assert list(rows) == VARIANTS
    for row in rows.values():
        assert 0.9 < row["image_auroc"] <= 1
        assert 0.9 < row["pixel_auroc"] <= 1
        assert row["fps"] > 0 < row["fps_device"]
    # 12 pictures, 8 x 8 and 4 x 4 cells, 4 patches of each.
    assert rows["A"]["keys"] == -(-12 * 64 // 10)
    assert rows["C"]["keys"] == -(-12 * 64 // 10) + -(-12 * 16 // 10)
    assert rows["A"]["distances"] == rows["A"]["keys"] * 64
    assert rows["B"]["keys"] == 4 * -(-12 * 16 // 10)
    assert rows["D"]["keys"] == 4 * -(-12 * 16 // 10) + 4 * -(-12 * 4 // 10)
    assert rows["F"]["keys"] == rows["D"]["keys"] < rows["E"]["keys"] <= 2 * rows["D"]["keys"]
    assert document["published"]["E"] == {"image": 99.0, "pixel": 98.0, "fps": 44.1}
    assert json.loads((output / "table2.json").read_text()) == document
    assert "| bottle | E | D + near-far (the paper's FAPM) |" in (output / "table2.md").read_text()


@pytest.mark.parametrize("preset", ["fast", "paper"])
def test_variants_change_their_own_parts_only(preset: str) -> None:
    from fapm.reproduce.table2 import VARIANTS, variant_config

    config = Config.create(preset, radius=1)
    parts_of = {
        variant.name: {
            name: value
            for name, value in variant_config(variant, config).model_dump().items()
            if value != config.model_dump()[name]
        }
        for variant in VARIANTS
    }
    adaptive = config.sampling
    plain = {"sampling": "none"}
    near_far = {} if adaptive == "near-far" else {"sampling": "near-far"}
    equal = {} if adaptive == "equal-radius" else {"sampling": "equal-radius"}
    one_patch = {"grid": 1, "radius": 0}
    assert parts_of == {
        "A": {**plain, **one_patch, "layer_wise": False},
        "B": {**plain, "layer_wise": False},
        "C": {**plain, **one_patch},
        "D": plain,
        "E": near_far,
        "F": equal,
    }


def test_several_data_sets_have_means_and_a_broken_one_is_a_row(
    run: Command, root: Path, tmp_path: Path
) -> None:
    shutil.rmtree(root / "carpet" / "test")
    file = tmp_path / "figures.json"
    finished = run(
        *("reproduce", "table2", root, "--resize", "64", "--rounds", "1", "--json", file)
    )
    assert finished.code == 0, finished.err
    assert "bottle: F, D + equal-radius (ours): fitted in " in finished.err
    document = json.loads(file.read_text())
    assert list(document["data_sets"]) == ["bottle", "washer"]
    assert list(document["failed"]) == ["carpet"]
    assert f"| carpet | {root / 'carpet'}: test has 0 good and 0 defective" in finished.out
    for number, row in enumerate(document["rows"]):
        both = [rows[number] for rows in document["data_sets"].values()]
        assert row["variant"] == VARIANTS[number]
        assert row["keys"] == both[0]["keys"] == both[1]["keys"]
        assert row["pixel_auroc"] == pytest.approx(sum(b["pixel_auroc"] for b in both) / 2)
        assert row["fps"] == pytest.approx(2 / sum(1 / b["fps"] for b in both))
    assert "| **mean of 2** | A |" in finished.out


def test_a_variant_that_cannot_be_fitted_is_a_row(run: Command, root: Path) -> None:
    """40 keys are enough for the single memories, and not for 49 patches."""
    finished = run(
        *("reproduce", "table2", root / "bottle", "--resize", "64", "--rounds", "1"),
        *("--max-keys", "40", "--json", "-", "--quiet"),
    )
    assert finished.code == 0, finished.err
    rows = {row["variant"]: row for row in json.loads(finished.out)["rows"]}
    assert [name for name in VARIANTS if "error" not in rows[name]] == ["A", "C"]
    assert rows["B"]["error"].startswith("max_keys: 40 is too few for 49 patches")
    assert rows["A"]["keys"] == rows["C"]["keys"] == 40


# What cannot be done


@pytest.mark.parametrize("command", ["table1", "table2"])
def test_bad_input_is_refused_in_one_line(
    command: str, refusal: Refusal, root: Path, tmp_path: Path
) -> None:
    def refused(where: Path, *more: object) -> str:
        output = ("-o", tmp_path / "out")
        return refusal("reproduce", command, where, *output, *SMALL, "--quiet", *more)

    missing = tmp_path / "missing"
    assert refused(missing) == f"{missing}: no such folder; check the path"
    assert "no data set in MVTec AD's layout" in refused(root / "bottle" / "test")
    shutil.copytree(root / "bottle", root / "again" / "bottle")
    assert "bottle is there twice" in refused(root)
    assert "no such directory" in refused(root / "bottle", "--json", missing / "x.json")
    assert "weights: no such file" in refused(root / "bottle", "--weights", missing)
    assert refused(root / "bottle", "--keep-aspect") == (
        "keep_aspect: reproduce makes the paper's tables, with square frames; leave it out"
    )
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").write_text("a file")
    assert "cannot create" in refused(root / "carpet")
    (tmp_path / "out").unlink()
    for picture in (root / "carpet" / "train" / "good").iterdir():
        picture.write_bytes(b"nothing")
    assert "none of 12 pictures could be read" in refused(root / "carpet")
    shutil.rmtree(root / "washer" / "test")
    assert "test has 0 good and 0 defective pictures" in refused(root / "washer")


def test_missing_weights_name_the_ways_out(
    refusal: Refusal, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fapm.encoder import weights

    monkeypatch.setattr(weights, "_hub_answers", lambda: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    line = refusal("reproduce", "table1", root, "-o", tmp_path / "out", "--quiet")
    assert "wide_resnet50_2.tv_in1k" in line
    assert "--weights FILE" in line
    assert "--preset fast" in line


# Published figures and the document


def test_columns_are_whole_and_agree_with_the_printed_averages() -> None:
    assert len(published.CATEGORIES) == 15
    for column in (published.FAPM, published.PATCHCORE, published.AUTHORS_LOG):
        assert tuple(column) == published.CATEGORIES
    fapm = published.average(published.FAPM, published.CATEGORIES)
    assert fapm == pytest.approx(published.METHODS["FAPM"].average, abs=0.06)
    patchcore = published.average(published.PATCHCORE, published.CATEGORIES)
    assert patchcore == pytest.approx(published.METHODS["PatchCore"].average, abs=0.11)
    log = published.average(published.AUTHORS_LOG, published.CATEGORIES)
    assert log == pytest.approx((98.94, 97.94), abs=0.006)


def test_cells_are_escaped_where_they_are_shown() -> None:
    document = Document(
        title="<t>", heading="h", facts={"f": "<v>"},
        columns=(Column("name", "name"), Column("x", "x", "g", digits=1, beside="y")),
        rows=({"name": "a|b <i>", "x": 1234.56, "y": -1.0}, {"name": "c", "error": "<oh|no>\nx"}),
        notes=("<n>",),
    )  # fmt: skip
    assert markdown_table(document)[2:] == [
        "| a\\|b <i> | 1,234.6 (-1.00) |",
        "| c | <oh\\|no> x |",
    ]
    page = as_html(document)
    assert "&lt;t&gt;" in page
    assert "a|b &lt;i&gt;" in page
    assert "&lt;oh|no&gt;" in page
    assert not {"<i>", "<v>", "<n>", "<oh"} & {page[i : i + 3] for i in range(len(page))}
    assert as_csv(document).splitlines() == [
        "name,x,y,error", "a|b <i>,1234.56,-1.0,", 'c,,,"<oh|no>', 'x"',
    ]  # fmt: skip
