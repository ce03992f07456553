"""The public surface: what a release promises to keep."""

import doctest
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import fapm
import stripes


def test_the_public_names_are_exactly_these() -> None:
    names = "Config Detector DriftMonitor Failure FapmError Prediction Runtime __version__ fit load"
    assert fapm.__all__ == names.split()
    assert all(hasattr(fapm, name) for name in fapm.__all__)


@pytest.fixture(scope="module")
def parts_at_hand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the examples of docstrings run."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "good").mkdir()
    for number, picture in enumerate(stripes.good_pictures()):
        Image.fromarray(picture).save(folder / "good" / f"{number:02d}.png")
    Image.fromarray(stripes.good(3)).save(folder / "part.png")
    Image.fromarray(stripes.defective(30)).save(folder / "scratched.png")
    return folder


@pytest.mark.parametrize("name", fapm.__all__)
def test_every_public_name_has_an_example_that_holds(
    name: str, parts_at_hand: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(parts_at_hand)
    owner = fapm if name == "__version__" else getattr(fapm, name)
    examples = doctest.DocTestParser().get_doctest(owner.__doc__, {}, name, None, None)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(examples)
    found = runner.summarize(verbose=False)
    assert found.attempted >= 2
    assert found.failed == 0, capsys.readouterr().out


@pytest.mark.parametrize("absent", ["torch", "anomalib"])
def test_the_model_for_anomalib_says_what_to_install(absent: str) -> None:
    code = f"import sys; sys.modules[{absent!r}] = None; import fapm.anomalib"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert finished.returncode == 1
    assert finished.stderr.splitlines()[-1] == (
        f"ImportError: fapm.anomalib: {absent} is not installed; type: pip install 'fapm[anomalib]'"
    )
