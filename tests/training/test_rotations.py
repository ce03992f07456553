"""Good pictures memorised at several angles: copies are the picture's own, the budget is held."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import fapm
import reference
from conftest import Refusal
from fapm import Detector
from fapm.bundle.fitted import Fitted
from fapm.config import Config
from fapm.encoder.weights import create_encoder
from fapm.engines.base import Runtime
from fapm.engines.opening import open_encoder
from fapm.errors import ConfigError
from fapm.fitting import fit as fitting
from fapm.frames.preparation import Frame
from fapm.graph.reference import aggregate
from fapm.memory.bank import MemoryBank
from fapm.pictures.resize import rotate
from fapm.training.copies import turned_back
from framing import prepare, read_frame

NORMAL, TURNS = 5, 4
CONFIG = Config.create(resize=64, grid=4, rotations=TURNS, score_sigma=1)


def parts() -> list[NDArray[np.uint8]]:
    blocks = np.random.default_rng(7).integers(60, 200, size=(8, 8, 3))
    part = np.kron(blocks, np.ones((12, 12, 1)))
    noise = np.random.default_rng(0).normal(scale=15, size=(NORMAL, *part.shape))
    return list(np.clip(part + noise, 0, 255).astype(np.uint8))


# Turning a picture


@pytest.mark.parametrize("turn", range(4))
def test_quarter_turns_are_exact_and_counter_clockwise(turn: int) -> None:
    part = parts()[0]
    np.testing.assert_array_equal(rotate(part, 90 * turn), np.rot90(part, turn))


def test_half_a_turn_of_an_oblong_picture_is_exact() -> None:
    part = parts()[0][:40]
    np.testing.assert_array_equal(rotate(part, 180), part[::-1, ::-1])


@given(st.floats(0, 360), st.integers(2, 50), st.integers(2, 50))
def test_the_border_is_repeated(degrees: float, height: int, width: int) -> None:
    plain = np.full((height, width, 3), 77, np.uint8)
    np.testing.assert_array_equal(rotate(plain, degrees), plain)


def test_a_frame_comes_with_its_turned_copies_only_for_memorising() -> None:
    part = parts()[0]
    frame = read_frame(part, CONFIG, "bicubic", max_pixels=10**6, turns=TURNS)
    assert isinstance(frame, Frame)
    expected = [prepare(np.rot90(part, k), 64, None, "bicubic") for k in range(1, 4)]
    np.testing.assert_array_equal(frame.turned, expected)
    inspected = read_frame(part, CONFIG, "bicubic", max_pixels=10**6)
    assert isinstance(inspected, Frame)
    assert inspected.turned == ()
    np.testing.assert_array_equal(inspected.pixels, frame.pixels)


# Where a key came from


@given(
    st.integers(2, 12).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1))),
    st.sampled_from([(160, 160), (160, 240), (200, 160)]),
    st.integers(0, 7),
    st.integers(0, 7),
)
def test_a_key_is_found_where_it_lies_in_the_picture_as_it_is(
    turns: tuple[int, int], size: tuple[int, int], row: int, column: int
) -> None:
    count, turn = turns
    height, width = size
    picture = np.zeros((height, width, 3), np.uint8)
    y, x = int((row + 0.5) * height / 8), int((column + 0.5) * width / 8)
    picture[y - 2 : y + 3, x - 2 : x + 3] = 255
    turned = rotate(picture, 360 * turn / count)
    inner = turned[3:-3, 3:-3, 0].astype(np.float64)
    if inner.sum() < 0.5 * 255 * 25:  # turned out of the picture
        return
    ys, xs = np.nonzero(inner > 100)
    seen = (int((ys.mean() + 3.5) * 8 / height), int((xs.mean() + 3.5) * 8 / width))
    cell = seen[0] * 8 + seen[1]
    bank = MemoryBank(
        keys=np.zeros((1, 2), np.float32),
        offsets=np.array([0, 1]),
        pictures=np.array([3 * count + turn]),
        cells=np.array([cell]),
        radii=np.zeros(1, np.float32),
        unit=1.0,
        height=8,
        width=8,
        grid=1,
    )
    back = turned_back(bank, count, count, [size] * 4)
    assert back.pictures.tolist() == [3]
    # The mark lies anywhere in its cell: turned back, the cell's centre is up to a cell away.
    away = (
        (int(back.cells[0]) // 8 - row) * height / 8,
        (int(back.cells[0]) % 8 - column) * width / 8,
    )
    assert np.hypot(*away) <= 1.5 * max(height, width) / 8


# Fitting


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    return fitting.fit(parts(), CONFIG, create_encoder(CONFIG), Runtime())


@pytest.fixture(scope="module")
def features(fitted: Fitted) -> list[NDArray[np.float64]]:
    """Of every picture and, after each, of its copies, per layer."""
    runner = open_encoder(fitted.encoder, Runtime())
    frames = [
        prepare(np.ascontiguousarray(np.rot90(part, turn)), 64, None, "bicubic")
        for part in parts()
        for turn in range(TURNS)
    ]
    layers = aggregate([torch.from_numpy(f) for f in runner.features(frames)], CONFIG)
    return [layer.numpy().astype(np.float64) for layer in layers]


@pytest.fixture(scope="module")
def memories(features: list[NDArray[np.float64]]) -> list[reference.Memory]:
    """With the keys that the pictures alone would have."""
    found = [
        reference.memorise(
            layer,
            grid=CONFIG.grid,
            ratio=CONFIG.ratio / TURNS,
            sampling=CONFIG.sampling,
            distance_unit=CONFIG.distance_unit,
            far_threshold=CONFIG.far_threshold,
        )
        for layer in features
    ]
    for memory in found:
        memory.pictures = [rows // TURNS for rows in memory.pictures]
    return found


def test_keys_are_chosen_among_all_copies_within_the_pictures_budget(
    fitted: Fitted, memories: list[reference.Memory]
) -> None:
    plain = fitting.fit(
        parts(), CONFIG.model_copy(update={"rotations": 1}), create_encoder(CONFIG), Runtime()
    )
    for bank, memory, unturned in zip(fitted.banks, memories, plain.banks, strict=True):
        assert bank.offsets.tolist() == np.cumsum([0, *map(len, memory.keys)]).tolist()
        np.testing.assert_allclose(bank.keys, np.concatenate(memory.keys), rtol=1e-6)
        assert bank.pictures.tolist() == np.concatenate(memory.pictures).tolist()
        assert len(bank.keys) == len(unturned.keys)
        # Turned copies are among them: their keys lie in other patches than those that hold them.
        patches = np.repeat(np.arange(len(memory.keys)), list(map(len, memory.keys)))
        assert (memory.numbers.ravel()[bank.cells] != patches).any()


def test_leave_one_out_leaves_out_a_picture_with_all_its_copies(
    fitted: Fitted, features: list[NDArray[np.float64]], memories: list[reference.Memory]
) -> None:
    judged = reference.judge(
        [layer[::TURNS] for layer in features],
        memories,
        count=CONFIG.neighbours,
        size=64,
        sigma=CONFIG.map_sigma,
        score_sigma=CONFIG.score_sigma,
        without_pictures=range(NORMAL),
    )
    np.testing.assert_allclose(fitted.calibration.scores, judged.scores, rtol=1e-4)


def test_a_part_in_another_orientation_is_good_only_where_it_was_memorised() -> None:
    turned = [np.ascontiguousarray(np.rot90(part)) for part in parts()]
    encoder = create_encoder(CONFIG)

    def worst(config: Config) -> float:
        from fapm.engines.opening import open_engine

        engine = open_engine(fitting.fit(parts(), config, encoder, Runtime()), Runtime())
        frames = [prepare(part, 64, None, "bicubic") for part in turned]
        return float(np.median(engine.run(frames).scores))

    assert worst(CONFIG) < 0.5 * worst(CONFIG.model_copy(update={"rotations": 1}))


def test_a_memory_of_turned_pictures_travels_in_a_bundle(tmp_path: Path) -> None:
    held = Detector(CONFIG.model_copy(update={"augment": 1})).fit(parts())
    held.save(tmp_path / "part.fapm")
    loaded = fapm.load(tmp_path / "part.fapm")
    for old, bank in zip(held.fitted_.banks, loaded.fitted_.banks, strict=True):
        np.testing.assert_array_equal(bank.cells, old.cells)
        assert bank.pictures.max() < len(parts())
    assert loaded.predict(parts()[0]).verdict == "good"


# Bad input


def test_turned_and_aligned_is_refused() -> None:
    with pytest.raises(
        ConfigError,
        match=r"^rotations: does not go with align: aligned parts all lie one way; use either$",
    ):
        Config.create(rotations=4, align="rigid")


@pytest.mark.parametrize("value", [0, -1, 37, 2.5, "many"])
def test_a_number_of_angles_that_makes_no_sense_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="rotations"):
        Config.create(rotations=value)


def test_the_command_says_which_option(refusal: Refusal, good: Path, tmp_path: Path) -> None:
    said = refusal("fit", good, "--output", tmp_path / "part.fapm", "--rotations", 0)
    assert said.startswith("rotations: 0 is not valid")
