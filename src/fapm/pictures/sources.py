"""Sources of pictures, as people name them: folders, files and arrays."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

from fapm.errors import ImageError
from fapm.pictures import codec
from fapm.pictures.sizes import usual_size

Picture: TypeAlias = codec.Picture


def picture_size(pictures: Iterable[Picture]) -> tuple[int, int] | None:
    """:func:`fapm.pictures.sizes.usual_size` of pictures; None where none can be read."""
    sizes = (_size(picture) for picture in pictures)
    return usual_size([size for size in sizes if size is not None])


def _size(picture: Picture) -> tuple[int, int] | None:
    try:
        return codec.read_size(picture)
    except ImageError:  # whoever reads it says why
        return None


def picture_names(pictures: Sequence[Picture]) -> list[str]:
    """Names of training pictures: files by their path below the folder they share.

    A bundle thus says nothing of the machine it was made on, and is the same wherever the pictures
    lie. Arrays are called by their position.
    """
    files = [Path(p).absolute() for p in pictures if isinstance(p, (str, Path))]
    try:
        root = Path(os.path.commonpath([file.parent for file in files])) if files else Path()
        relative = iter([file.relative_to(root).as_posix() for file in files])
    except ValueError:  # several drives, on Windows
        relative = iter([file.as_posix() for file in files])
    return [
        next(relative) if isinstance(picture, (str, Path)) else f"array {number}"
        for number, picture in enumerate(pictures)
    ]
