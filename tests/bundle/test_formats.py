"""Bundles of every format that is read: one small file each, written once and kept.

After raising ``FORMAT_VERSION``, write the file of the new format with ``PYTHONPATH=tests python
tests/bundle/test_formats.py`` and add to ``SCORES`` what it prints. Files of older formats never
change.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import fapm
import stripes
from fapm import Detector
from fapm.bundle import archive
from fapm.bundle import file as bundle
from fapm.config import Config
from fapm.errors import BundleError

BUNDLES = Path(__file__).parents[1] / "bundles"
EDGE = 32  # of the pictures, and of the frames
# By format, scores of a good picture and of one with a defect, as they were when it was written.
SCORES = {4: (1.884627, 12.372793), 5: (1.884627, 12.372793)}


def kept(version: int) -> Path:
    return BUNDLES / f"format_{version}.fapm"


def picture(seed: int, *, defect: bool = False) -> stripes.Picture:
    return (stripes.defective if defect else stripes.good)(seed, EDGE, EDGE)


def rich() -> Detector:
    """A detector with something of each part a bundle can hold, and as small as there is."""
    config = Config.create(
        encoder="mobilenetv3_small_050",
        weights="random",
        layers=("bn1", "blocks.0"),
        resize=EDGE,
        grid=2,
        max_keys=60,
        light="gain",
        align="shift",
    )
    inside = np.ones((EDGE, EDGE), bool)
    inside[:4, :4] = False
    detector = Detector(config).fit([picture(seed) for seed in range(3)], roi=inside)
    return detector.update([picture(3)], when="2026-11-25")


def scores(path: Path) -> tuple[float, float]:
    detector = fapm.load(path)
    return detector.score(picture(80)), detector.score(picture(80, defect=True))


@pytest.mark.parametrize("version", range(min(SCORES), archive.FORMAT_VERSION + 1))
def test_a_bundle_of_every_format_is_read_and_scores_as_ever(version: int) -> None:
    assert scores(kept(version)) == pytest.approx(SCORES[version], rel=1e-3)
    held = fapm.load(kept(version)).fitted_
    assert len(held.pictures) == len(held.calibration.scores) == 4
    assert held.thumbnails.keys() == {int(i) for bank in held.banks for i in bank.pictures}
    assert held.roi is not None
    assert not held.roi.inside[:4, :4].any()
    assert [stage.name for stage in held.preparation.stages] == ["light", "align"]
    assert held.places is not None
    assert held.places.shape == (4, 2, 3)
    assert held.baseline is not None
    assert held.baseline.count == 3
    assert [(change.action, change.when) for change in held.history] == [("update", "2026-11-25")]


def test_upgrades_lead_from_the_oldest_format_that_is_kept_to_the_present_one() -> None:
    assert [*sorted(bundle.UPGRADES), archive.FORMAT_VERSION] == sorted(SCORES)


# Format 4, whose upgrade reads what may be hostile


def write_format_4(path: Path, manifest: dict[str, Any], parts: dict[str, bytes]) -> Path:
    """A file that says it is of format 4, its checksums right."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive, "FORMAT_VERSION", 4)
        archive.write_archive(path, manifest, parts)
    return path


def contents_of_format_4() -> archive.Contents:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive, "FORMAT_VERSION", 4)
        return archive.read_archive(kept(4))


def forged_template(parts: dict[str, bytes], change: Callable[[dict[str, Any]], Any]) -> None:
    tensors = safetensors.numpy.load(parts["memory.safetensors"])
    change(tensors)
    parts["memory.safetensors"] = safetensors.numpy.save(tensors)


FORGERIES: dict[str, Callable[[dict[str, Any], dict[str, bytes]], Any]] = {
    "no alignment": lambda m, p: m.pop("alignment"),
    "an alignment of text": lambda m, p: m.update(alignment="shift"),
    "a motion that is not the config's": lambda m, p: m["alignment"].update(motion="rigid"),
    "no light": lambda m, p: m.update(light=None),
    "a level beyond grey": lambda m, p: m["light"].update(level=1e9),
    "no template": lambda m, p: forged_template(p, lambda t: t.pop("template.grey")),
    "no places": lambda m, p: forged_template(p, lambda t: t.pop("template.matrices")),
    "a place too few": lambda m, p: forged_template(
        p, lambda t: t.update({"template.matrices": t["template.matrices"][:-1]})
    ),
    "a tensor nobody refers to": lambda m, p: forged_template(
        p, lambda t: t.update({"template.more": np.zeros(3)})
    ),
    "no memory": lambda m, p: p.pop("memory.safetensors"),
    "a memory that is no safetensors": lambda m, p: p.update({"memory.safetensors": b"\0" * 64}),
    "an empty memory": lambda m, p: p.update({"memory.safetensors": b""}),
}


