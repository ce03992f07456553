"""A bundle taken apart, so that it can be forged."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch

from fapm.bundle.archive import read_archive, write_archive

# Hostile bundles: every checksum is right, and what they say is wrong. Each must be refused when it
# is loaded, in one line, and not crash or call defects good later.


class Forgery:
    """The honest bundle, taken apart."""

    def __init__(self, path: Path) -> None:
        self.manifest, self.parts = read_archive(path)
        self.memory = safetensors.torch.load(self.parts["memory.safetensors"])
        self.weights = safetensors.torch.load(self.parts["encoder.safetensors"])

    def write(self, path: Path) -> None:
        parts = {
            **self.parts,
            "memory.safetensors": safetensors.torch.save(
                {name: tensor.contiguous() for name, tensor in self.memory.items()}
            ),
            "encoder.safetensors": safetensors.torch.save(self.weights),
        }
        write_archive(path, self.manifest, parts)
