"""What a fit is expected to take."""

from __future__ import annotations

import pytest

import parts
from fapm import Detector
from fapm.config import Config
from fapm.fitting import fit as fitting
from fapm.memory.memorise import budgets
from fapm.training import spool
from fapm.training.cost import Cost, expected_cost

SHAPES = [(40, 28, 28), (112, 14, 14)]


def cost_of(pictures: int, counted: int) -> Cost:
    sizes = [(height, width) for _, height, width in SHAPES]
    planned = budgets(sizes, min(pictures, counted), grid=7, ratio=0.1)
    return expected_cost(pictures, 0.02, SHAPES, planned)


def test_more_pictures_cost_more_time() -> None:
    seconds = [cost_of(pictures, 320).seconds for pictures in (100, 300, 1000, 3000, 10_000)]
    assert seconds == sorted(seconds)
    assert seconds[0] > 100 * 0.02


def test_fewer_keys_cost_less_time() -> None:
    assert cost_of(10_000, 320).seconds < cost_of(10_000, 10_000).seconds / 3


def test_a_file_is_counted_where_there_is_one() -> None:
    assert cost_of(300, 320).file == 0
    assert cost_of(10_000, 320).file == 2 * 10_000 * 53_312
    assert cost_of(10_000, 320).memory < 2e9


@pytest.mark.parametrize(
    ("seconds", "words"), [(31, "31 s"), (200, "3 min"), (3600 * 2.5, "2.5 h")]
)
def test_what_is_said(monkeypatch: pytest.MonkeyPatch, seconds: float, words: str) -> None:
    monkeypatch.setenv("TMPDIR", "/room")
    assert str(Cost(seconds, 1_400_000_000, 0)) == f"expect about {words} and 1.4 GB of memory"
    assert str(Cost(seconds, 10**9, 2_100_000_000)).endswith(f", 2.1 GB in {spool.folder()}")


@pytest.mark.parametrize(("limit", "remarks"), [(0, 1), (10**6, 0)])
def test_only_a_long_fit_says_so_and_only_once(
    monkeypatch: pytest.MonkeyPatch, limit: int, remarks: int
) -> None:
    monkeypatch.setattr(fitting, "_LONG", limit)
    said: list[str] = []
    pictures = [parts.part(number) for number in range(fitting._TRIAL + 5)]
    Detector(Config.create(resize=64)).fit(pictures, remark=said.append)
    assert len(said) == remarks
    assert all(line.startswith("expect about ") for line in said)
