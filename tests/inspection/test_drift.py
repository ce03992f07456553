"""Drift: charts against the good pictures, causes, and a state that can be kept."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import parts
from conftest import Command, Refusal
from fapm import Detector
from fapm.bundle.baseline import VALUES, Baseline
from fapm.errors import DriftError
from fapm.frames.look import GRID, PATCHES, Look, look, patch_means
from fapm.inspection.drift import CLIP, LIMIT, SLACK, DriftMonitor

EDGE = 112
COUNT = 100
RNG = np.random.default_rng(0)
TEXTURE = cv2.GaussianBlur(RNG.normal(120, 150, (EDGE, EDGE, 3)), (0, 0), 2.5)


def picture(rng: np.random.Generator) -> NDArray[np.uint8]:
    """The part, with noise, a little brighter or darker than the last."""
    noisy = TEXTURE * rng.normal(1, 0.01) + rng.normal(0, 4, TEXTURE.shape)
    return noisy.clip(0, 255).astype(np.uint8)


def distances(rng: np.random.Generator, **patches: float) -> NDArray[np.float32]:
    """An anomaly map ``[7, 7]``: a patch's own mean is what counts of it."""
    found = rng.normal(1, 0.1, PATCHES)
    for patch, added in patches.items():
        found[int(patch.removeprefix("p"))] += added
    return found.reshape(GRID, GRID).astype(np.float32)


@pytest.fixture(scope="module")
def baseline() -> Baseline:
    rng = np.random.default_rng(1)
    looks = [look(picture(rng)) for _ in range(COUNT)]
    found = Baseline.of(looks, [distances(rng).ravel() for _ in range(COUNT)])
    assert found is not None
    return found


def changed(name: str, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    match name:
        case "dark":
            return (frame * 0.85).astype(np.uint8)
        case "bright":
            return np.clip(frame * 1.15, 0, 255).astype(np.uint8)
        case "right":
            return np.roll(frame, 2, axis=1)
        case "down":
            return np.roll(frame, 2, axis=0)
        case "blurred":
            return cv2.GaussianBlur(frame, (0, 0), 1.0).astype(np.uint8)
        case "spot":
            dirty = frame.copy()
            dirty[34:62, 50:78] = cv2.GaussianBlur(frame, (0, 0), 5)[34:62, 50:78] * 0.9
            return dirty
        case "spot, a little darker":  # than at fit; no drift of its own
            return (changed("spot", frame) * 0.98).astype(np.uint8)
    return frame


# What is measured of a frame


def test_a_look_is_the_mean_and_the_laplacian_of_its_pixels() -> None:
    frame = picture(np.random.default_rng(2))
    grey = frame @ np.array([0.299, 0.587, 0.114])
    padded = np.pad(grey, 1, mode="reflect")
    laplacian = (
        padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] - 4 * grey
    )
    step = EDGE // GRID
    cut = np.abs(laplacian).reshape(GRID, step, GRID, step).mean(axis=(1, 3)).ravel()
    seen = look(frame)
    np.testing.assert_allclose(seen.detail, cut, rtol=0.05)  # of grey levels rounded to integers
    brightness = grey.reshape(GRID, step, GRID, step).mean(axis=(1, 3)).ravel()
    np.testing.assert_allclose(patch_means(seen.grey.astype(np.float32)), brightness, atol=0.6)


def test_patch_means_where_patches_end_between_pixels() -> None:
    ramp = np.tile(np.arange(10, dtype=np.float32), (10, 1))
    centres = (np.arange(GRID) + 0.5) * 10 / GRID
    fine = np.repeat(np.arange(10.0), 7).reshape(GRID, 10).mean(axis=1)  # sevenths of pixels
    np.testing.assert_allclose(patch_means(ramp)[:GRID], fine, atol=1e-5)
    assert np.all(np.abs(fine + 0.5 - centres) < 0.5)


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (1, 0), (-2, 0), (0, 2), (2, -1)])
@pytest.mark.parametrize("light", [0.8, 1.1])
def test_where_the_picture_lies(baseline: Baseline, dx: int, dy: int, light: float) -> None:
    frame = np.roll(TEXTURE * light, (dy, dx), axis=(0, 1)).clip(0, 255).astype(np.uint8)
    x, y = baseline.values(look(frame), np.ones(PATCHES))[-2:] * EDGE
    assert x == pytest.approx(dx, abs=0.5)
    assert y == pytest.approx(dy, abs=0.5)


