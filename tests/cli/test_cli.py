"""The command line as people use it: from pictures of good parts to verdicts, files and reports."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fapm
import parts
import stripes
from conftest import Command, Finished, run_process
from fapm.config import Config
from fapm.pictures.codec import read_image

COMMANDS = (
    *("fit", "inspect", "evaluate", "audit", "update", "forget", "compare"),
    *("info", "export", "benchmark", "doctor", "demo"),
)
FIGURES = (
    *("image_auroc", "image_ap", "image_f1_max", "pixel_auroc", "pixel_ap", "aupro", "aupimo"),
    *("fit_seconds", "inspect_ms_median", "keys", "bundle_bytes", "config"),
)

# Per field of Config: what is typed, and what that is in JSON. Nothing here is a default.
KNOBS: dict[str, tuple[tuple[str, ...], Any]] = {
    "encoder": (("--encoder", "resnet18"), "resnet18"),
    "weights": (("--weights", "random"), "random"),
    "layers": (("--layers", "layer1,layer2"), ["layer1", "layer2"]),
    "resize": (("--resize", "72"), 72),
    "crop": (("--crop", "64"), 64),
    "flat_field": (("--flat-field", "surface.png"), "surface.png"),
    "keep_aspect": (("--keep-aspect",), True),
    "tile": (("--tile", "48"), 48),
    "overlap": (("--overlap", "12"), 12),
    "tile_scale": (("--tile-scale", "1.5"), 1.5),
    "light": (("--light", "gain"), "gain"),
    "align": (("--align", "shift"), "shift"),
    "grid": (("--grid", "4"), 4),
    "layer_wise": (("--no-layer-wise",), False),
    "sampling": (("--sampling", "near-far"), "near-far"),
    "ratio": (("--ratio", "0.05"), 0.05),
    "budget_pictures": (("--budget-pictures", "100"), 100),
    "max_keys": (("--max-keys", "2000"), 2000),
    "far_threshold": (("--far-threshold", "0.4"), 0.4),
    "distance_unit": (("--distance-unit", "one"), "one"),
    "neighbours": (("--neighbours", "2"), 2),
    "radius": (("--radius", "1"), 1),
    "rotations": (("--rotations", "2"), 2),
    "coarse_upsampling": (("--coarse-upsampling", "row-order"), "row-order"),
    "sigma": (("--sigma", "2.5"), 2.5),
    "score_sigma": (("--score-sigma", "0.5"), 0.5),
    "false_positive_rate": (("--false-positive-rate", "0.1"), 0.1),
    "unsure_rate": (("--unsure-rate", "0.2"), 0.2),
    "precision": (("--precision", "int8"), "int8"),
    "augment": (("--augment", "3"), 3),
    "robust": (("--robust",), True),
    "thumbnails": (("--no-thumbnails",), False),
    "seed": (("--seed", "3"), 3),
}


def json_records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_no_arguments_show_the_help() -> None:
    bare, asked = run_process(), run_process("--help")
    assert asked.code == 0
    assert bare.out + bare.err == asked.out
    for command in COMMANDS:
        assert f"\n  {command} " in asked.out


def test_the_version_is_the_package_s(run: Command) -> None:
    assert run("--version") == Finished(0, f"fapm {fapm.__version__}\n", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(run: Command, command: str) -> None:
    finished = run(command, "--help")
    assert (finished.code, finished.err) == (0, "")
    assert f"fapm {command}" in finished.out


@pytest.mark.parametrize(
    "words", ["--help", "fit --help", "fit . -o x --ratio 0", "evaluate nope", "inspect nope -m x"]
)
def test_help_and_mistakes_do_not_wait_for_torch(words: str) -> None:
    code = "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules))"
    command = [
        sys.executable,
        "-c",
        f"{code}; from fapm.cli.app import main; main()",
        *words.split(),
    ]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.stdout.splitlines()[-1] == "False"


def test_fit_prints_the_bundle_s_path_and_tells_the_rest_on_stderr(
    fitted: tuple[Path, Finished],
) -> None:
    model, said = fitted
    assert said.out == f"{model}\n"
    note, facts = said.err.splitlines()
    assert note.startswith("note: 12 good pictures cannot show a false-positive rate of 1 %")
    assert facts.startswith("12 good pictures, ")
    assert fapm.load(model).config == stripes.CONFIG


@pytest.mark.slow
def test_another_process_on_another_copy_writes_the_same_bytes(
    washers: Path, model: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(washers / "train" / "good", tmp_path / "copy")
    again = tmp_path / "again.fapm"
    arguments = ("fit", copy, "-o", again, "--resize", 64, "--quiet")
    assert run_process(*arguments, PYTHONHASHSEED="7") == Finished(0, f"{again}\n", "")
    assert again.read_bytes() == model.read_bytes()


def test_fit_on_a_data_set_takes_its_training_pictures_only(
    run: Command, washers: Path, tmp_path: Path
) -> None:
    finished = run("fit", washers, "--output", tmp_path / "washer.fapm", "--resize", 64)
    assert finished.code == 0
    assert finished.err.startswith("MVTec layout: 12 training pictures, 6 test pictures")
    names = fapm.load(tmp_path / "washer.fapm").fitted_.pictures
    assert names == tuple(f"{number:03d}.png" for number in range(12))


def test_inspect_says_what_it_left_out(run: Command, model: Path, tmp_path: Path) -> None:
    parts.save(tmp_path / "0.png", parts.part(0))
    for name in ("a.gif", "b.heic", "Thumbs.db", "@eaDir"):
        (tmp_path / name).touch()
    finished = run("inspect", tmp_path, "--model", model)
    assert len(finished.out.splitlines()) == 1
    said = "left out: 2 files of a format that is not read (1 .gif, 1 .heic)"
    assert finished.err.splitlines()[0] == said


TILES = ("keep_aspect", "tile", "overlap", "tile_scale")


@pytest.mark.parametrize(
    "left_out",  # what excludes the rest
    [
        ("align", "flat_field", *TILES),
        ("rotations", *TILES),
        ("align", "rotations", "crop", "coarse_upsampling", *TILES[1:]),
        ("align", "rotations", "crop", "coarse_upsampling", "resize", "keep_aspect", "robust"),
    ],
)
def test_every_knob_can_be_set(
    left_out: tuple[str, ...],
    run: Command,
    washers: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    parts.save(Path("surface.png"), np.full((64, 64, 3), 128, np.uint8))
    wanted = {name: value for name, (_, value) in KNOBS.items()}
    assert list(wanted) == list(Config.model_fields)
    default = Config.create().model_dump(mode="json")
    assert [name for name in wanted if wanted[name] == default[name]] == []

    wanted |= {name: default[name] for name in left_out}
    typed = [w for name, (words, _) in KNOBS.items() if name not in left_out for w in words]
    finished = run("fit", washers / "train" / "good", "-o", tmp_path / "all.fapm", *typed)
    assert finished.code == 0, finished.err
    manifest = json.loads(run("info", tmp_path / "all.fapm", "--json").out)
    assert manifest["config"] == wanted


def test_knobs_replace_single_fields_of_a_preset(
    run: Command, washers: Path, tmp_path: Path
) -> None:
    small = {"encoder": "efficientnet_lite0", "resize": 72, "crop": 64}
    typed = [word for name, value in small.items() for word in (f"--{name}", value)]
    output = tmp_path / "paper.fapm"
    finished = run("fit", washers / "train" / "good", "-o", output, "--preset", "paper", *typed)
    assert finished.code == 0, finished.err
    assert fapm.load(output).config == Config.create("paper", **small)


def test_info_says_what_a_bundle_holds(run: Command, model: Path) -> None:
    finished = run("info", model)
    assert (finished.code, finished.err) == (0, "")
    facts = dict(line.split(maxsplit=1) for line in finished.out.splitlines())
    assert facts["bundle"].startswith(f"{model}, ")
    assert facts["pictures"] == "12, 0 left out"
    assert facts["frames"] == "64 x 64 pixels"
    assert float(facts["threshold"]) == pytest.approx(fapm.load(model).threshold_, rel=1e-3)
    for name in Config.model_fields:
        assert re.search(rf"^config +{name} = ", finished.out, re.MULTILINE)


def test_doctor_runs_the_encoder(run: Command) -> None:
    finished = run("doctor")
    assert (finished.code, finished.err) == (0, "")
    facts = dict(line.split(maxsplit=1) for line in finished.out.splitlines())
    assert facts["fapm"] == fapm.__version__
    assert facts["encoder"].startswith("efficientnet_lite0 works")


@pytest.mark.slow
def test_inspect_writes_every_kind_of_result(washers: Path, model: Path, tmp_path: Path) -> None:
    test = washers / "test"
    finished = run_process(
        *("inspect", test, "--model", model, "--jsonl", tmp_path / "r.jsonl"),
        *("--csv", tmp_path / "r.csv", "--overlays", tmp_path / "maps", "--report", tmp_path / "r"),
    )
    assert finished.code == 0, finished.err

    rows = [line.split() for line in finished.out.splitlines()]
    assert [row[0] for row in rows] == ["good"] * 3 + ["defect"] * 3
    sources = [str(path) for path in sorted(test.glob("*/*.png"))]
    assert [row[2] for row in rows] == sources
    counts, report = finished.err.splitlines()
    assert counts.startswith("3 good, 0 unsure, 3 defect, 0 failed; ")
    assert report == f"report: {tmp_path / 'r' / 'report.html'}"

    records = json_records((tmp_path / "r.jsonl").read_text())
    assert [record["source"] for record in records] == sources
    expected = fapm.load(model).predict(sources)
    assert [record["score"] for record in records] == [p.score for p in expected]
    hole = records[-1]["regions"][0]
    assert hole["x"] <= 34 <= hole["x"] + hole["width"]
    assert hole["y"] <= 30 <= hole["y"] + hole["height"]

    table = list(csv.DictReader((tmp_path / "r.csv").read_text().splitlines()))
    assert [float(row["score"]) for row in table] == [p.score for p in expected]
    assert [row["verdict"] for row in table] == [row[0] for row in rows]

    names = [f"{number:03d}.png" for number in range(3)]
    maps = sorted((tmp_path / "maps").iterdir())
    assert [path.name for path in maps] == [*names, *(f"hole_{name}" for name in names)]
    assert {read_image(path).shape for path in maps} == {(parts.EDGE, parts.EDGE, 3)}

    page = (tmp_path / "r" / "report.html").read_text()
    assert page.rstrip().endswith("</html>")
    assert page.count("002.png") >= 2


def test_overlays_of_pictures_with_the_same_name_do_not_replace_each_other(
    run: Command, model: Path, tmp_path: Path
) -> None:
    for number, name in enumerate(("a.png", "a.bmp", "a.tif", "b/a.png")):
        parts.save(tmp_path / "in" / name, parts.part(number))
    finished = run("inspect", tmp_path / "in", "-m", model, "--overlays", tmp_path / "out")
    assert finished.code == 0, finished.err
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_results_on_stdout_are_nothing_but_results(
    run: Command, washers: Path, model: Path
) -> None:
    lines = run("inspect", washers / "test", "-m", model, "--jsonl", "-")
    assert [record["verdict"] for record in json_records(lines.out)] == ["good"] * 3 + [
        "defect"
    ] * 3
    assert "3 good, 0 unsure, 3 defect" in lines.err

    table = run("inspect", washers / "test", "-m", model, "--csv", "-")
    assert [row["verdict"] for row in csv.DictReader(io.StringIO(table.out))] == [
        *["good"] * 3,
        *["defect"] * 3,
    ]
    assert "3 good, 0 unsure, 3 defect" in table.err


def test_quiet_leaves_results_only(
    run: Command, washers: Path, model: Path, tmp_path: Path
) -> None:
    for arguments in (
        ("fit", washers, "-o", tmp_path / "q.fapm", "--resize", 64),
        ("inspect", washers / "test", "-m", model, "--report", tmp_path / "r1"),
        ("evaluate", washers, "-m", model, "--report", tmp_path / "r2"),
    ):
        finished = run(*arguments, "--quiet")
        assert (finished.code, finished.err) == (0, "")
        assert finished.out


def test_the_exit_code_tells_of_defects_when_asked(
    run: Command, washers: Path, model: Path, tmp_path: Path
) -> None:
    good, hole = washers / "test" / "good", washers / "test" / "hole"
    assert run("inspect", good, "-m", model, "--fail-on-defect").code == 0
    assert run("inspect", good, hole, "-m", model, "--fail-on-defect").code == 1
    assert run("inspect", good, hole, "-m", model).code == 0

    (tmp_path / "broken.png").touch()
    assert run("inspect", hole, tmp_path, "-m", model, "--fail-on-defect").code == 1
    unknown = run("inspect", good, tmp_path, "-m", model, "--fail-on-defect")
    assert unknown.code == 2
    assert "fapm: 1 of 4 pictures could not be inspected" in unknown.err


@pytest.mark.slow
def test_evaluate_fits_judges_and_reports(washers: Path, tmp_path: Path) -> None:
    arguments = ("evaluate", washers, "--resize", 64, "--report", tmp_path, "--json", "-")
    finished = run_process(*arguments)
    assert finished.code == 0, finished.err
    (figures,) = json_records(finished.out)
    assert [name for name in FIGURES if figures.get(name) is None] == []
    assert figures["image_auroc"] == 1
    assert figures["pixel_auroc"] > 0.9
    assert (figures["caught"], figures["missed"]) == (3, 0)
    assert (figures["passed"], figures["false_alarms"]) == (3, 0)
    assert figures["config"] == Config.create(resize=64).model_dump(mode="json")
    assert finished.err.startswith("MVTec layout: 12 training pictures")
    assert finished.err.endswith(f"report: {tmp_path / 'report.html'}\n")
    assert (tmp_path / "report.html").read_text().rstrip().endswith("</html>")


def test_evaluate_with_a_bundle_does_not_fit(
    run: Command, washers: Path, model: Path, tmp_path: Path
) -> None:
    table = run("evaluate", washers, "-m", model, "--json", tmp_path / "figures.json")
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["fit_seconds"] is None
    assert figures["bundle_bytes"] == model.stat().st_size
    assert f"image auroc   {figures['image_auroc']:.4f}\n" in table.out
    assert "caught        3 of 3 defects, missed 0 (of them 0 unsure)\n" in table.out
    assert "false alarms  0 of 3 good parts (and 0 unsure)\n" in table.out


def test_figures_that_need_masks_or_defects_are_null_without(
    run: Command, model: Path, tmp_path: Path
) -> None:
    maskless = parts.make_mvtec(tmp_path / "maskless", masks=False)
    figures = json.loads(run("evaluate", maskless, "-m", model, "--json", "-").out)
    assert figures["image_auroc"] == 1
    assert [figures[name] for name in FIGURES[3:7]] == [None] * 4

    for path in (maskless / "test" / "hole").iterdir():
        path.unlink()
    figures = json.loads(run("evaluate", maskless, "-m", model, "--json", "-").out)
    assert [figures[name] for name in FIGURES[:7]] == [None] * 7
    assert figures["passed"] == 3


def test_one_good_picture_gives_scores_without_verdicts(run: Command, tmp_path: Path) -> None:
    root = parts.make_mvtec(tmp_path / "one")
    for path in sorted((root / "train" / "good").iterdir())[1:]:
        path.unlink()
    finished = run("evaluate", root, "--resize", 64)
    assert finished.code == 0
    assert "note: 1 good picture gives no threshold" in finished.err
    assert "threshold     - (one good picture gives none)\n" in finished.out
    assert "missed 3 (of them 3 unsure)" in finished.out
    figures = json.loads(run("evaluate", root, "--resize", 64, "--json", "-").out)
    assert figures["threshold"] is None


@pytest.mark.parametrize("layout", ["mvtec", "mpdd", "btad", "csv", "visa"])
def test_layouts_can_be_named(run: Command, model: Path, tmp_path: Path, layout: str) -> None:
    root = source = parts.make_mvtec(tmp_path / "washer")
    options = ["--layout", layout]
    rows = [
        ("washer", "test", label, f"test/{kind}/00{number}.png")
        for label, kind in (("normal", "good"), ("anomaly", "hole"))
        for number in range(3)
    ]
    table = "object,split,label,image\n" + "".join(",".join(row) + "\n" for row in rows)
    if layout == "btad":
        for old, new in (("train/good", "train/ok"), ("test/good", "test/ok"),
                         ("test/hole", "test/ko")):  # fmt: skip
            (root / old).rename(root / new)
    elif layout == "csv":
        source = root / "parts.csv"
        source.write_text(table)
    elif layout == "visa":
        (root / "split_csv").mkdir()
        (root / "split_csv" / "1cls.csv").write_text(table + table.replace("washer", "bolt"))
        options += ["--category", "washer"]
    finished = run("evaluate", source, "-m", model, *options, "--json", "-")
    assert finished.code == 0, finished.err
    figures = json.loads(finished.out)
    assert (figures["caught"], figures["passed"]) == (3, 3)
    assert finished.err.lower().startswith(f"{layout} layout: ")


@pytest.mark.slow
def test_a_file_name_beyond_the_terminal_s_encoding_does_not_end_a_run(
    model: Path, tmp_path: Path
) -> None:
    picture = parts.save(tmp_path / "bücher.png", parts.part(50))
    finished = run_process("inspect", picture, "-m", model, "-q", PYTHONIOENCODING="ascii:strict")
    assert (finished.code, finished.err) == (0, "")
    assert finished.out.endswith("b\\xfccher.png\n")
