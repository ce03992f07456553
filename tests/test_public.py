"""The public surface: what a release promises to keep."""

import subprocess
import sys

import pytest

import fapm


def test_the_public_names_are_exactly_these() -> None:
    names = "Config Detector Failure FapmError Prediction __version__ fit load"
    assert fapm.__all__ == names.split()
    assert all(hasattr(fapm, name) for name in fapm.__all__)


@pytest.mark.parametrize("absent", ["torch", "anomalib"])
def test_the_model_for_anomalib_says_what_to_install(absent: str) -> None:
    code = f"import sys; sys.modules[{absent!r}] = None; import fapm.anomalib"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert finished.returncode == 1
    assert finished.stderr.splitlines()[-1] == (
        f"ImportError: fapm.anomalib: {absent} is not installed; type: pip install 'fapm[anomalib]'"
    )
