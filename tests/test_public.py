"""The public surface: what a release promises to keep."""

import fapm


def test_the_public_names_are_exactly_these() -> None:
    names = "Config Detector Failure FapmError Prediction __version__ fit load"
    assert fapm.__all__ == names.split()
    assert all(hasattr(fapm, name) for name in fapm.__all__)
