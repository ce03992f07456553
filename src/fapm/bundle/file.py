"""Bundles: everything a detector knows, in one file, without pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors

from fapm.bundle import archive
from fapm.bundle.fitted import Fitted
from fapm.bundle.restore import describe_fitted, restore
from fapm.bundle.upgrades import UPGRADES
from fapm.errors import BundleError, FapmError
from fapm.plain import MALFORMED, reason


def save(fitted: Fitted, path: Path) -> None:
    """Write ``fitted`` to ``path``. The same fit gives the same bytes.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    archive.write_archive(path, *describe_fitted(fitted))


def size(fitted: Fitted) -> int:
    """Bytes of the file that :func:`save` would write."""
    return archive.archive_bytes(*describe_fitted(fitted))


def load(path: Path) -> Fitted:
    """Read what :func:`save` wrote.

    Raises
    ------
    BundleError
        The file is missing, damaged or hostile, or of a format that this version does not read.
    """
    return _restored(archive.read_archive(path, UPGRADES), str(path))


def dumps(fitted: Fitted) -> bytes:
    """The bytes that :func:`save` writes.

    Raises
    ------
    OutputError
        They are too many to be read back.
    """
    return archive.dumps(*describe_fitted(fitted))


def loads(data: bytes) -> Fitted:
    """Read what :func:`dumps` wrote, or the bytes of a bundle's file.

    Raises
    ------
    BundleError
        As for :func:`load`.
    """
    return _restored(archive.loads(data, UPGRADES), archive.IN_MEMORY)


def describe(path: Path) -> dict[str, Any]:
    """The manifest of a bundle, after all its checks."""
    return archive.read_archive(path, UPGRADES)[0]


def _restored(contents: archive.Contents, name: str) -> Fitted:
    try:
        return restore(*contents)
    except (*MALFORMED, RuntimeError, FapmError, safetensors.SafetensorError) as error:
        # Every byte has passed its checksum: whoever wrote this file wrote it wrong.
        raise BundleError(f"{name}: not a usable bundle ({reason(error)}); fit it again") from error
