"""Pillow's warnings about metadata reach nobody, in whatever thread; all others do."""

from __future__ import annotations

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fapm.pictures import codec
from fapm.pictures.quiet import pillow_warnings_ignored
from tiffs import tiff


def test_sound_tiffs_with_odd_metadata_are_read_in_many_threads(tmp_path: Path) -> None:
    """Warnings are errors here, as they are for whoever runs ``python -W error``."""
    path = tmp_path / "part.tif"
    values = np.random.default_rng(0).integers(0, 256, (12, 16, 1))
    path.write_bytes(tiff(values, 8, 1, tags={296: [2, 2, 2]}))  # one unit is due
    with pytest.raises(UserWarning, match="Metadata Warning"):
        Image.open(path)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(codec.read_image, [path] * 2_400):
            assert (found == values).all()


def test_warnings_of_others_are_left_alone() -> None:
    before = len(warnings.filters)
    for _ in range(3):
        with pillow_warnings_ignored():
            warnings.warn_explicit("metadata", UserWarning, "x.py", 1, "PIL.TiffImagePlugin")
            with pytest.raises(UserWarning, match="ours"):
                warnings.warn_explicit("ours", UserWarning, "x.py", 1, "fapm.pictures.codec")
            outside = threading.Thread(target=_warned)
            outside.start()
            outside.join()
        _warned()
    assert len(warnings.filters) <= before + 1


def _warned() -> None:
    with pytest.raises(UserWarning, match="metadata"):
        warnings.warn_explicit("metadata", UserWarning, "x.py", 1, "PIL.TiffImagePlugin")