def test_a_plain_picture_lies_nowhere_else() -> None:
    grey = [np.full((EDGE, EDGE, 3), 100 + n, np.uint8) for n in range(4)]
    ones = np.ones(PATCHES, np.float32)
    found = Baseline.of([look(frame) for frame in grey], [ones] * 4)
    assert found is not None
    assert np.all(np.abs(found.means[-2:]) < 1e-3)
    assert np.all(np.isfinite(found.scale))


def test_one_picture_is_no_baseline() -> None:
    assert Baseline.of([look(picture(RNG))], []) is None
    with pytest.raises(DriftError, match="fit it again"):
        DriftMonitor(None)


def test_a_fit_keeps_the_leave_one_out_maps_of_its_pictures(detector: Detector) -> None:
    baseline = detector.fitted_.baseline
    assert baseline is not None
    assert baseline.count == len(detector.fitted_.pictures)
    assert baseline.watched.all()
    maps = [patch_means(p.frame_map) for p in detector.predict([parts.part(0)])]
    # The mean of maps lies below what another kind of part gives.
    assert np.all(baseline.means[:PATCHES] < maps[0])


# Charts


def cusum(values: list[NDArray[np.float64]], baseline: Baseline) -> tuple[float, int]:
    """Largest sum, and the picture after its last 0: Page's rule, value by value."""
    extra = 4 / np.sqrt(baseline.count)
    best = (0.0, 0)
    for number in range(VALUES):
        for sign in (1, -1):
            if sign == -1 and (number < PATCHES or number == 3 * PATCHES):
                continue
            total, start = 0.0, 0
            for t, value in enumerate(values, start=1):
                z = sign * (value[number] - float(baseline.means[number])) / baseline.scale[number]
                if total == 0:
                    start = t
                total = total + min(max(z, -CLIP - extra), CLIP + extra) - SLACK - extra
                total = min(max(total, 0.0), 2 * LIMIT)
            best = max(best, (total, start), key=lambda found: found[0])
    return best


def test_the_score_is_pages_sum(baseline: Baseline) -> None:
    rng = np.random.default_rng(3)
    monitor, values = DriftMonitor(baseline), []
    for number in range(40):
        frame = changed("dark" if number >= 20 else "", picture(rng))
        seen, found = look(frame), distances(rng)
        values.append(baseline.values(seen, patch_means(found)))
        state = monitor.update(seen, found, f"{number}.png")
        total, start = cusum(values, baseline)
        assert state.score == pytest.approx(total / LIMIT)
        assert state.alarm == (total > LIMIT)
        if total > LIMIT:
            break
    assert (state.since, state.since_source) == (start, f"{start - 1}.png")
    assert abs(start - 21) <= 1


def feed(
    monitor: DriftMonitor, change: str, count: int, seed: int, defects: float = 0.05
) -> int | None:
    """Pictures until the alarm; None without one. Some are defects, in patches of their own."""
    rng = np.random.default_rng(seed)
    for number in range(1, count + 1):
        frame, found = changed(change, picture(rng)), distances(rng)
        if rng.random() < defects:
            row, column = rng.integers(0, EDGE - 30, 2)
            frame[row : row + 30, column : column + 30] = 255
            found.flat[rng.choice(PATCHES, 6)] += 5
        if monitor.update(look(frame), found, f"{number}").alarm:
            return number
    return None


def test_good_pictures_and_single_defects_raise_no_alarm(baseline: Baseline) -> None:
    monitor = DriftMonitor(baseline)
    assert feed(monitor, "", 2000, seed=4) is None
    assert monitor.state.cause is None
    assert str(monitor.state).startswith("no drift in 2000 pictures")


def test_several_defects_in_a_row_raise_no_alarm(baseline: Baseline) -> None:
    monitor = DriftMonitor(baseline)
    feed(monitor, "", 50, seed=5, defects=0)
    assert feed(monitor, "", 8, seed=6, defects=1) is None


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ("dark", "light"), ("bright", "light"), ("right", "camera"), ("down", "camera"),
        ("blurred", "lens"), ("spot", "lens"), ("spot, a little darker", "lens"),
    ],
)  # fmt: skip
def test_causes_are_told_apart(baseline: Baseline, change: str, cause: str) -> None:
    monitor = DriftMonitor(baseline)
    assert feed(monitor, "", 50, seed=7) is None
    delay = feed(monitor, change, 50, seed=8)
    assert delay is not None
    assert delay < 20
    state = monitor.state
    assert state.cause == cause
    assert state.since is not None
    assert abs(state.since - 51) <= 2
    if "spot" in change:
        assert set(state.patches) <= {r * GRID + c for r in range(1, 5) for c in range(2, 6)}
    assert f"since picture {state.since}" in str(state)
    feed(monitor, change, 60, seed=9)
    assert monitor.state.cause == cause


