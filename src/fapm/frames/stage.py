"""Stages: steps between a resized picture and the frame that the encoder sees. No torch here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fapm.config import Config
from fapm.frames.layout import Layout, Rectangle
from fapm.pictures.resize import Interpolation
from fapm.plain import Described, Tensors


class Sample(NamedTuple):
    """Good pictures that a stage is learned from.

    Attributes
    ----------
    layout, interpolation
        how pictures become frames.
    frames
        RGB uint8 ``[h, w, 3]`` each, as the stages before have left them; at least one.
    """

    config: Config
    layout: Layout
    interpolation: Interpolation
    frames: Sequence[NDArray[np.uint8]]


class Stage(ABC):
    """A step that changes frames, and the way back from what is said of them.

    A stage is learned once, at fit, and is kept in the bundle. :meth:`apply` returns a trace: what
    the stage did to this one frame, which the way back needs.

    Attributes
    ----------
    name
        the field of :class:`fapm.Config` that switches the stage on, and its name in a bundle.
    """

    name: ClassVar[str]

    @classmethod
    @abstractmethod
    def wanted(cls, config: Config) -> bool:
        """Whether the config asks for the stage."""

    @classmethod
    def absent(cls, config: Config) -> bool:
        """Whether a detector that was fitted with this config may be without the stage."""
        return not cls.wanted(config)

    @classmethod
    def learn(cls, sample: Sample) -> Stage:
        """The stage of good pictures. It is called if the config wants it.

        Alignment is not learned here, but where a memory can judge it:
        :mod:`fapm.fitting.alignment`.
        """
        raise NotImplementedError

    @abstractmethod
    def agrees(self, config: Config) -> bool:
        """Whether the config asks for this stage as it was learned."""

    @abstractmethod
    def apply(self, frame: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], Any]:
        """A frame, RGB uint8 ``[h, w, 3]``, changed; and the trace."""

    def apply_turned(self, frame: NDArray[np.uint8], trace: Any) -> NDArray[np.uint8]:
        """A frame of the same picture, turned, changed alike; ``trace`` is of the upright one."""
        return self.apply(frame)[0]

    def restore(self, anomaly_map: NDArray[np.float32], trace: Any) -> NDArray[np.float32]:
        """A map of the changed frame in the geometry of the frame before, float32 ``[h, w]``."""
        return anomaly_map

    def restore_box(self, box: Rectangle, trace: Any) -> Rectangle:
        """A rectangle of the changed frame in the frame before, both in shares of its edges."""
        return box

    def doubt(self, trace: Any, verdict: str) -> str | None:
        """The reason why a frame is ``unsure`` whatever its score; None without."""
        return None

    @abstractmethod
    def described(self) -> Described:
        """Describe it for a bundle: plain JSON, and tensors by name."""

    @classmethod
    @abstractmethod
    def restored(cls, described: Mapping[str, Any], tensors: Tensors, layout: Layout) -> Stage:
        """The stage that :meth:`described` described.

        Raises
        ------
        BundleError
            The parts contradict themselves or the layout.
        """
