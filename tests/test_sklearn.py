"""The detector among scikit-learn's tools. What does not pass, and why: docs/scikit-learn.md."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.exceptions
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks, get_tags
from sklearn.utils.validation import check_is_fitted

import fapm
import stripes
from fapm import Config, Detector
from fapm.config import PRESETS
from fapm.engines.base import Runtime
from fapm.errors import ConfigError, DatasetError, NotFittedError

LABELS = [0] * 12 + [1] * 6


@pytest.fixture(scope="module")
def mixed() -> NDArray[np.uint8]:
    """12 good pictures, then 6 defective ones."""
    return np.stack(stripes.good_pictures() + [stripes.defective(100 + n) for n in range(6)])


class OfRows(Detector):
    """Takes tables, as scikit-learn's own checks give them, and predicts labels.

    Each row becomes a small picture. All rows are good: those checks label them in many ways.
    """

    def fit(self, source: Any, y: Any = None, **options: Any) -> Detector:
        return super().fit(self._pictures(source), **options)

    def predict(self, pictures: Any) -> Any:
        return self.classes_[(self.decision_function(pictures) > 0).astype(int)]

    def decision_function(self, pictures: Any) -> NDArray[np.float64]:
        check_is_fitted(self)
        return super().decision_function(self._pictures(pictures))

    def score(self, pictures: Any, y: Any = None) -> Any:
        return np.array([prediction.score for prediction in super().predict(pictures)])

    @staticmethod
    def _pictures(rows: Any) -> NDArray[np.uint8]:
        cells = 128 + 30 * np.asarray(rows, np.float64)[:, None, :, None]
        grey = np.tile(cells, (1, 32, 1, 3)).clip(0, 255).astype(np.uint8)
        return np.repeat(grey, -(-32 // grey.shape[2]), axis=2)


# --- its own checks -------------------------------------------------------------------------------

CHECKS = (
    "check_decision_proba_consistency",
    "check_dont_overwrite_parameters",
    "check_dtype_object",
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_tags_renamed",
    "check_estimators_dtypes",
    "check_estimators_fit_returns_self",
    "check_estimators_overwrite_params",
    "check_estimators_pickle",
    "check_f_contiguous_array_estimator",
    "check_fit2d_1feature",
    "check_fit2d_1sample",
    "check_fit_check_is_fitted",
    "check_fit_idempotent",
    "check_get_params_invariance",
    "check_inplace_ensure_writeable",
    "check_methods_sample_order_invariance",
    "check_methods_subset_invariance",
    "check_mixin_order",
    "check_no_attributes_set_in_init",
    "check_positive_only_tag_during_fit",
    "check_readonly_memmap_input",
    "check_requires_y_none",
    "check_set_params",
    "check_valid_tag_types",
)


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_of_scikit_learns(name: str) -> None:
    check = getattr(estimator_checks, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its checks warn of what they try
        check("OfRows", OfRows(Config.create(resize=32, grid=2)))


# --- parameters -----------------------------------------------------------------------------------


def test_a_clone_has_the_parameters_and_not_the_fit(detector: Detector) -> None:
    twin = clone(detector)
    assert twin.get_params() == detector.get_params()
    assert detector.__sklearn_is_fitted__()
    with pytest.raises(sklearn.exceptions.NotFittedError):
        check_is_fitted(twin)


def test_fields_of_the_config_are_parameters() -> None:
    detector = Detector(stripes.CONFIG)
    assert detector.get_params()["config__resize"] == 64
    assert detector.get_params(deep=False).keys() == {"config", "runtime", "max_pixels"}
    changed = detector.set_params(config__resize=96, config__grid=4, max_pixels=10_000)
    assert changed is detector
    assert detector.config == Config.create(resize=96, grid=4)
    assert detector.max_pixels == 10_000
    assert detector.set_params(config=stripes.CONFIG, config__grid=3).config.resize == 64


def test_another_config_has_to_be_fitted_another_runtime_not() -> None:
    pictures = stripes.good_pictures(4)
    detector = stripes.fitted(pictures)
    before = detector.score(pictures)
    detector.set_params(runtime=Runtime(engine="torch"), config__resize=64)
    assert detector.engine_.name == "torch"
    np.testing.assert_allclose(detector.score(pictures), before, rtol=1e-3)
    detector.set_params(config__sigma=2.0)
    with pytest.raises(NotFittedError, match="not fitted; call fit"):
        detector.score(pictures)


def test_tiles_are_parameters() -> None:
    tiled = Detector(Config.create(tile=64)).set_params(config__ratio=0.05)
    assert (tiled.config.tile, tiled.config.ratio) == (64, 0.05)
    for preset in PRESETS:
        if preset != "paper":  # its crop does not go with tiles
            made = Detector(Config.create(preset)).set_params(config__tile=64)
            assert made.config == Config.create(preset, tile=64)
            made.set_params(**made.get_params())
            assert made.config == Config.create(preset, tile=64)
    assert made.set_params(config__tile=None).config.resize == Config().resize
    with pytest.raises(ConfigError, match="tiles are cut from pictures as they are"):
        tiled.set_params(config__resize=300)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"resize": 64}, "resize: no such parameter; known ones: config, runtime, max_pixels"),
        ({"config__resize": 1}, "resize: 1 is not valid"),
        ({"config": None}, "config: None is not a Config"),
        ({"config__grid": 3, "runtime": "torch"}, "runtime: 'torch' is not a Runtime"),
    ],
)
def test_wrong_parameters_change_nothing(params: dict[str, Any], message: str) -> None:
    detector = Detector(stripes.CONFIG)
    before = detector.get_params()
    with pytest.raises(ConfigError, match=message):
        detector.set_params(**params)
    assert detector.get_params() == before


# --- fitting and scoring --------------------------------------------------------------------------


def test_fit_takes_labels_and_only_the_good(mixed: NDArray[np.uint8]) -> None:
    detector = Detector(stripes.CONFIG)
    assert detector.fit(mixed, LABELS) is detector
    expected = stripes.keys_of(stripes.fitted(mixed[:12]))
    for ours, theirs in zip(stripes.keys_of(detector), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert detector.classes_.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1], r"\(2,\) is not the shape of 18 labels"),
        ([1] * 18, "no picture is labelled 0"),
        ([1, -1] * 9, r"must be 0 \(good\) or 1 \(defect\)"),
        (["good"] * 18, r"must be 0 \(good\) or 1 \(defect\)"),
    ],
)
def test_labels_that_do_not_fit(mixed: NDArray[np.uint8], labels: Any, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        Detector(stripes.CONFIG).fit(mixed, labels)


def test_a_folder_has_no_labels(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="not to a folder"):
        Detector(stripes.CONFIG).fit(tmp_path, [0])


def test_decisions_are_verdicts(detector: Detector, mixed: NDArray[np.uint8]) -> None:
    decisions = detector.decision_function(mixed)
    np.testing.assert_array_equal(decisions, detector.score(mixed) - detector.threshold_)
    verdicts = [p.verdict == "defect" for p in detector.predict(mixed)]
    assert (decisions > 0).tolist() == verdicts
    assert verdicts[12:] == [True] * 6


def test_not_fitted_is_said_as_scikit_learn_does() -> None:
    detector = Detector(stripes.CONFIG)
    for error in (ValueError, AttributeError, fapm.FapmError):
        with pytest.raises(error, match="not fitted"):
            detector.decision_function([])
    assert not hasattr(detector, "threshold_")
    assert not hasattr(detector, "classes_")


def test_its_tags(detector: Detector) -> None:
    tags = get_tags(detector)
    assert tags.estimator_type == "classifier"
    assert not tags.input_tags.two_d_array
    assert not tags.target_tags.required


def test_cross_validation(mixed: NDArray[np.uint8]) -> None:
    aucs = cross_val_score(Detector(stripes.CONFIG), mixed, LABELS, cv=3, scoring="roc_auc")
    assert aucs.tolist() == [1, 1, 1]
    mixed_up = [0, 1] * 9  # defects are fitted on, too
    wrong = cross_val_score(Detector(stripes.CONFIG), mixed, mixed_up, cv=3, scoring="roc_auc")
    assert wrong.max() < 1


def test_a_search_over_the_config(folder: Path, mixed: NDArray[np.uint8]) -> None:
    grid = {"config__grid": [2, 4], "config__resize": [64]}
    search = GridSearchCV(Detector(), grid, cv=2, scoring="average_precision")
    search.fit(mixed, LABELS)
    assert search.best_score_ == 1
    assert search.best_estimator_.config.grid in grid["config__grid"]
    assert search.best_estimator_.fitted_.config == search.best_estimator_.config


def test_a_pipeline(detector: Detector, mixed: NDArray[np.uint8]) -> None:
    mirror = FunctionTransformer(lambda pictures: pictures[:, :, ::-1])
    pipeline = make_pipeline(mirror, Detector(stripes.CONFIG)).fit(mixed, LABELS)
    mirrored = stripes.fitted(mixed[:12, :, ::-1])
    np.testing.assert_allclose(
        pipeline.decision_function(mixed), mirrored.decision_function(mixed[:, :, ::-1])
    )
    plain = Pipeline([("detector", detector)])
    assert [p.verdict for p in plain.predict(mixed)[12:]] == ["defect"] * 6
    plain.set_params(detector__max_pixels=1_000_000)
    assert detector.max_pixels == 1_000_000


def test_files_are_cross_validated_too(folder: Path) -> None:
    paths = sorted(folder.iterdir())
    labels = [0] * 9 + [1] * 3
    assert len(cross_val_score(Detector(stripes.CONFIG), paths, labels, cv=3, scoring="roc_auc"))


def test_it_can_be_sent_to_another_process(mixed: NDArray[np.uint8]) -> None:
    detector = stripes.fitted(mixed[:12])
    before = detector.score(mixed)  # its engine is open
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(detector)).score(mixed), before)


def test_scikit_learn_is_not_imported() -> None:
    code = (
        "import sys, fapm, fapm.detector, fapm.estimator, fapm.measure.evaluate\n"
        "fapm.Detector().get_params()\n"
        "assert 'sklearn' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
