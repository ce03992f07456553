"""Exported graphs score as the detector, with and without fapm."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import openvino
import pytest
from PIL import Image

import fapm
from conftest import Command, Refusal
from fapm.errors import OutputError
from fapm.frames.preparation import Frame
from fapm.inspection import export
from fapm.pictures import codec
from framing import read_frame
from stripes import DEFECT, defective, fitted, good, good_pictures

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_an_exported_graph_scores_the_same_without_fapm(
    kind: str, bundle: Path, folder: Path, run: Command, tmp_path: Path
) -> None:
    finished = run("export", bundle, tmp_path / "out", "--to", kind)
    assert finished.code == 0, finished.err
    assert float(finished.out.split("difference ")[1].split()[0]) < 1e-3
    suffixes = {"onnx": {".onnx"}, "openvino": {".xml", ".bin"}}[kind]
    assert {p.suffix for p in (tmp_path / "out").iterdir()} == {*suffixes, ".json"}

    pictures = sorted(folder.iterdir())[:4]
    script = EXAMPLES / {"onnx": "onnxruntime_inspect.py", "openvino": "openvino_inspect.py"}[kind]
    assert "import fapm" not in script.read_text()
    command = [sys.executable, script, tmp_path / "out", *pictures]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    scores = [float(line.split()[1]) for line in said.stdout.splitlines()]
    np.testing.assert_allclose(scores, fapm.load(bundle).score(pictures), rtol=1e-3)


def said_by_example(kind: str, exported: Path, *pictures: Path) -> subprocess.CompletedProcess[str]:
    script = EXAMPLES / f"{kind}_inspect.py"
    command = [sys.executable, script, exported, *pictures]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def many_kinds(folder: Path, height: int = 64, width: int = 64) -> list[Path]:
    """A defective picture as files of all kinds that FAPM reads in a way of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(defective(300, height, width))
    grey = np.asarray(picture.convert("L"))
    half = np.linspace(0, 255, height * width).reshape(height, width).round().astype(np.uint8)
    kinds: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "plain.png": (picture, {}),
        "deep.png": (Image.fromarray(grey.astype(np.uint16) * 256 + 77), {}),
        "half.png": (Image.merge("RGBA", (*picture.split(), Image.fromarray(half))), {}),
        "grey half.png": (Image.merge("LA", [Image.fromarray(grey), Image.fromarray(half)]), {}),
        "palette.png": (picture.quantize(16), {"transparency": 3}),
        "cmyk.tif": (picture.convert("CMYK"), {}),
        "bits.tif": (picture.convert("1"), {}),
        "grey.jpg": (picture.convert("L"), {"quality": 95}),
    }
    lying = Image.Exif()
    lying[0x0112] = 6  # to be turned by a quarter
    turned = picture.transpose(Image.Transpose.ROTATE_90)
    for suffix in ("jpg", "png", "webp", "tif"):
        kinds[f"turned.{suffix}"] = turned, {"exif": lying.tobytes()}
    for name, (image, options) in kinds.items():
        image.save(folder / name, **options)
    return [folder / name for name in kinds]


