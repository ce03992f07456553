"""The detector: fit, predict, score, save, load."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fapm import estimator
from fapm.bundle import file as bundle
from fapm.bundle.calibration import promises
from fapm.bundle.fitted import Fitted, restrict
from fapm.config import Config
from fapm.datasets.training import training_pictures
from fapm.engines.base import Engine, Runtime
from fapm.engines.opening import require_precision
from fapm.errors import ConfigError, ImageError, NotFittedError
from fapm.frames.preparation import Failure, layout_for, summary
from fapm.frames.roi import Region, Regions, drawn_roi
from fapm.inspection.drift import DriftMonitor
from fapm.inspection.prediction import Prediction
from fapm.inspection.snapshot import Snapshot
from fapm.inspection.stream import Stages, judge_pictures
from fapm.pictures import codec
from fapm.pictures.sources import Picture
from fapm.progress import Listener, Progress, silent, unheard
from fapm.system.exits import native_code
from fapm.system.forks import Lock
from fapm.system.imports import needed_for
from fapm.updating import forget as forgetting


class Detector:
    """Finds and localises defects, from pictures of good parts alone.

    Parameters
    ----------
    config
        every knob; the preset ``fast`` by default.
    runtime
        the engine that fits and inspects: OpenVINO by default.
    max_pixels
        larger pictures are refused, against decompression bombs.

    Examples
    --------
    >>> import fapm
    >>> detector = fapm.Detector(fapm.Config(resize=64)).fit("good")
    >>> detector
    Detector(efficientnet_lite0, 64 px, 12 pictures)
    >>> detector.predict("part.png")
    Prediction('part.png', good, score ..., threshold ..., 0 regions)
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        runtime: Runtime | None = None,
        max_pixels: int = codec.MAX_PIXELS,
    ) -> None:
        self.config = config or Config.create()
        self.runtime = runtime or Runtime()
        self.max_pixels = max_pixels
        self._snapshot: Snapshot | None = None  # replaced whole, and never changed
        self._learning = Lock()  # from reading a snapshot to writing the one that is made of it

    def snapshot(self) -> Snapshot:
        """Memory, engine and aligner as they are now; whoever learns makes others.

        Raises
        ------
        NotFittedError
            There is no memory yet.
        """
        now = self._snapshot
        if now is None:
            raise NotFittedError("this detector is not fitted; call fit, or fapm.load(bundle)")
        return now

    @property
    def fitted_(self) -> Fitted:
        """Memory banks, thresholds and names, after fit."""
        return self.snapshot().fitted

    @property
    def threshold_(self) -> float:
        """Scores above it are a defect; NaN after a fit on one picture."""
        return self.fitted_.calibration.threshold

    @property
    def engine_(self) -> Engine:
        """The engine that runs the graph; made when it is first needed."""
        return self.snapshot().engine

    @property
    def notes_(self) -> list[str]:
        """Limits of this fit, its choices and the pictures it left out; one sentence each."""
        fitted = self.fitted_
        notes = promises(len(fitted.pictures), fitted.config.false_positive_rate)
        notes += fitted.remarks
        notes += [f"left out of fit: {line}" for line in summary(fitted.skipped)]
        return notes + [warning for change in fitted.history for warning in change.warnings]

    def fit(
        self,
        source: object,
        y: ArrayLike | None = None,
        *,
        roi: Region | None = None,
        ignore: Region | None = None,
        progress: Progress = silent,
        remark: Callable[[str], None] = unheard,
    ) -> Detector:
        """Learn what good parts look like.

        Parameters
        ----------
        source
            a folder, a list of folders and of pictures as :meth:`predict` takes them, or an array
            uint8 ``[N, H, W, 3]``.
        y
            0 good, 1 defect, for each picture of a list or an array: only good ones are fitted on.
            Without it all are good.
        roi, ignore
            what of the pictures is inspected, and what of that is not: a mask picture (white is
            inside), polygons in JSON, or bool ``[H, W]``; see :func:`fapm.frames.roi.drawn_roi`.
            What is
            outside gets no keys and cannot raise a score. ``roi="auto"`` learns what stands out
            from a plain background.
        progress
            called with stage, done and total.
        remark
            called with one line before a fit that takes long: its time and memory.

        Raises
        ------
        DatasetError
            No such folder, no pictures in it, or labels that do not fit or none of which is good.
        ImageError
            No picture could be read. Single unreadable ones are left out: see :attr:`notes_`.
        EncoderError
            The encoder or its weights cannot be had.
        EngineError
            The engine is not installed, or lacks the precision asked for.
        ConfigError
            Tiles are larger than the pictures, or what is asked for does not go together.
        OutputError
            The features of so many pictures need a temporary file, and there is no room for it.
        RoiError
            What is to be inspected cannot be read, or is nothing.
        """
        taken = training_pictures(source if y is None else estimator.good_ones(source, y))
        pictures = taken.pictures
        with needed_for("fit", "fapm[fit]"):
            from fapm.encoder import weights
            from fapm.fitting import fit as fitting
        with self._learning.held():
            layout = layout_for(self.config, pictures)
            fitted = fitting.fit(
                pictures,
                self.config,
                weights.create_encoder(self.config, layout.tile_shape),
                self.runtime,
                layout=layout,
                regions=Regions(roi, ignore),
                max_pixels=self.max_pixels,
                listener=Listener(progress, remark),
            )
            fitted = replace(fitted, remarks=taken.lines + fitted.remarks)
            self._snapshot = Snapshot(fitted, self.runtime)
        return self

    def restrict(self, roi: Region | None = None, ignore: Region | None = None) -> Detector:
        """A detector that inspects less: of what this one does, what is inside ``roi`` as well.

        Memory and thresholds stay: scores are those of this detector's cells that are inside. Its
        graph is compiled once, and what is outside costs nothing.

        Parameters
        ----------
        roi, ignore
            as in :meth:`fit`, except ``"auto"``.

        Raises
        ------
        RoiError
            One of them cannot be read, or nothing is left to inspect.
        ImageError
            A mask picture cannot be read.
        """
        fitted = self.fitted_
        drawn = drawn_roi(roi, ignore, fitted.layout)
        less = restrict(fitted, drawn) if drawn else fitted
        return Detector.of(less, runtime=self.runtime, max_pixels=self.max_pixels)

    def update(
        self,
        source: object,
        *,
        when: str | None = None,
        force: bool = False,
        progress: Progress = silent,
    ) -> Detector:
        """Learn more good parts, without the pictures of the fit; see :mod:`fapm.updating.update`.

        Parameters
        ----------
        source
            as for :meth:`fit`.
        when
            is kept in the history, as it is.
        force
            learn even where half of the pictures or more look like another product.

        Raises
        ------
        DatasetError
            Half of the pictures or more look like another product, and ``force`` is not given.
        FapmError
            As :meth:`fit`. The detector is in any case what it was.
        """
        taken = training_pictures(source)
        _ = self.fitted_  # or it raises, before torch is asked for
        with needed_for("update", "fapm[fit]"):
            from fapm.updating import update as updating
        with self._learning.held():
            fitted = updating.update(
                self.fitted_,
                taken.pictures,
                self.runtime,
                when=when,
                force=force,
                max_pixels=self.max_pixels,
                progress=progress,
            )
            said = tuple(f"update: {line}" for line in taken.lines)
            self._snapshot = Snapshot(replace(fitted, remarks=fitted.remarks + said), self.runtime)
        return self

    def forget(self, picture: str, *, when: str | None = None) -> Detector:
        """Remove one training picture's keys; see :mod:`fapm.updating.forget`. Needs no torch.

        Parameters
        ----------
        picture
            its name, one of ``fitted_.pictures``.

        Raises
        ------
        DatasetError
            There is no such picture, or it cannot be removed.
        """
        with self._learning.held():
            fitted = forgetting.forget(self.fitted_, picture, when=when)
            self._snapshot = Snapshot(fitted, self.runtime)
        return self

    # mypy: a str is itself an iterable of str, and an array of arrays; the first overload decides.
    @overload
    def predict(self, pictures: Picture) -> Prediction: ...  # type: ignore[overload-overlap]
    @overload
    def predict(self, pictures: Iterable[Picture]) -> list[Prediction]: ...
    def predict(self, pictures: Picture | Iterable[Picture]) -> Prediction | list[Prediction]:
        """Judge one picture, or several.

        Parameters
        ----------
        pictures
            a path, the bytes of a file or an open one, a Pillow picture, or an array uint8
            ``[H, W, 3]`` or ``[H, W]`` gives one prediction; a list, a generator or an array uint8
            ``[B, H, W, 3]`` gives a list. All are decoded by the same rules.

        Raises
        ------
        ImageError
            A picture cannot be used. :meth:`stream` reports it and goes on instead.
        """
        if codec.is_picture(pictures):
            return self._sure(next(self.stream(pictures)))
        return [self._sure(result) for result in self.stream(pictures)]

    @overload
    def score(self, pictures: Picture) -> float: ...  # type: ignore[overload-overlap]
    @overload
    def score(self, pictures: Iterable[Picture]) -> NDArray[np.float64]: ...
    def score(self, pictures: Picture | Iterable[Picture]) -> float | NDArray[np.float64]:
        """Raw image score of one picture, or float64 ``[B]`` of several; as :meth:`predict`."""
        predictions = self.predict(pictures)
        if isinstance(predictions, Prediction):
            return predictions.score
        return np.array([prediction.score for prediction in predictions])

    def decision_function(self, pictures: Iterable[Picture]) -> NDArray[np.float64]:
        """Scores less the threshold, float64 ``[B]``: above 0 is a defect, as for scorers.

        scikit-learn's outlier detectors have it the other way round. NaN after a fit on one
        picture, which gives no threshold.
        """
        judged = [self._sure(result) for result in self.stream(list(codec.several(pictures)))]
        return np.array([p.score - p.threshold for p in judged], np.float64)

    def stream(
        self,
        pictures: Picture | Iterable[Picture],
        *,
        stages: Stages | None = None,
        drift: DriftMonitor | None = None,
    ) -> Iterator[Prediction | Failure]:
        """Judge pictures one after the other, lazily and in order.

        A sequence is decoded ahead in threads. Any other iterable may be a camera: each picture is
        judged before the next is asked for. A picture that cannot be used gives a :class:`Failure`
        in its place, and the rest go on. All are judged by the memory that the first was judged by,
        whatever is learned meanwhile.

        Parameters
        ----------
        stages
            is told what took how long.
        drift
            a monitor made of ``fitted_.baseline``; it has seen a picture when that is yielded.
        """
        yield from judge_pictures(
            codec.several(pictures),
            self.snapshot(),
            max_pixels=self.max_pixels,
            stages=stages or Stages(),
            drift=drift,
        )

    def warm(self) -> Detector:
        """Compile the graph and judge an empty frame, so that the first picture takes no longer.

        It lasts until the detector learns or forgets, which makes another graph.

        Raises
        ------
        NotFittedError
            There is no memory yet.
        EngineError
            The engine is not installed, or cannot run what was fitted.
        """
        now = self.snapshot()
        frame = np.zeros((*now.fitted.layout.shape, 3), np.uint8)
        with native_code.inside():
            now.engine.run([frame])
        return self

    def save(self, path: str | Path) -> None:
        """Write everything into one file, without pickle. An existing file is replaced whole.

        Raises
        ------
        OutputError
            The file cannot be written.
        """
        bundle.save(self.fitted_, Path(path))

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        precision: str = "auto",
        runtime: Runtime | None = None,
        max_pixels: int = codec.MAX_PIXELS,
        warm: bool = False,
    ) -> Detector:
        """The detector a bundle holds. Needs no network, no weights and no training pictures.

        Parameters
        ----------
        precision
            ``auto``, or what the bundle must have been fitted with.
        warm
            call :meth:`warm` at once.

        Raises
        ------
        BundleError
            Missing, damaged or hostile file, or one of another format.
        EngineError
            The bundle was fitted with another precision. With ``warm`` also as :meth:`warm`.
        """
        fitted = bundle.load(Path(path))
        require_precision(fitted.encoder, precision)
        detector = cls.of(fitted, runtime=runtime, max_pixels=max_pixels)
        return detector.warm() if warm else detector

    @classmethod
    def of(
        cls,
        fitted: Fitted,
        *,
        runtime: Runtime | None = None,
        max_pixels: int = codec.MAX_PIXELS,
    ) -> Detector:
        """The detector of a :class:`Fitted`, from a fit or a bundle."""
        detector = cls(fitted.config, runtime=runtime, max_pixels=max_pixels)
        detector._snapshot = Snapshot(fitted, detector.runtime)
        return detector

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters of the constructor; ``deep``: also the config's fields, ``config__resize``."""
        params = {name: getattr(self, name) for name in ("config", "runtime", "max_pixels")}
        return params | (estimator.config_params(self.config) if deep else {})

    def set_params(self, **params: Any) -> Detector:
        """Change what :meth:`get_params` names. With another config it has to be fitted again.

        Raises
        ------
        ConfigError
            No such parameter, or a value out of range; nothing is changed.
        """
        known = self.get_params()
        if unknown := params.keys() - known.keys():
            raise ConfigError(f"{min(unknown)}: no such parameter; known ones: {', '.join(known)}")
        config = estimator.changed_config(self.config, params)
        runtime = params.get("runtime", self.runtime)
        if not isinstance(runtime, Runtime):
            raise ConfigError(f"runtime: {runtime!r} is not a Runtime")
        with self._learning.held():
            now = self._snapshot if config == self.config else None
            self.config, self.runtime = config, runtime
            self._snapshot = None if now is None else Snapshot(now.fitted, runtime)
        self.max_pixels = params.get("max_pixels", self.max_pixels)
        return self

    @property
    def classes_(self) -> NDArray[np.int64]:
        """0 good, 1 defect, after fit: the labels that scikit-learn's scorers compare with."""
        _ = self.fitted_  # or it raises
        return np.array([0, 1])

    def __sklearn_is_fitted__(self) -> bool:
        return self._snapshot is not None

    def __sklearn_tags__(self) -> Any:
        return estimator.tags()

    def __repr__(self) -> str:
        now = self._snapshot
        state = "not fitted" if now is None else f"{len(now.fitted.pictures)} pictures"
        return f"Detector({self.config.encoder}, {self.config.input_size} px, {state})"

    @staticmethod
    def _sure(result: Prediction | Failure) -> Prediction:
        if isinstance(result, Failure):
            raise ImageError(result.error)
        return result