def test_slow_wear_is_noticed_and_named_by_its_patch(baseline: Baseline) -> None:
    rng, monitor = np.random.default_rng(10), DriftMonitor(baseline)
    for number in range(1000):
        state = monitor.update(look(picture(rng)), distances(rng, p17=number / 1000))
        if state.alarm:
            break
    assert state.alarm
    assert (state.cause, state.patches[0]) == ("parts", 17)


def test_an_alarm_ends_when_its_cause_does(baseline: Baseline) -> None:
    monitor = DriftMonitor(baseline)
    assert feed(monitor, "dark", 50, seed=11) is not None
    feed(monitor, "", 60, seed=12)
    rng = np.random.default_rng(13)
    for _ in range(60):
        state = monitor.update(look(picture(rng)), distances(rng))
    assert not state.alarm
    assert (state.since, state.patches) == (None, ())


def test_patches_that_are_not_inspected_do_not_count(baseline: Baseline) -> None:
    means = baseline.means.copy()
    means[[3, 4]] = 0
    monitor = DriftMonitor(Baseline(COUNT, baseline.grey, means, baseline.deviations))
    rng = np.random.default_rng(14)
    for _ in range(60):
        state = monitor.update(look(picture(rng)), distances(rng, p3=2, p4=-1))
    assert 3 not in state.patches
    assert 4 not in state.patches


# A state that is kept


def states_of(baseline: Baseline, count: int, seed: int) -> list[tuple[Look, NDArray[np.float32]]]:
    rng = np.random.default_rng(seed)
    return [(look(changed("dark", picture(rng))), distances(rng, p9=1)) for _ in range(count)]


@settings(max_examples=10, deadline=None)
@given(cut=st.integers(0, 30), seed=st.integers(0, 1000))
def test_resumed_is_uninterrupted(
    baseline: Baseline, tmp_path_factory: pytest.TempPathFactory, cut: int, seed: int
) -> None:
    pictures = states_of(baseline, 30, seed)
    whole, half = DriftMonitor(baseline), DriftMonitor(baseline)
    path = tmp_path_factory.mktemp("drift") / "state.json"
    for number, (seen, found) in enumerate(pictures):
        whole.update(seen, found, str(number))
    for number, (seen, found) in enumerate(pictures[:cut]):
        half.update(seen, found, str(number))
    half.save(path)
    resumed = DriftMonitor.resume(baseline, path)
    assert resumed.state == half.state
    for number, (seen, found) in enumerate(pictures[cut:], start=cut):
        resumed.update(seen, found, str(number))
    assert resumed.to_json() == whole.to_json()
    resumed.reset()
    assert resumed.to_json() == DriftMonitor(baseline).to_json()


def test_memory_is_constant(baseline: Baseline) -> None:
    monitor = DriftMonitor(baseline)
    pictures = states_of(baseline, 50, 15)
    sizes = []
    for number in range(2000):
        monitor.update(*pictures[number % 50], source=f"{number:06d}.png")
        sizes.append(len(monitor.to_json()) if number % 100 == 99 else 0)
    assert max(sizes) <= 1.1 * sizes[99]


def test_order_counts(baseline: Baseline) -> None:
    """As many dark pictures raise an alarm in a row, and none one by one."""
    rng = np.random.default_rng(16)
    kinds = {name: [look(changed(name, picture(rng))) for _ in range(20)] for name in ("", "dark")}
    found = distances(rng) * 0 + 1
    rows = {
        "in turn": [look for pair in zip(kinds[""], kinds["dark"], strict=True) for look in pair],
        "in a row": kinds[""] + kinds["dark"],
    }
    alarms = {}
    for name, row in rows.items():
        monitor = DriftMonitor(baseline)
        alarms[name] = any(monitor.update(seen, found).alarm for seen in row)
    assert alarms == {"in turn": False, "in a row": True}