@pytest.fixture(scope="module")
def example() -> ModuleType:
    """examples/picture.py."""
    spec = importlib.util.spec_from_file_location("picture", EXAMPLES / "picture.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_examples_read_pictures_as_fapm_does(example: ModuleType, tmp_path: Path) -> None:
    for path in many_kinds(tmp_path, 40, 72):
        read = example.read_picture(path)
        np.testing.assert_array_equal(read, codec.read_image(path), err_msg=path.name)
        assert read.shape == (40, 72, 3)
    blank = np.dstack([good(1), np.zeros((64, 64), np.uint8)])
    Image.fromarray(blank).save(tmp_path / "blank.png")
    np.testing.assert_array_equal(example.read_picture(tmp_path / "blank.png"), good(1))


@pytest.mark.parametrize(("name", "options"), [("large.png", {}), ("large.jpg", {"quality": 95})])
def test_the_examples_make_frames_of_large_pictures_as_fapm_does(
    name: str, options: dict[str, Any], example: ModuleType, tmp_path: Path
) -> None:
    y, x = np.mgrid[:432, :704]
    waves = 128 + 60 * np.sin(x / 20) + 60 * np.cos(y / 15 + x / 90)
    large = Image.fromarray(np.repeat(waves[..., None], 3, axis=2).astype(np.uint8))
    large.save(tmp_path / name, **options)
    held = fitted(good_pictures(3)).fitted_
    about = export.describe(held)
    frame = example.read_frame(tmp_path / name, about)
    ours = read_frame(
        tmp_path / name, held.config, about["interpolation"], max_pixels=codec.MAX_PIXELS
    )
    assert isinstance(ours, Frame)
    difference = np.abs(frame.astype(int) - ours.pixels.astype(int))
    # Within what averaging before the resize, and a JPEG that is decoded at a fraction, change.
    assert difference.mean() < 0.5
    assert difference.max() <= 4


def test_the_examples_name_what_they_do_not_read(example: ModuleType, tmp_path: Path) -> None:
    about = {"resize": [32, 48], "crop": None, "interpolation": "bicubic", "picture": [64, 96]}
    refused = {"deep.tif": np.zeros((64, 96), np.uint16), "float.tif": np.zeros((64, 96), "f4")}
    for name, samples in refused.items():
        Image.fromarray(samples).save(tmp_path / name)
    Image.fromarray(good(1, 64, 96)).save(tmp_path / "sound.png")
    Image.fromarray(good(1, 64, 64)).save(tmp_path / "square.png")
    Image.fromarray(good(1, 64, 100)).save(tmp_path / "nearly.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "sound.png").read_bytes()[:900])
    for name in (*refused, "square.png", "cut.png", "missing.png"):
        with pytest.raises(ValueError, match=re.escape(str(tmp_path / name))):
            example.read_frame(tmp_path / name, about)
    for name in ("sound.png", "nearly.png"):
        assert example.read_frame(tmp_path / name, about).shape == (32, 48, 3)


@pytest.mark.parametrize(
    ("kind", "shape", "overrides"),
    [
        ("onnxruntime", (96, 80), {"crop": 48}),
        ("openvino", (60, 110), {"keep_aspect": True}),
        ("onnxruntime", (110, 60), {"keep_aspect": True}),
    ],
    ids=["crop", "wide", "tall"],
)
def test_the_examples_score_and_judge_as_fapm_does(
    kind: str, shape: tuple[int, int], overrides: dict[str, Any], tmp_path: Path
) -> None:
    held = fitted([good(seed, *shape) for seed in range(8)], grid=3, **overrides)
    pictures = [good(seed, *shape) for seed in range(40, 44)]
    to = {"openvino": "openvino", "onnxruntime": "onnx"}[kind]
    export.export(held.snapshot(), to, tmp_path / "out", export.sample_frames(held.fitted_))
    files = many_kinds(tmp_path / "in", *shape)
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / "in" / f"{number}.png")
        files.append(tmp_path / "in" / f"{number}.png")
    broken = tmp_path / "in" / "broken.png"
    broken.write_bytes(b"nothing")
    done = said_by_example(kind, tmp_path / "out", files[0], broken, *files[1:])
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{broken}: ")
    words = [line.split() for line in done.stdout.splitlines()]
    expected = held.predict(files)
    np.testing.assert_allclose(
        [float(word[1]) for word in words], [p.score for p in expected], rtol=1e-3
    )
    assert [word[0] for word in words] == [p.verdict for p in expected]


def test_the_examples_have_the_same_three_verdicts(example: ModuleType) -> None:
    levels = fitted(good_pictures(), false_positive_rate=0.1, unsure_rate=0.3).fitted_
    about = export.describe(levels)
    low, high = levels.calibration.unsure_threshold, levels.calibration.threshold
    assert low < high
    for score in (low / 2, low, (low + high) / 2, high, 2 * high):
        assert example.verdict_of(score, about) == levels.calibration.verdict(score)


def test_one_good_picture_gives_scores_and_no_verdict(tmp_path: Path) -> None:
    held = fitted([good(0)])
    export.export(held.snapshot(), "openvino", tmp_path / "out", export.sample_frames(held.fitted_))
    (path, *_) = many_kinds(tmp_path / "in")
    done = said_by_example("openvino", tmp_path / "out", path)
    assert (done.returncode, done.stderr) == (0, "")
    verdict, score, *_ = done.stdout.split()
    assert verdict == "-"
    assert float(score) == pytest.approx(held.score(path), rel=1e-3)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C++ example, compiled against the OpenVINO that pip installed."""
    if not (shutil.which("cmake") and shutil.which("c++")):
        pytest.skip("cmake and a C++ compiler are not here")
    build = tmp_path_factory.mktemp("build")
    found = Path(openvino.__file__).parent / "cmake"
    for command in (
        ["cmake", "-S", EXAMPLES / "cpp", "-B", build, f"-DOpenVINO_DIR={found}"],
        ["cmake", "--build", build],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return build / "inspect"


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_c_plus_plus_program_scores_the_same(
    program: Path, precision: str, tmp_path: Path
) -> None:
    held = fitted(good_pictures(), precision=precision)
    export.export(held.snapshot(), "openvino", tmp_path / "out", export.sample_frames(held.fitted_))
    pictures = [good(seed) for seed in range(100, 103)] + [defective(7)]
    frames = [tmp_path / f"{number}.ppm" for number in range(len(pictures))]
    for picture, frame in zip(pictures, frames, strict=True):
        Image.fromarray(picture).save(frame)
    said = subprocess.run(
        [program, tmp_path / "out", *frames], capture_output=True, text=True, check=True
    )
    lines = [line.split() for line in said.stdout.splitlines()]
    np.testing.assert_allclose([float(line[0]) for line in lines], held.score(pictures), rtol=1e-4)
    x, y = int(lines[-1][3].rstrip(",")), int(lines[-1][4])
    assert DEFECT[0].start <= y < DEFECT[0].stop
    assert DEFECT[1].start <= x < DEFECT[1].stop


def test_the_c_plus_plus_program_refuses_a_frame_of_another_size(
    program: Path, bundle: Path, run: Command, tmp_path: Path
) -> None:
    assert run("export", bundle, tmp_path).code == 0
    Image.fromarray(good(1, 32, 32)).save(tmp_path / "small.ppm")
    said = subprocess.run(
        [program, tmp_path, tmp_path / "small.ppm"], capture_output=True, text=True, check=False
    )
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr == f"inspect: {tmp_path / 'small.ppm'}: must be 64 x 64 pixels\n"


def test_the_c_plus_plus_program_reads_comments_and_names_what_it_does_not_read(
    program: Path, bundle: Path, run: Command, tmp_path: Path
) -> None:
    assert run("export", bundle, tmp_path).code == 0
    picture = good(1)
    files = {
        "plain": b"P6\n64 64\n255\n" + picture.tobytes(),
        "gimp": b"P6\n# CREATOR: GIMP PNM Filter\n64 64\n255\n" + picture.tobytes(),
        "many": b"P6#a 1\n #b 2\n#\n64 # 3\n#4\n64#5\n\t255\n" + picture.tobytes(),
        "grey": b"P5\n64 64\n255\n" + picture.tobytes(),
        "deep": b"P6\n64 64\n65535\n" + 2 * picture.tobytes(),
        "header": b"P6\n64 x\n255\n",
        "cut": b"P6\n64 64\n255\n" + picture.tobytes()[:-1],
        "empty": b"",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    paths = [tmp_path / name for name in (*files, "missing")]
    said = subprocess.run([program, tmp_path, *paths], capture_output=True, text=True, check=False)
    assert said.returncode == 2
    scores = [float(line.split()[0]) for line in said.stdout.splitlines()]
    np.testing.assert_allclose(scores, 3 * [fapm.load(bundle).score(picture)], rtol=1e-4)
    refusals = {
        "grey": "not a binary PPM (P6); save it as one, RGB of 8 bit",
        "deep": "its samples go to 65535; save it with 8 bit, which go to 255",
        "header": "its header is not that of a PPM",
        "cut": "ends too soon",
        "empty": "not a binary PPM (P6); save it as one, RGB of 8 bit",
        "missing": "cannot be opened; check the path",
    }
    assert said.stderr.splitlines() == [
        f"inspect: {tmp_path / name}: {reason}" for name, reason in refusals.items()
    ]


def test_it_is_proven_on_given_pictures(
    bundle: Path, folder: Path, run: Command, refusal: Refusal, tmp_path: Path
) -> None:
    mixed = shutil.copytree(folder, tmp_path / "mixed")
    (mixed / "0 broken.png").write_bytes(b"nothing")
    finished = run("export", bundle, tmp_path / "out", "--pictures", mixed)
    assert finished.code == 0, finished.err
    assert finished.out.endswith(f" on {len(list(folder.iterdir()))} pictures\n")
    broken = tmp_path / "mixed" / "0 broken.png"
    said = refusal("export", bundle, tmp_path / "none", "--pictures", broken)
    assert said.startswith("no picture could be read; the first: ")
    assert str(broken) in said


def test_what_goes_along_says_how_to_judge(bundle: Path, run: Command, tmp_path: Path) -> None:
    assert run("export", bundle, tmp_path, "--to", "onnx").code == 0
    about = json.loads((tmp_path / "detector.json").read_text())
    held = fapm.load(bundle)
    assert about["threshold"] == held.threshold_
    assert (about["batch"], about["runtime"]) == (1, "ONNX Runtime 1.17 or newer")
    assert (about["resize"], about["crop"], about["interpolation"]) == ([64, 64], None, "bicubic")
    assert (about["batch"], about["picture"]) == (1, None)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_old_openvino_reads_what_is_exported(precision: str, tmp_path: Path) -> None:
    """Nothing newer than opset 15, which OpenVINO 2024.6 has: `make lowest` tries it there."""
    held = fitted(good_pictures(4), precision=precision)
    export.export(held.snapshot(), "openvino", tmp_path, export.sample_frames(held.fitted_))
    graph = (tmp_path / "model.xml").read_text()
    assert 'type="Identity"' not in graph
    assert max(map(int, re.findall(r'version="opset(\d+)"', graph))) <= 15
    about = json.loads((tmp_path / "detector.json").read_text())
    assert (about["batch"], about["runtime"]) == (1, "OpenVINO 2024.6 or newer")


def test_newer_operations_name_the_runtime_that_wrote_them(tmp_path: Path) -> None:
    graph = tmp_path / "model.xml"
    graph.write_text('<layer version="opset1"/><layer version="opset16"/>')
    least = export._least_runtime(graph)
    assert least == f"OpenVINO {openvino.__version__.split('-')[0]} or newer"


def test_int8_goes_to_openvino_and_not_to_onnx(
    run: Command, refusal: Refusal, tmp_path: Path
) -> None:
    fitted(good_pictures(), precision="int8").save(tmp_path / "int8.fapm")
    assert run("export", tmp_path / "int8.fapm", tmp_path / "out").code == 0
    said = refusal("export", tmp_path / "int8.fapm", tmp_path / "onnx", "--to", "onnx")
    assert said.startswith("precision: a bundle fitted with int8 cannot be exported to onnx")
    assert not (tmp_path / "onnx").exists()


def test_a_file_that_scores_otherwise_is_not_left_behind(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = fapm.load(bundle)
    run_it = export._run_onnx
    monkeypatch.setattr(export, "_run_onnx", lambda path, frames: run_it(path, frames) * 1.01)
    with pytest.raises(OutputError, match=r"nothing exported: the onnx file scores 0\.01 off"):
        export.export(held.snapshot(), "onnx", tmp_path / "out", export.sample_frames(held.fitted_))
    assert list((tmp_path / "out").iterdir()) == []


def test_bad_exports(bundle: Path, refusal: Refusal, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    said = refusal("export", bundle, tmp_path / "out", "--to", "tflite")
    assert said == "to: unknown 'tflite'; choose one of onnx, openvino"
    assert str(tmp_path / "file") in refusal("export", bundle, tmp_path / "file")
