"""Options compose, or are refused in one line: every pair of them, from a fit to an export."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import fapm
from fapm import Detector, rules
from fapm.config import Config
from fapm.errors import ConfigError, EngineError
from fapm.frames.preparation import STAGES
from fapm.inspection.export import export, sample_frames

HEIGHT, WIDTH = 96, 160
DOCS = Path(__file__).parent.parent / "docs"


@dataclass(frozen=True)
class Use:
    """One option in use: fields of the config, or arguments of a fit."""

    fields: dict[str, Any] = field(default_factory=dict)
    fit: dict[str, Any] = field(default_factory=dict)


def plate(seed: int) -> NDArray[np.uint8]:
    """A bright plate with a dark slot on a plain background, with noise of its own."""
    rng = np.random.default_rng(seed)
    picture = np.full((HEIGHT, WIDTH), 40.0)
    picture[20:76, 30:130] = 150
    picture[35:60, 50:62] = 60
    picture[30:40, 90:120] = 220
    noisy = picture[..., None] * [1, 0.95, 0.9] + rng.normal(0, 3, (HEIGHT, WIDTH, 3))
    return noisy.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def uses(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Use]:
    """Every option that changes frames or the memory, by its name."""
    surface = tmp_path_factory.mktemp("field") / "surface.png"
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), 180, np.uint8)).save(surface)
    drawn = np.zeros((HEIGHT, WIDTH), np.bool_)
    drawn[10:86, 20:140] = True
    return {
        "crop": Use({"crop": 48}),
        "keep_aspect": Use({"keep_aspect": True}),
        "tile": Use({"tile": 64}),
        "flat_field": Use({"flat_field": str(surface)}),
        "light": Use({"light": "gain"}),
        "align": Use({"align": "shift"}),
        "rotations": Use({"rotations": 2}),
        "augment": Use({"augment": 1}),
        "robust": Use({"robust": True}),
        "coarse_upsampling": Use({"coarse_upsampling": "row-order"}),
        "sampling": Use({"sampling": "near-far", "distance_unit": "one"}),
        "layer_wise": Use({"layer_wise": False}),
        "radius": Use({"radius": 1}),
        "score_sigma": Use({"score_sigma": 1.0}),
        "max_keys": Use({"max_keys": 2000}),
        "roi": Use(fit={"roi": drawn}),
        "roi auto": Use(fit={"roi": "auto"}),
        "ignore": Use(fit={"ignore": ~drawn}),
    }


NAMES = (
    "crop", "keep_aspect", "tile", "flat_field", "light", "align", "rotations", "augment", "robust",
    "coarse_upsampling", "sampling", "layer_wise", "radius", "score_sigma", "max_keys", "roi",
    "roi auto", "ignore",
)  # fmt: skip
EXCLUDED = {frozenset(pair) for pair in [(r.one, r.other) for r in rules.OPTIONS]}
# Two values of one argument are no pair.
EXCLUDED.add(frozenset(("roi", "roi auto")))


def together(one: str, other: str) -> bool:
    return frozenset((one, other)) not in EXCLUDED


def covering() -> Iterator[tuple[str, ...]]:
    """Few sets of options in which every pair that goes together occurs."""
    left = {frozenset(p) for p in itertools.combinations(NAMES, 2) if together(*p)}
    while left:
        chosen: list[str] = sorted(min(left, key=sorted))
        for name in NAMES:
            fresh = sum(frozenset((name, other)) in left for other in chosen)
            if (
                len(chosen) < 6
                and name not in chosen
                and fresh
                and all(together(name, other) for other in chosen)
            ):
                chosen.append(name)
        left -= {frozenset(pair) for pair in itertools.combinations(chosen, 2)}
        yield tuple(chosen)


def config_of(names: tuple[str, ...], uses: dict[str, Use]) -> Config:
    fields: dict[str, Any] = {"weights": "random", "ratio": 0.2, "grid": 4}
    if "tile" not in names:
        fields["resize"] = 64
    for name in names:
        fields |= uses[name].fields
    return Config.create(**fields)


@pytest.mark.parametrize("names", [*covering()], ids="+".join)
def test_options_that_compose_do_so_to_the_end(
    names: tuple[str, ...], uses: dict[str, Use], tmp_path: Path
) -> None:
    config = config_of(names, uses)
    pictures = [plate(seed) for seed in range(9)]
    given = {k: v for name in names for k, v in uses[name].fit.items()}
    detector = Detector(config).fit(pictures, **given)
    defective = plate(100)
    defective[40:56, 70:84] = (250, 20, 20)
    good, bad = detector.predict([plate(101), defective])
    assert good.anomaly_map.shape == bad.anomaly_map.shape == (HEIGHT, WIDTH)
    assert bad.score > good.score
    assert np.isfinite(bad.score)

    before = len(detector.fitted_.pictures)
    keys = sum(len(bank.keys) for bank in detector.fitted_.banks)
    detector.update([plate(102)])
    assert len(detector.fitted_.pictures) == before + 1
    assert sum(len(bank.keys) for bank in detector.fitted_.banks) >= keys

    detector.save(tmp_path / "one.fapm")
    loaded = fapm.load(tmp_path / "one.fapm")
    assert loaded.predict(defective).score == detector.predict(defective).score
    loaded.save(tmp_path / "two.fapm")
    assert (tmp_path / "one.fapm").read_bytes() == (tmp_path / "two.fapm").read_bytes()

    if any(stage.wanted(config) for stage in STAGES):
        with pytest.raises(EngineError, match="export writes the graph"):
            export(loaded.snapshot(), "openvino", tmp_path, sample_frames(loaded.fitted_))
    else:
        assert (
            export(loaded.snapshot(), "openvino", tmp_path, sample_frames(loaded.fitted_, 2))
            <= 1e-3
        )


@pytest.mark.parametrize("rule", rules.OPTIONS, ids=lambda r: f"{r.one}-{r.other}")
def test_options_that_exclude_each_other_are_refused_in_one_line(
    rule: rules.Rule, uses: dict[str, Use]
) -> None:
    values = {"resize": Use({"resize": 80})} | uses
    fields = values[rule.one].fields | values[rule.other].fields
    with pytest.raises(ConfigError, match=rf"^{rule.one}: does not go with {rule.other}: .+") as e:
        Config.create(**fields)
    assert "\n" not in str(e.value)


def test_the_documents_print_the_tables() -> None:
    stages = [kind.name for kind in STAGES]
    assert rules.markdown(stages) in (DOCS / "options.md").read_text(encoding="utf-8")
