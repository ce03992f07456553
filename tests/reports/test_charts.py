"""Charts: nothing lost, nothing squashed, well-formed and accessible."""

from __future__ import annotations

import re
from collections import Counter
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapm.reports.charts import pro_chart, roc_chart, score_histogram

NAN = float("nan")


def bars_of(svg: str) -> Counter[str]:
    """Pictures per series, as told by the titles of the bars."""
    told: Counter[str] = Counter()
    for title in ElementTree.fromstring(svg).iter("title"):
        for count, name in re.findall(r"(\d+) (normal|good|defect|unlabelled)", title.text or ""):
            told[name] += int(count)
    return told


SCORES = st.lists(
    st.floats(0, 1e12) | st.sampled_from([0.0, 1.0, 1.1, 1e-12, 1e300]), min_size=0, max_size=30
)


@given(
    normal=SCORES,
    scores=SCORES,
    threshold=st.just(NAN) | st.floats(0, 1e6),
    unsure=st.just(NAN) | st.floats(0, 1e6),
)
def test_histogram_shows_every_score(
    normal: list[float], scores: list[float], threshold: float, unsure: float
) -> None:
    labels = [(None, 0, 1)[position % 3] for position in range(len(scores))]
    svg = score_histogram(np.array(normal), np.array(scores), labels, threshold, unsure)
    if not normal and not scores:
        assert svg == ""
        return
    names = {None: "unlabelled", 0: "good", 1: "defect"}
    told = Counter(names[label] for label in labels)
    told["normal"] = len(normal)
    assert +bars_of(svg) == +told
    for rect in ElementTree.fromstring(svg).iter("rect"):
        left, width = float(rect.attrib["x"]), float(rect.attrib["width"])
        assert left >= 44
        assert left + width <= 360
        assert width > 0


def test_histogram_gathers_far_outliers_and_says_so() -> None:
    normal = np.linspace(0.8, 1.2, 100)
    scores = np.array([1.0, 1.1, 1.3, 900.0, 1e6])
    svg = score_histogram(normal, scores, [0, 0, 0, 1, 1], 1.25, 1.15)
    bars = [title.text or "" for title in ElementTree.fromstring(svg).iter("title")]
    assert any(re.match(r"score above [\d.]+: 0 good, 2 defect", bar) for bar in bars)
    # The normal pictures still spread over several bars.
    assert sum("normal" in bar for bar in bars) >= 4


def test_histogram_names_both_thresholds() -> None:
    svg = score_histogram(np.array([1.0, 2.0]), np.array([1.5]), [None], 2.25, 1.75)
    words = [text.text for text in ElementTree.fromstring(svg).iter("text")]
    assert "defect above 2.25" in words
    assert "unsure above 1.75" in words
    unknown = score_histogram(np.array([1.0, 2.0]), np.array([1.5]), [None], NAN, NAN)
    assert "above" not in unknown


def test_ticks_are_round() -> None:
    svg = score_histogram(np.array([0.137, 1.91]), np.array([]), [], NAN, NAN)
    numbers = [text.text or "" for text in ElementTree.fromstring(svg).iter("text")]
    assert {"0.5", "1.0", "1.5"} <= set(numbers)


@pytest.mark.parametrize("svg", ["histogram", "roc", "pro"])
def test_charts_are_accessible(svg: str) -> None:
    curve = np.array([0.0, 0.2, 1.0])
    drawn = {
        "histogram": score_histogram(np.array([1.0]), np.array([]), [], NAN, NAN),
        "roc": roc_chart(curve, curve, (0.2, 0.9)),
        "pro": pro_chart(curve, curve),
    }[svg]
    root = ElementTree.fromstring(drawn)
    assert root.attrib["role"] == "img"
    names = {child.attrib["id"]: child.text for child in root if "id" in child.attrib}
    assert all(names[name] for name in root.attrib["aria-labelledby"].split())


def test_pro_ends_at_its_limit_on_the_curve() -> None:
    svg = pro_chart(np.array([0.0, 0.1, 0.5, 1.0]), np.array([0.0, 0.4, 0.8, 1.0]))
    line = ElementTree.fromstring(svg).find("polyline")
    assert line is not None
    points = [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]
    (left, floor), (right, end) = points[0], points[-1]
    ticks = {
        text.text: float(text.attrib["y"]) - 4
        for text in ElementTree.fromstring(svg)[2:]
        if text.tag == "text"
    }
    assert end == pytest.approx(ticks["60%"], abs=0.5)  # 0.4 + 0.4 * (0.3 - 0.1) / 0.4
    assert floor > end
    assert right > left


def test_curves_of_a_million_corners_stay_small() -> None:
    curve = np.linspace(0, 1, 1_000_000)
    assert len(roc_chart(curve, np.sqrt(curve), None)) < 30_000
