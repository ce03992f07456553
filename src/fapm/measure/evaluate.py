"""Judge a detector on labelled pictures: inspect them one by one, then metrics."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fapm.datasets.loading import Sample
from fapm.errors import ImageError, MaskError
from fapm.frames.preparation import Failure
from fapm.inspection.prediction import Prediction
from fapm.measure import metrics
from fapm.measure.aupimo import Aupimo, aupimo
from fapm.pictures.masks import read_masks

if TYPE_CHECKING:
    from fapm.detector import Detector


@dataclass(frozen=True)
class Evaluation:
    """What a detector made of labelled pictures.

    Attributes
    ----------
    samples, results
        what was inspected and what came of it, in the same order.
    image, pixel
        metrics; None without both good and defective pictures, or without masks. Pixels are
        compared in the encoder's frame, as in the literature.
    aupimo
        None also without good pictures: it takes its false alarms from them alone.
    roc, pro
        curves behind them, ``(fpr, tpr)`` and ``(fpr, overlap)``.
    counts
        verdict ``defect`` against labels, None without labels.
    masks
        ground truth in the encoder's frame by position in ``samples``.
    mask_failures
        masks that could not be read; their pictures do not count in ``pixel``.
    warnings
        masks that are black or of another shape than their pictures, which do not count in
        ``pixel``, and those that had to be cut at half of their range; a line each.
    inspect_ms_median
        median time from file to prediction, one picture at a time; None without predictions.
    """

    samples: tuple[Sample, ...]
    results: tuple[Prediction | Failure, ...]
    image: metrics.ImageMetrics | None
    pixel: metrics.PixelMetrics | None
    aupimo: Aupimo | None
    roc: tuple[NDArray[np.float64], NDArray[np.float64]] | None
    pro: tuple[NDArray[np.float64], NDArray[np.float64]] | None
    counts: metrics.Counts | None
    masks: dict[int, NDArray[np.bool_]]
    mask_failures: tuple[Failure, ...]
    warnings: tuple[str, ...]
    inspect_ms_median: float | None

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Pictures and masks that could not be used."""
        return (*self.picture_failures, *self.mask_failures)

    @property
    def picture_failures(self) -> tuple[Failure, ...]:
        """Pictures that could not be inspected."""
        return tuple(result for result in self.results if isinstance(result, Failure))

    def summary(self) -> dict[str, float | None]:
        """Metrics by the names of the JSON output; None where labels or masks are missing."""
        image, pixel = self.image, self.pixel
        return {
            "image_auroc": image.auroc if image else None,
            "image_ap": image.ap if image else None,
            "image_f1_max": image.f1_max if image else None,
            "pixel_auroc": pixel.auroc if pixel else None,
            "pixel_ap": pixel.ap if pixel else None,
            "pixel_f1_max": pixel.f1_max if pixel else None,
            "aupro": pixel.aupro if pixel else None,
            "aupimo": self.aupimo.mean if self.aupimo else None,
        }


def evaluate(
    detector: Detector,
    samples: Sequence[Sample],
    *,
    pictures: Sequence[NDArray[np.uint8]] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Inspect every sample, one at a time, and compare with what is known about it.

    Parameters
    ----------
    pictures
        arrays uint8 ``[H, W, 3]`` or ``[H, W]`` that stand for the samples' files.
    """
    results: list[Prediction | Failure] = []
    seconds = []
    for number, sample in enumerate(samples):
        start = time.perf_counter()
        picture = sample.path if pictures is None else pictures[number]
        (result,) = detector.stream([picture])
        if isinstance(result, Prediction):
            seconds.append(time.perf_counter() - start)
        results.append(result)
        progress(number + 1, len(samples))
    milliseconds = 1000 * statistics.median(seconds) if seconds else None
    return judge(detector, samples, results, milliseconds)


def judge(
    detector: Detector,
    samples: Sequence[Sample],
    results: Sequence[Prediction | Failure],
    inspect_ms_median: float | None,
) -> Evaluation:
    """Compare the ``results`` of ``samples`` with what is known about them."""
    masks, mask_failures, warnings = _read_masks(detector, samples, results)
    known = [
        (sample.label, result.score)
        for sample, result in zip(samples, results, strict=True)
        if isinstance(result, Prediction) and sample.label is not None
    ]
    labels = np.array([label for label, _ in known], np.int64)
    scores = np.array([score for _, score in known], np.float64)
    both = len(set(labels.tolist())) == 2
    pixels = _pixels(samples, results, masks)
    return Evaluation(
        samples=tuple(samples),
        results=tuple(results),
        image=metrics.image_metrics(labels, scores) if both else None,
        pixel=metrics.pixel_metrics(*pixels) if pixels else None,
        aupimo=_aupimo(*pixels) if pixels else None,
        roc=metrics.roc_curve(labels, scores) if both else None,
        pro=metrics.pro_curve(*pixels) if pixels else None,
        counts=metrics.counts_at(labels, scores, detector.threshold_) if len(labels) else None,
        masks=masks,
        mask_failures=tuple(mask_failures),
        warnings=tuple(warnings),
        inspect_ms_median=inspect_ms_median,
    )


def _read_masks(
    detector: Detector, samples: Sequence[Sample], results: Sequence[Prediction | Failure]
) -> tuple[dict[int, NDArray[np.bool_]], list[Failure], list[str]]:
    layout = detector.fitted_.layout
    masks: dict[int, NDArray[np.bool_]] = {}
    failures: list[Failure] = []
    warnings: list[str] = []
    graded: list[Path] = []
    for number, (sample, result) in enumerate(zip(samples, results, strict=True)):
        if not sample.masks or isinstance(result, Failure):
            continue
        try:
            mask = read_masks(sample.masks, result.height, result.width)
        except MaskError as error:
            warnings.append(f"{error}; till then its picture does not count in pixel metrics")
        except ImageError as error:
            failures.append(Failure(str(sample.masks[0]), str(error)))
        else:
            masks[number] = layout.mask(mask.inside)
            if mask.graded:
                graded.append(sample.masks[0])
    if graded:
        warnings.append(
            f"masks that are JPEG or have more than 16 grey levels: {len(graded)} of {len(masks)}, "
            f"e.g. {graded[0]}; of them what is brighter than half counts; better save masks as PNG"
        )
    return masks, failures, warnings


def _pixels(
    samples: Sequence[Sample],
    results: Sequence[Prediction | Failure],
    masks: dict[int, NDArray[np.bool_]],
) -> tuple[NDArray[np.bool_], NDArray[np.float32]] | None:
    """Masks bool and maps float32 ``[n, h, w]`` of the pictures whose every pixel is known.

    None unless there are both good and defective pixels.
    """
    truth, maps = [], []
    for number, (sample, result) in enumerate(zip(samples, results, strict=True)):
        if isinstance(result, Failure) or (sample.label != 0 and number not in masks):
            continue
        truth.append(masks.get(number, np.zeros(result.frame_map.shape, np.bool_)))
        maps.append(result.frame_map)
    if not any(mask.any() for mask in truth) or all(mask.all() for mask in truth):
        return None
    return np.stack(truth), np.stack(maps)


def _aupimo(masks: NDArray[np.bool_], maps: NDArray[np.float32]) -> Aupimo | None:
    defective = masks.any(axis=(1, 2))
    return None if defective.all() else aupimo(masks, maps)
