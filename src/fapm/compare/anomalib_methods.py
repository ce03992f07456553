"""anomalib's own CFlow, PatchCore and PaDiM, with our encoder's weights. Needs ``fapm[anomalib]``.

They are anomalib's unchanged torch models. This module adds the frames, the normalisation that
belongs to the weights, and a check that anomalib's feature extractor gives the features of our
encoder. Run it in a process of its own, because it seeds torch's global generator.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing here may ask a hub

import lightning.pytorch
import numpy as np
import torch
import torch.nn.functional as F
from anomalib.data import ImageBatch
from anomalib.models.components.sampling import k_center_greedy
from anomalib.models.image.cflow.lightning_model import Cflow as CflowModule
from anomalib.models.image.padim.torch_model import PadimModel
from anomalib.models.image.patchcore.torch_model import PatchcoreModel
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fapm.compare.on_encoder import Judged, learn_preparation, read_frames
from fapm.compare.setting import Setting
from fapm.encoder.network import Encoder
from fapm.encoder.weights import create_encoder
from fapm.errors import ConfigError, EncoderError
from fapm.frames.preparation import Preparation
from fapm.system.parallel import batched

_BATCH = 32
_PADIM_CHANNELS = 100
# CFlow's authors train for 200 passes over the pictures, on a GPU.
_EPOCHS = 5
# Features of the same weights may differ by rounding, as a share of the largest.
_ROUNDING = 1e-4


class _OnAnomalib:
    """A torch model of anomalib as a :class:`fapm.compare.on_encoder.Method`."""

    note = "anomalib, fp32 on torch"

    def __init__(self, setting: Setting) -> None:
        if setting.config.follows_pictures:
            raise ConfigError(
                "tile, keep_aspect: anomalib's models take square frames; leave it out"
            )
        self._setting = setting
        self._preparation: Preparation | None = None
        self._encoder = create_encoder(setting.config)
        torch.manual_seed(setting.config.seed)
        self._model = self._build(
            backbone=self._encoder.network.pretrained_cfg["architecture"],
            layers=list(self._encoder.spec.layers),
            pre_trained=False,
        )

    def fit(self, pictures: Sequence[Path]) -> None:
        """Learn from good pictures.

        Raises
        ------
        EncoderError
            anomalib cannot be given our encoder.
        """
        self._preparation = learn_preparation(pictures, self._setting).preparation
        frames = read_frames(pictures, self._setting, self.preparation)
        batches = [self._normalise(batch) for batch in batched(frames, _BATCH)]
        _adopt(self._encoder, self._extractor(), batches[0][:1])
        self._learn(batches)
        self._model.eval()

    @torch.inference_mode()
    def score(self, frames: Sequence[NDArray[np.uint8]]) -> Judged:
        """Judge frames, RGB uint8 ``[S, S, 3]`` each."""
        judged = self._model(self._normalise(frames))
        return Judged(judged.pred_score.flatten().numpy(), judged.anomaly_map[:, 0].numpy())

    @property
    def preparation(self) -> Preparation:
        """The same as FAPM's, learned from the good pictures."""
        assert self._preparation is not None  # after fit
        return self._preparation

    @property
    def memory_bytes(self) -> int:
        """Size of the learned model in bytes."""
        return sum(tensor.nbytes for tensor in self._learnt())

    def _normalise(self, frames: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Input of anomalib's models, float32 ``[B, 3, S, S]``."""
        pixels = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float()
        return pixels * self._encoder.scale - self._encoder.shift

    def _build(self, **backbone: Any) -> Any:
        raise NotImplementedError

    def _extractor(self) -> Any:
        return self._model.feature_extractor

    def _learn(self, batches: list[Tensor]) -> None:
        raise NotImplementedError

    def _learnt(self) -> list[Tensor]:
        raise NotImplementedError


class Patchcore(_OnAnomalib):
    """anomalib's PatchCore: sparse random projection, greedy coreset, 9 neighbours."""

    def _build(self, **backbone: Any) -> Any:
        return PatchcoreModel(**backbone)

    def _learn(self, batches: list[Tensor]) -> None:
        k_center_greedy.tqdm = lambda steps, desc: steps  # no bar of its own
        self._model.train()
        for batch in batches:
            self._model(batch)
        self._model.subsample_embedding(self._setting.config.ratio)

    def _learnt(self) -> list[Tensor]:
        return [self._model.memory_bank]


class Padim(_OnAnomalib):
    """anomalib's PaDiM with 100 channels."""

    def _build(self, **backbone: Any) -> Any:
        infos = self._encoder.network.feature_info
        channels = sum(infos[index]["num_chs"] for index in self._encoder.indices)
        return PadimModel(**backbone, n_features=min(_PADIM_CHANNELS, channels))

    def _learn(self, batches: list[Tensor]) -> None:
        self._model.train()
        for batch in batches:
            self._model(batch)
        self._model.fit()

    def _learnt(self) -> list[Tensor]:
        return [self._model.gaussian.mean, self._model.gaussian.inv_covariance]


class Cflow(_OnAnomalib):
    """anomalib's CFlow, trained for few passes.

    anomalib takes the likelihoods of each layer relative to the largest of the batch. With one
    picture at a time the best cell of every picture would then be equally normal, and pictures
    could not be compared. Here they are relative to the largest of the good pictures.
    """

    note = f"anomalib, fp32 on torch; {_EPOCHS} epochs only"

    def _build(self, **backbone: Any) -> Any:
        off = dict.fromkeys(("pre_processor", "post_processor", "evaluator", "visualizer"), False)
        self._module = CflowModule(**backbone, **off)
        return self._module.model

    def _extractor(self) -> Any:
        return self._model.encoder

    def _learn(self, batches: list[Tensor]) -> None:
        trainer = lightning.pytorch.Trainer(
            max_epochs=_EPOCHS,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        given: Any = [ImageBatch(image=batch) for batch in batches]
        trainer.fit(self._module, DataLoader(given, batch_size=None, shuffle=True))
        likelihoods = _Likelihoods(len(self._encoder.spec.layers))
        self._model.anomaly_map_generator = likelihoods
        with torch.inference_mode():
            for batch in batches:
                self._model(batch)
        likelihoods.learning = False

    def _learnt(self) -> list[Tensor]:
        return list(self._model.decoders.state_dict().values())


class _Likelihoods(nn.Module):
    """CFlow's map from the layers' log-likelihoods, relative to the largest seen in training."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.learning = True
        self._largest = [-torch.inf] * layers

    def forward(
        self,
        distribution: list[Tensor],
        height: list[int],
        width: list[int],
        image_size: tuple[int, int],
    ) -> Tensor:
        """Anomaly map ``[B, 1, S, S]``; per layer log-likelihoods ``[B * H * W]``."""
        if self.learning:
            self._largest = [
                max(known, float(given.max()))
                for known, given in zip(self._largest, distribution, strict=True)
            ]
        likely = [
            F.interpolate(
                torch.exp(given - largest).view(-1, 1, rows, columns),
                size=image_size,
                mode="bilinear",
                align_corners=True,
            )
            for given, largest, rows, columns in zip(
                distribution, self._largest, height, width, strict=True
            )
        ]
        return len(likely) - torch.stack(likely).sum(dim=0)


def _adopt(encoder: Encoder, extractor: Any, images: Tensor) -> None:
    """Give anomalib's extractor our weights; check it on normalised ``images [B, 3, S, S]``.

    Raises
    ------
    EncoderError
        It does not give the features of our encoder.
    """
    # anomalib's copy is not cut behind the deepest layer; weights that ours lacks are not used.
    extractor.feature_extractor.load_state_dict(encoder.network.state_dict(), strict=False)
    with torch.inference_mode():
        expected = encoder.network.forward_intermediates(
            images, indices=encoder.indices, stop_early=True, intermediates_only=True
        )
        got = list(extractor(images).values())
    for ours, theirs in zip(expected, got, strict=True):
        if ours.shape != theirs.shape or (ours - theirs).abs().max() > _ROUNDING * ours.abs().max():
            raise EncoderError(
                f"encoder: anomalib's extractor does not give the features of our "
                f"{encoder.spec.name}; choose another --encoder"
            )