BROKEN = {
    "empty": b"",
    "no JSON": b"\xff{",
    "a list": b"[]",
    "nested": b"[" * 100_000,
    "another JSON": b'{"state": {}, "charts": {}}',
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_state_is_refused(kind: str, baseline: Baseline, tmp_path: Path) -> None:
    (tmp_path / "s.json").write_bytes(BROKEN[kind])
    with pytest.raises(DriftError, match="not a drift state"):
        DriftMonitor.resume(baseline, tmp_path / "s.json")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sums", [[1.0]]), ("sums", [[-1.0] * VALUES] * 2), ("sums", [[float("nan")] * VALUES] * 2),
        ("starts", [[99] * VALUES] * 2), ("starts", [[0.5] * VALUES] * 2), ("recent", None),
        ("names", {"x": "y"}), ("names", []), ("since", 7), ("since", "soon"), ("format", 2),
    ],
)  # fmt: skip
def test_a_state_that_contradicts_itself_is_refused(
    name: str, value: object, baseline: Baseline, tmp_path: Path
) -> None:
    written = json.loads(DriftMonitor(baseline).to_json())
    written["charts"][name] = value
    (tmp_path / "s.json").write_text(json.dumps(written))
    with pytest.raises(DriftError, match="not a drift state"):
        DriftMonitor.resume(baseline, tmp_path / "s.json")


# The command


@pytest.fixture
def line(tmp_path: Path) -> dict[str, Path]:
    folders = {}
    for name, change in (("usual", ""), ("dark", "dark")):
        folders[name] = tmp_path / name
        for number in range(40):
            parts.save(
                folders[name] / f"{number:03d}.png", changed(change, parts.part(100 + number))
            )
    return folders


def test_inspect_watches_and_goes_on(
    run: Command, model: Path, line: dict[str, Path], tmp_path: Path
) -> None:
    state = tmp_path / "drift.json"
    before = run("inspect", line["usual"], "-m", model, "--drift", state)
    assert (before.code, "warning" in before.err) == (0, False)
    written = json.loads(state.read_text())["state"]
    assert (written["pictures"], written["alarm"], written["cause"]) == (40, False, None)
    after = run("inspect", line["dark"], "-m", model, "--drift", state, "-q")
    (warning,) = after.err.splitlines()
    assert warning.startswith("warning: drift: the light changed (brightness x 0.")
    written = json.loads(state.read_text())["state"]
    assert (written["pictures"], written["alarm"], written["cause"]) == (80, True, "light")
    assert written["since_source"] == str(line["dark"] / f"{written['since'] - 41:03d}.png")


def test_inspect_writes_drift_to_stdout(run: Command, model: Path, line: dict[str, Path]) -> None:
    finished = run("inspect", line["dark"], "-m", model, "--drift", "-")
    assert json.loads(finished.out)["state"]["cause"] == "light"


def test_one_warning_for_an_alarm_that_ends(
    run: Command, model: Path, line: dict[str, Path]
) -> None:
    pictures = [*sorted(line["dark"].iterdir())[:25], *sorted(line["usual"].iterdir()) * 2]
    finished = run("inspect", *pictures, "-m", model, "--drift", "-", "-q")
    assert json.loads(finished.out)["state"]["alarm"] is False
    assert finished.err.count("warning: drift") == len(finished.err.splitlines()) == 1


def test_states_and_bundles_that_do_not_fit(
    refusal: Refusal, run: Command, model: Path, good: Path, tmp_path: Path
) -> None:
    state = tmp_path / "drift.json"
    run("inspect", good, "-m", model, "--drift", state)
    for name, folder in (("other", good), ("one", parts.make_folder(tmp_path / "single", 1))):
        fitted = run("fit", folder, "--output", tmp_path / f"{name}.fapm", "--resize", 64)
        assert fitted.code == 0
    said = refusal("inspect", good, "-m", tmp_path / "other.fapm", "--drift", state)
    assert said.startswith(f"{state}: drift of another fit")
    said = refusal("inspect", good, "-m", tmp_path / "one.fapm", "--drift", "-")
    assert said.startswith("drift: this bundle does not know how good pictures vary")
    state.write_text("hello")
    said = refusal("inspect", good, "-m", model, "--drift", state)
    assert said.startswith(f"{state}: not a drift state")
    assert state.read_text() == "hello"
    for other in ("--jsonl", "--csv"):
        said = refusal("inspect", good, "-m", model, "--drift", "-", other, "-")
        assert said.startswith(f"{other} and --drift both go to -")
