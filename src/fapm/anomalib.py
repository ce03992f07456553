"""FAPM as a model of anomalib: ``Engine().fit(Fapm(), datamodule)``. See docs/anomalib.md.

The memory is made by :mod:`fapm.fitting.fit` and searched by :mod:`fapm.graph.reference`, both in
torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fapm.system.imports import import_problem

try:
    import numpy as np
    import torch
    from anomalib import LearningType
    from anomalib.data import Batch, InferenceBatch
    from anomalib.metrics import Evaluator
    from anomalib.models.components import AnomalibModule, MemoryBankMixin
    from anomalib.post_processing import PostProcessor
    from anomalib.pre_processing import PreProcessor
    from anomalib.visualization import Visualizer
    from numpy.typing import NDArray
    from torch import Tensor, nn
    from torchvision.transforms.v2 import Compose, InterpolationMode, Resize, Transform
    from typing_extensions import NotRequired, TypedDict, Unpack
except Exception as error:  # broken libraries raise nearly anything
    problem = import_problem(error, "fapm[anomalib]")
    if problem is None:
        raise
    raise ImportError(f"fapm.anomalib: {problem}") from error

from fapm.bundle import file as bundle
from fapm.bundle.fitted import Fitted
from fapm.config import Config
from fapm.detector import Detector
from fapm.encoder import network, weights
from fapm.engines.base import Runtime
from fapm.errors import ConfigError, NotFittedError
from fapm.fitting import fit as fitting
from fapm.frames.layout import Axis, layout_of
from fapm.frames.preparation import require_command
from fapm.graph.reference import Graph
from fapm.pictures.resize import Interpolation, resize_image, resize_mask
from fapm.pictures.sources import picture_names

_RUNTIME = Runtime(engine="torch")

# From here anomalib's command line has the names and types of all knobs.
Knobs = TypedDict(  # type: ignore[misc]  # mypy wants them written out a second time
    "Knobs",
    {name: NotRequired[field.annotation] for name, field in Config.model_fields.items()},
)


class Fapm(MemoryBankMixin, AnomalibModule):  # type: ignore[misc]
    """Fast Adaptive Patch Memory.

    It needs no gradients and no more than one epoch.

    Parameters
    ----------
    preset
        ``fast``, ``accurate`` or ``paper``.
    pre_processor, post_processor, evaluator, visualizer
        anomalib's, or whether to have its own. With another pre-processor than FAPM's own, scores
        are not those of a :class:`fapm.Detector`.
    overrides
        fields of :class:`fapm.Config`, e.g. ``resize=336``.

    Raises
    ------
    ConfigError
        An unknown field or preset, or a value out of range.
    """

    def __init__(
        self,
        preset: str = "fast",
        pre_processor: nn.Module | bool = True,
        post_processor: nn.Module | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
        **overrides: Unpack[Knobs],
    ) -> None:
        # A plain attribute, set before torch's own __init__: the pre-processor is made of it there.
        object.__setattr__(self, "config", Config.create(preset, **overrides))
        super().__init__(pre_processor, post_processor, evaluator, visualizer)
        self.config: Config
        require_command(self.config, "anomalib")
        self.model = Memory()
        self._pictures: list[tuple[str, NDArray[np.uint8]]] = []

    # No property: torch's modules would hide what an AttributeError says.
    def to_detector(self) -> Detector:
        """The result of the fit, to be saved as a bundle or run on another engine.

        Raises
        ------
        NotFittedError
            There was no fit yet.
        """
        return Detector.of(self.model.require_fitted(), runtime=_RUNTIME)

    def training_step(self, batch: Batch, *args: object) -> Tensor:
        """Keep the batch's pictures; a loss of nothing, because Lightning wants one."""
        names = batch.image_path or [""] * len(batch.image)
        self._pictures += zip(map(str, names), _frames(batch.image), strict=True)
        return torch.zeros((), requires_grad=True, device=self.device)

    def fit(self) -> None:
        """Memorise the pictures of the epoch, in the order of their names."""
        self._pictures.sort(key=lambda picture: picture[0])
        names, frames = zip(*self._pictures, strict=True)
        self._pictures = []
        self.model.hold(_fit(frames, picture_names(names), self.config))
        self.model.to(self.device)

    def validation_step(self, batch: Batch, *args: object) -> Batch:
        """The batch with its scores and maps."""
        return batch.update(**self.model(batch.image)._asdict())

    def configure_optimizers(self) -> None:
        """There is nothing to optimise."""

    @property
    def learning_type(self) -> LearningType:
        """One class: good pictures."""
        return LearningType.ONE_CLASS

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """One pass over the pictures, on one device."""
        return {"gradient_clip_val": 0, "max_epochs": 1, "num_sanity_val_steps": 0, "devices": 1}

    def configure_pre_processor(self) -> PreProcessor:  # anomalib's is static and has a size
        """FAPM's own: Pillow's resize in the encoder's interpolation, on uint8."""
        return FramePreProcessor(self.config, network.interpolation(self.config))

    @staticmethod
    def configure_post_processor() -> PostProcessor:
        """anomalib's: scores and maps scaled to 0 .. 1 around a threshold from validation data."""
        return PostProcessor()

    def to_onnx(
        self,
        export_root: Path | str,
        model_file_name: str = "model",
        input_size: tuple[int, int] | None = None,
        **kwargs: Any,
    ) -> Path:
        """As anomalib's, which :meth:`to_openvino` calls too, for pictures of one size only.

        The graph crops but does not resize: Pillow's resize cannot be written as ONNX.

        Raises
        ------
        ConfigError
            ``input_size`` is not what the encoder's frames are resized to.
        """
        size = self.config.resize
        if input_size not in (None, (size, size), [size, size]):
            raise ConfigError(
                f"input_size: {input_size} is not ({size}, {size}), to which pictures are resized "
                "before this graph; leave it out"
            )
        kwargs.setdefault("opset_version", 18)  # 14, anomalib's, is older than what torch writes
        path: Path = super().to_onnx(export_root, model_file_name, (size, size), **kwargs)
        return path


