"""FAPM as a model of anomalib, and our metrics against anomalib's. Skipped without anomalib."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import parts
from fapm import Config, Detector
from fapm.engines.base import Runtime
from fapm.errors import ConfigError, FapmError
from fapm.measure.aupimo import aupimo
from fapm.measure.metrics import aupro, auroc
from framing import prepare

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("anomalib")
    from anomalib.data import Folder, ImageBatch, MVTecAD
    from anomalib.engine import Engine
    from anomalib.metrics import AUPIMO, AUPRO, AUROC

    from fapm.anomalib import Fapm

# What anomalib and Lightning warn of is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")

Arrays = tuple[NDArray[Any], NDArray[Any]]
KNOBS: list[dict[str, Any]] = [
    {"resize": 64},
    {"resize": 96, "neighbours": 3, "sampling": "near-far"},
    {"resize": 80, "crop": 64, "layer_wise": False, "radius": 1, "grid": 4},
]


def engine(folder: Path) -> Engine:
    return Engine(
        default_root_dir=folder, accelerator="cpu", enable_progress_bar=False, logger=False
    )


def data(root: Path) -> MVTecAD:
    """In batches that do not divide the 12 good pictures, which anomalib shuffles."""
    return MVTecAD(
        root=root.parent, category=root.name, num_workers=0, train_batch_size=5, eval_batch_size=4
    )


@pytest.fixture(scope="module")
def trained(washers: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Fapm, Path]:
    """A model, and its checkpoint."""
    folder = tmp_path_factory.mktemp("anomalib")
    model, trainer = Fapm(resize=64), engine(folder)
    trainer.fit(model, datamodule=data(washers))
    (checkpoint,) = folder.rglob("v0/**/*.ckpt")
    return model, checkpoint


@pytest.fixture(scope="module")
def ours(washers: Path) -> Detector:
    return reference(washers, resize=64)


def reference(root: Path, **knobs: Any) -> Detector:
    """Our own detector on torch, of the same pictures."""
    detector = Detector(Config.create(**knobs), runtime=Runtime(engine="torch"))
    return detector.fit(root / "train" / "good")


def same_memory(one: Detector, other: Detector) -> None:
    for a, b in zip(one.fitted_.banks, other.fitted_.banks, strict=True):
        for field in ("keys", "offsets", "pictures", "cells", "radii"):
            np.testing.assert_array_equal(getattr(a, field), getattr(b, field))
        assert a.unit == b.unit
    assert one.threshold_ == other.threshold_
    assert one.fitted_.pictures == other.fitted_.pictures
    assert one.config == other.config
    assert one.fitted_.preparation == other.fitted_.preparation


# --- the same as our own detector -----------------------------------------------------------------


@pytest.mark.parametrize("knobs", KNOBS)
def test_memory_scores_and_maps_are_our_own(
    washers: Path, tmp_path: Path, knobs: dict[str, Any]
) -> None:
    model = Fapm(post_processor=False, evaluator=False, **knobs)
    trainer, module = engine(tmp_path), data(washers)
    trainer.fit(model, datamodule=module)
    detector = reference(washers, **knobs)
    same_memory(model.to_detector(), detector)
    batches = trainer.predict(model, datamodule=module)
    assert batches
    seen = 0
    for batch in batches:
        for path, score, found in zip(
            batch.image_path, batch.pred_score, batch.anomaly_map, strict=True
        ):
            prediction = detector.predict(path)
            assert score.item() == pytest.approx(prediction.score, rel=1e-5)
            np.testing.assert_allclose(found.squeeze(), prediction.frame_map, rtol=1e-4, atol=1e-4)
            seen += 1
    assert seen == 6


@pytest.mark.parametrize("knobs", KNOBS)
def test_pictures_of_another_size_are_resized_as_ours(knobs: dict[str, Any]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (90, 130, 3), np.uint8)
    given = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
    (frame,) = Fapm(**knobs).pre_processor(given).permute(0, 2, 3, 1) * 255
    expected = prepare(picture, knobs["resize"], knobs.get("crop"), "bicubic")
    np.testing.assert_array_equal(frame.round().numpy(), expected)


def test_masks_follow_the_pictures() -> None:
    model = Fapm(resize=80, crop=48)
    picture, mask = torch.zeros(2, 3, 64, 64), torch.zeros(2, 64, 64, dtype=torch.uint8)
    mask[:, parts.HOLE[0], parts.HOLE[1]] = 1
    frames, cut = model.pre_processor.transform(picture, mask)
    assert frames.shape == (2, 3, 48, 48)
    assert cut.shape == (2, 48, 48)
    # 20 .. 40 of 64 rows are 25 .. 50 of 80, and those 9 .. 34 of the middle 48.
    assert cut[0].any(dim=1).nonzero().flatten().tolist() == list(range(9, 34))
    assert model.pre_processor.transform(picture, None)[1] is None


def test_a_checkpoint_holds_everything(
    trained: tuple[Fapm, Path], ours: Detector, washers: Path, tmp_path: Path
) -> None:
    _, checkpoint = trained
    same_memory(Fapm.load_from_checkpoint(checkpoint).to_detector(), ours)
    tested = engine(tmp_path).test(
        Fapm(resize=64), datamodule=data(washers), ckpt_path=str(checkpoint)
    )
    assert tested[0]["image_AUROC"] == 1
    assert tested[0]["pixel_AUROC"] > 0.99


def test_what_was_fitted_becomes_a_bundle(
    trained: tuple[Fapm, Path], ours: Detector, washers: Path, tmp_path: Path
) -> None:
    trained[0].to_detector().save(tmp_path / "washer.fapm")
    detector = Detector.load(tmp_path / "washer.fapm")  # on OpenVINO
    pictures = sorted((washers / "test").rglob("*.png"))
    np.testing.assert_allclose(detector.score(pictures), ours.score(pictures), rtol=1e-3)


def test_folders_are_fitted_on_too(washers: Path, ours: Detector, tmp_path: Path) -> None:
    module = Folder(
        name="washer",
        root=washers,
        normal_dir="train/good",
        abnormal_dir="test/hole",
        normal_test_dir="test/good",
        mask_dir="ground_truth/hole",
        num_workers=0,
    )
    model, trainer = Fapm(resize=64), engine(tmp_path)
    trainer.fit(model, datamodule=module)
    same_memory(model.to_detector(), ours)
    assert trainer.test(model, datamodule=module)[0]["image_AUROC"] == 1


@pytest.mark.slow
def test_exported_graphs_say_the_same(trained: tuple[Fapm, Path], tmp_path: Path) -> None:
    import onnxruntime

    model = trained[0].cpu().eval()
    frames = torch.from_numpy(
        np.stack([parts.part(300), parts.part(301, hole=True)]).transpose(0, 3, 1, 2)
    )
    with torch.inference_mode():
        expected = model(frames / 255)
    path = engine(tmp_path).export(model, "onnx", export_root=tmp_path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    said = dict(zip(names, session.run(None, {"input": (frames / 255).numpy()}), strict=True))
    np.testing.assert_allclose(said["pred_score"], expected.pred_score, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(said["anomaly_map"], expected.anomaly_map, rtol=1e-3, atol=1e-4)
    with pytest.raises(ConfigError, match=r"\(32, 32\) is not \(64, 64\)"):
        model.to_onnx(tmp_path, input_size=(32, 32))


SQUARE = "hands over square frames"
AS_THEY_ARE = "hands over frames as they are"


@pytest.mark.parametrize(
    ("knob", "reason"),
    [
        ({"tile": 64}, SQUARE),
        ({"keep_aspect": True}, SQUARE),
        ({"flat_field": True}, AS_THEY_ARE),
        ({"light": "gain"}, AS_THEY_ARE),
        ({"align": "shift"}, AS_THEY_ARE),
    ],
    ids=str,
)
def test_what_is_not_in_its_graph_is_refused(knob: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=f"{min(knob)}: anomalib {reason}; leave it out"):
        Fapm(**knob)


def test_knobs_that_are_wrong() -> None:
    with pytest.raises(ConfigError, match="resize: 3 is not valid"):
        Fapm(resize=3)
    with pytest.raises(ConfigError, match="colour: no such field"):
        Fapm(colour="red")
    with pytest.raises(FapmError, match="not fitted; call Engine"):
        Fapm().to_detector()


def test_the_command_line_knows_every_knob(washers: Path, tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("anomalib")
    if not script.is_file():
        pytest.skip("no anomalib command")
    finished = subprocess.run(
        [
            script, "train", "--model", "fapm.anomalib.Fapm", "--model.preset", "accurate",
            "--model.resize", "64", "--model.max_keys", "200", "--data", "anomalib.data.MVTecAD",
            "--data.root", washers.parent, "--data.category", washers.name,
            "--data.num_workers", "0", "--trainer.accelerator", "cpu",
        ],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    (checkpoint,) = tmp_path.rglob("v0/**/*.ckpt")
    detector = Fapm.load_from_checkpoint(checkpoint).to_detector()
    assert detector.config == Config.create("accurate", resize=64, max_keys=200)
    assert sum(len(bank.keys) for bank in detector.fitted_.banks) <= 200


# --- metrics --------------------------------------------------------------------------------------


def defects(levels: int | None) -> Arrays:
    """20 maps of 250 x 200 with 3 square defects each, and 20 of good pictures.

    The good ones have a million pixels, so that the bounds of AUPIMO are whole numbers of them.
    """
    rng = np.random.default_rng(0)
    masks = np.zeros((40, 250, 200), bool)
    for mask in masks[:20]:
        for _ in range(3):
            y, x, side = *rng.integers(0, 180, 2), rng.integers(3, 20)
            mask[y : y + side, x : x + side] = True
    maps = rng.normal(size=masks.shape) + rng.uniform(2, 6, (40, 1, 1)) * masks
    if levels is not None:
        maps = np.round(maps * levels) / levels
    return masks, maps.astype(np.float32)


def theirs(metric: Any, masks: NDArray[Any], maps: NDArray[Any]) -> Any:
    batch = ImageBatch(
        image=torch.zeros(len(maps), 3, *maps.shape[1:]),
        anomaly_map=torch.from_numpy(maps),
        gt_mask=torch.from_numpy(masks),
    )
    metric.update(batch)
    return metric.compute()


FIELDS = ["anomaly_map", "gt_mask"]


def test_pixel_auroc_is_anomalibs() -> None:
    masks, maps = defects(None)
    assert auroc(masks, maps) == pytest.approx(float(theirs(AUROC(FIELDS), masks, maps)), abs=1e-3)


def test_aupro_is_anomalibs() -> None:
    masks, maps = defects(None)
    expected = float(theirs(AUPRO(FIELDS), masks, maps))
    assert aupro(masks, maps) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("levels", [None, 1000])
def test_aupimo_is_anomalibs(levels: int | None) -> None:
    masks, maps = defects(levels)
    _, expected = theirs(AUPIMO(fields=FIELDS, return_average=False), masks, maps)
    found = aupimo(masks, maps)
    assert 0.2 < found.mean < 0.9
    np.testing.assert_allclose(found.per_image[:20], expected.aupimos[:20].numpy(), atol=1e-3)
    assert np.isnan(found.per_image[20:]).all()
