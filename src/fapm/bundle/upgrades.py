"""Bundles of earlier formats, brought to the present one step by step.

A format from which no upgrade leads to the present one cannot be read. The formats before 4 were
never released. Every format that is read has a small bundle in ``tests/bundles``.
"""

from __future__ import annotations

from types import MappingProxyType

import safetensors
import safetensors.numpy

from fapm.bundle import archive

_MEMORY = "memory.safetensors"
_RENAMED = {
    "template.grey": "align.grey",
    "template.picture": "align.picture",
    "template.matrices": "places",
}


def _to_5(contents: archive.Contents) -> archive.Contents:
    """Light and alignment are stages of a frame, beside others to come."""
    manifest, parts = contents
    stages = {"light": manifest.get("light"), "align": manifest.get("alignment")}
    kept = {key: value for key, value in manifest.items() if key not in ("light", "alignment")}
    kept["stages"] = {name: stage for name, stage in stages.items() if stage is not None}
    try:
        tensors = safetensors.numpy.load(parts[_MEMORY])
    except safetensors.SafetensorError as error:
        raise ValueError(str(error)) from error
    renamed = {_RENAMED.get(name, name): tensor for name, tensor in tensors.items()}
    return kept, {**parts, _MEMORY: safetensors.numpy.save(renamed)}


# By format: the step to the next one.
UPGRADES: archive.Upgrades = MappingProxyType({4: _to_5})