class Memory(nn.Module):
    """The result of a fit as a module: float32 pictures in; scores and maps out.

    Its state is a bundle, so that a checkpoint needs no weights from anywhere else.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fitted: Fitted | None = None
        self.graph: Graph | None = None

    def require_fitted(self) -> Fitted:
        """The result of the fit."""
        if self.fitted is None:
            raise NotFittedError(
                "this Fapm is not fitted; call Engine().fit, or load a checkpoint of one that is"
            )
        return self.fitted

    def hold(self, fitted: Fitted) -> None:
        """Search ``fitted`` from now on."""
        self.fitted = fitted
        encoder = network.Encoder.restore(
            fitted.encoder.spec, fitted.encoder.files["encoder.safetensors"]
        )
        self.graph = Graph(encoder, fitted.config, fitted.banks)

    def forward(self, pictures: Tensor) -> InferenceBatch:
        """Scores float32 ``[B]`` and maps ``[B, 1, S, S]`` of ``[B, 3, S, S]``, RGB, 0 .. 1."""
        self.require_fitted()
        assert self.graph is not None
        scored = self.graph(_to_uint8(pictures).permute(0, 2, 3, 1))
        return InferenceBatch(pred_score=scored.scores, anomaly_map=scored.maps[:, None])

    def train(self, mode: bool = True) -> Memory:
        """The encoder is frozen: it is never in training."""
        return super().train(False)

    def get_extra_state(self) -> Tensor:
        """A bundle, uint8; empty before a fit."""
        if self.fitted is None:
            return torch.empty(0, dtype=torch.uint8)
        return torch.frombuffer(bytearray(bundle.dumps(self.fitted)), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Hold what :meth:`get_extra_state` gave."""
        if not len(state):
            return
        self.hold(bundle.loads(state.cpu().numpy().tobytes()))