def fit(
    source: object,
    preset: str = "fast",
    *,
    roi: Region | None = None,
    ignore: Region | None = None,
    runtime: Runtime | None = None,
    progress: Progress = silent,
    **overrides: Any,
) -> Detector:
    """Learn what good parts look like: ``fapm.fit("parts/good")``.

    Parameters
    ----------
    source
        a folder, a list of paths or arrays, or an array uint8 ``[N, H, W, 3]``.
    preset
        ``fast``, ``accurate`` or ``paper``.
    roi, ignore
        what of the pictures is inspected; see :meth:`Detector.fit`.
    runtime
        the engine that fits and inspects: OpenVINO by default.
    overrides
        fields of :class:`Config`, e.g. ``resize=336``.

    Raises
    ------
    FapmError
        One line that says what is wrong; see :meth:`Detector.fit`.

    Examples
    --------
    >>> import fapm
    >>> detector = fapm.fit("good", resize=64)
    >>> detector.predict("scratched.png")
    Prediction('scratched.png', defect, score ..., threshold ..., 1 region)
    """
    detector = Detector(Config.create(preset, **overrides), runtime=runtime)
    return detector.fit(source, roi=roi, ignore=ignore, progress=progress)


def load(path: str | Path, *, runtime: Runtime | None = None, warm: bool = False) -> Detector:
    """The detector a bundle holds; see :meth:`Detector.load`.

    Examples
    --------
    >>> import fapm
    >>> fapm.fit("good", resize=64).save("part.fapm")
    >>> detector = fapm.load("part.fapm", warm=True)
    >>> detector.predict("part.png").verdict
    'good'
    """
    return Detector.load(path, runtime=runtime, warm=warm)