def test_the_forger_of_format_4_is_able_to_write_an_honest_bundle(tmp_path: Path) -> None:
    honest = write_format_4(tmp_path / "old.fapm", *contents_of_format_4())
    assert honest.read_bytes() == kept(4).read_bytes()


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_bundle_of_format_4_is_refused_in_one_line(forgery: str, tmp_path: Path) -> None:
    manifest, parts = contents_of_format_4()
    FORGERIES[forgery](manifest, parts)
    path = write_format_4(tmp_path / "old.fapm", manifest, parts)
    with pytest.raises(BundleError, match="not a usable bundle") as caught:
        fapm.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_bundle_of_format_4_without_light_and_alignment_is_read(
    bundle: Path, tmp_path: Path
) -> None:
    """Those from before there was a light do not speak of it."""
    manifest, parts = archive.read_archive(bundle)
    assert manifest.pop("stages") == {}
    del manifest["config"]["light"]
    path = write_format_4(tmp_path / "old.fapm", {**manifest, "alignment": None}, parts)
    old = fapm.load(path)
    assert old.fitted_.preparation.stages == ()
    assert old.score(stripes.defective(3)) == fapm.load(bundle).score(stripes.defective(3))


# Upgrades, tried with a format of the future


@pytest.fixture
def next_format(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(archive, "FORMAT_VERSION", archive.FORMAT_VERSION + 1)
    return archive.FORMAT_VERSION


def without_remarks(contents: archive.Contents) -> archive.Contents:
    manifest, parts = contents
    return {**manifest, "remarks": [f"had {len(manifest['remarks'])}"]}, parts


def test_an_older_bundle_is_upgraded_where_it_is_read(
    next_format: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "UPGRADES", {next_format - 1: without_remarks})
    path = kept(next_format - 1)
    (remark,) = bundle.load(path).remarks
    assert remark.startswith("had ")
    assert bundle.loads(path.read_bytes()).remarks == (remark,)
    assert bundle.describe(path)["remarks"] == [remark]
    assert archive.loads(bundle.dumps(bundle.load(path)))[0]["remarks"] == [remark]


def test_a_format_without_an_upgrade_is_refused(next_format: int) -> None:
    path = kept(next_format - 1)
    with pytest.raises(BundleError) as caught:
        fapm.load(path)
    assert str(caught.value) == (
        f"{path}: written by an older fapm (format {next_format - 1}, this one reads "
        f"{next_format}); fit it again from its pictures"
    )


def test_a_gap_between_upgrades_ends_what_is_read(
    next_format: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "FORMAT_VERSION", next_format + 2)
    upgrades = {next_format - 1: without_remarks, next_format + 1: without_remarks}
    monkeypatch.setattr(bundle, "UPGRADES", upgrades)
    with pytest.raises(BundleError, match=f"reads {next_format + 1} to {next_format + 2}"):
        fapm.load(kept(next_format - 1))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda contents: contents[0]["no such key"], "'no such key' is missing"),
        (lambda contents: (contents[0]["remarks"] + 1, {}), "can only concatenate list"),
    ],
    ids=["a key", "a type"],
)
def test_an_older_bundle_that_cannot_be_upgraded_is_refused_in_one_line(
    wrong: Callable[[archive.Contents], archive.Contents],
    reason: str,
    next_format: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What upgrades read has passed its checksums, but may still be hostile."""
    monkeypatch.setattr(bundle, "UPGRADES", {next_format - 1: wrong})
    path = kept(next_format - 1)
    with pytest.raises(BundleError, match=reason) as caught:
        fapm.load(path)
    assert str(caught.value).startswith(f"{path}: not a usable bundle (")
    assert "\n" not in str(caught.value)


if __name__ == "__main__":
    new = kept(archive.FORMAT_VERSION)
    if new.exists():
        sys.exit(f"{new}: is there already; a kept bundle never changes")
    rich().save(new)
    sys.stdout.write(f"{new}: {new.stat().st_size:,} bytes, scores {scores(new)}\n")