class FrameResize(Resize):  # type: ignore[misc]
    """FAPM's resize: pictures by Pillow on uint8, masks by the nearest pixel.

    anomalib finds it by its base class and has the data loader apply it to each picture. On a batch
    of its own size, which it has been applied to already, it does nothing.
    """

    def __init__(self, edge: int, interpolation: Interpolation) -> None:
        super().__init__((edge, edge), InterpolationMode(interpolation))
        self.edge = edge
        self.interpolated: Interpolation = interpolation

    def forward(self, picture: Tensor, *mask: Tensor | None) -> Any:
        """A picture ``[..., 3, H, W]`` in 0 .. 1 and perhaps its mask ``[..., H, W]``."""
        return _both(self._picture, self._mask, picture, *mask)

    def _picture(self, picture: Tensor) -> Tensor:
        if picture.shape[-2:] == (self.edge, self.edge):
            return picture
        return _each(_to_uint8(picture), 3, self._resize).float().div(255)

    def _mask(self, mask: Tensor) -> Tensor:
        if mask.shape[-2:] == (self.edge, self.edge):
            return mask
        return _each(mask, 2, lambda m: resize_mask(m != 0, self.edge, self.edge)).to(mask.dtype)

    def _resize(self, planes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        picture = np.ascontiguousarray(planes.transpose(1, 2, 0))
        return np.moveaxis(resize_image(picture, self.edge, self.edge, self.interpolated), 2, 0)


class CentreCrop(Transform):  # type: ignore[misc]
    """FAPM's crop; it differs from torchvision's by a pixel where the margins are odd."""

    def __init__(self, resize: int, crop: int) -> None:
        super().__init__()
        self.window = Axis.whole(crop, resize).window

    def forward(self, picture: Tensor, *mask: Tensor | None) -> Any:
        """As :meth:`FrameResize.forward`."""
        return _both(self._cut, self._cut, picture, *mask)

    def _cut(self, planes: Tensor) -> Tensor:
        return planes[..., self.window, self.window]


class FramePreProcessor(PreProcessor):  # type: ignore[misc]
    """anomalib's pre-processor with FAPM's transforms, which are made anew from the config."""

    def __init__(self, config: Config, interpolation: Interpolation) -> None:
        steps: list[Transform] = [FrameResize(config.resize, interpolation)]
        if config.crop is not None:
            steps.append(CentreCrop(config.resize, config.crop))
        super().__init__(Compose(steps))

    def checkpoint_config(self) -> dict[str, Any]:
        """Nothing: anomalib could not write these transforms."""
        return {}

    def load_checkpoint_config(self, config: dict[str, Any]) -> None:
        """Nothing to restore."""


def _fit(frames: Sequence[NDArray[np.uint8]], names: list[str], config: Config) -> Fitted:
    """Memorise frames, which are not resized and cropped again."""
    ready = config.model_copy(update={"resize": config.input_size, "crop": None})
    fitted = fitting.fit(frames, ready, weights.create_encoder(ready), _RUNTIME)
    # To a detector pictures come as they are.
    preparation = replace(fitted.preparation, layout=layout_of(config))
    return replace(fitted, config=config, preparation=preparation, pictures=tuple(names))


def _frames(pictures: Tensor) -> NDArray[np.uint8]:
    """RGB uint8 ``[B, S, S, 3]`` of anomalib's float32 ``[B, 3, S, S]``."""
    frames: NDArray[np.uint8] = _to_uint8(pictures).permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return frames


def _to_uint8(pictures: Tensor) -> Tensor:
    """The bytes that anomalib divided by 255."""
    return (pictures * 255).round().clamp(0, 255).to(torch.uint8)


def _both(
    on_picture: Callable[[Tensor], Tensor],
    on_mask: Callable[[Tensor], Tensor],
    picture: Tensor,
    *mask: Tensor | None,
) -> Any:
    """A transform's answer: a picture alone, or with its mask, which may be None."""
    changed = on_picture(picture)
    if not mask:
        return changed
    return (changed, *(m if m is None else on_mask(m) for m in mask))


def _each(planes: Tensor, dims: int, function: Callable[[Any], NDArray[Any]]) -> Tensor:
    """A function of arrays on each picture of a batch, which may be a single one."""
    arrays = planes.cpu().numpy().reshape(-1, *planes.shape[-dims:])
    changed = np.stack([function(array) for array in arrays])
    shape = (*planes.shape[:-dims], *changed.shape[1:])
    return torch.from_numpy(changed.reshape(shape)).to(planes.device)
