"""Work ahead of inference: in order, bounded, and never keeping a camera waiting."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import count

import numpy as np
import pytest

from fapm import Detector
from fapm.inspection.stream import Stages
from fapm.system.parallel import ready_batches
from stripes import Picture, good


def flat(batches: Iterator[list[int]]) -> list[int]:
    return [item for batch in batches for item in batch]


def test_results_come_in_order_however_long_each_takes() -> None:
    """The first item is the last to be done."""
    later = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            assert later.wait(30)
        elif item == 5:
            later.set()
        return item

    batches = list(ready_batches(work, range(20), size=4))
    assert flat(iter(batches)) == list(range(20))
    assert all(1 <= len(batch) <= 4 for batch in batches)
    assert len(batches[0]) == 4  # 1 to 3 were ready when 0 was


def test_a_first_result_does_not_wait_for_a_full_batch() -> None:
    release = threading.Event()

    def work(item: int) -> int:
        if item > 0:
            assert release.wait(30)
        return item

    batches = ready_batches(work, range(8), size=4)
    assert next(batches) == [0]
    release.set()
    assert flat(batches) == list(range(1, 8))


def test_a_camera_is_asked_for_the_next_picture_after_the_last_is_judged(
    detector: Detector,
) -> None:
    taken: list[int] = []

    def camera() -> Iterator[Picture]:
        for number in count():
            taken.append(number)
            yield good(number)

    stream = detector.stream(camera())
    for number in range(3):
        next(stream)
        assert taken == list(range(number + 1))
    stream.close()


def test_work_ahead_is_bounded_and_ends_with_its_reader() -> None:
    begun: list[int] = []
    before = threading.active_count()
    batches = ready_batches(begun.append, range(1000), size=4)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert len(begun) <= 8 + 4
    assert threading.active_count() == before


def test_an_error_in_work_comes_after_the_results_before_it() -> None:
    def work(item: int) -> int:
        if item == 3:
            raise ValueError("three")
        return item

    got = []
    with pytest.raises(ValueError, match="three"):  # noqa: PT012
        for batch in ready_batches(work, range(6), size=1):
            got += batch
    assert got == [0, 1, 2]


def test_stages_are_told_what_took_how_long(detector: Detector) -> None:
    stages = Stages()
    list(detector.stream([good(seed) for seed in range(6)], stages=stages))
    assert stages.decode > 0
    assert stages.inference > 0


@pytest.mark.parametrize(
    ("decode", "inference", "seconds", "slowest"),
    [(3, 1, 5, "decoding"), (1, 3, 5, "inference"), (1, 1, 5, "writing")],
)
def test_the_slowest_stage_is_named(
    decode: float, inference: float, seconds: float, slowest: str
) -> None:
    assert Stages(decode, inference).slowest(seconds) == slowest


def test_arrays_in_one_block_are_a_sequence(detector: Detector) -> None:
    block = np.stack([good(seed) for seed in range(5)])
    np.testing.assert_allclose(
        detector.score(block), [detector.score(picture) for picture in block], rtol=1e-6
    )
