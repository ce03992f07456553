"""The page: self-contained, escaped, sorted, and it loses nothing."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from fapm.errors import OutputError
from fapm.inspection.prediction import Box
from fapm.pictures.codec import encode_jpeg
from fapm.reports.html import MAX_PICTURES, Report, ReportItem, write_report

NAN = float("nan")
GREY = np.full((40, 60, 3), 128, np.uint8)
VOID = {"meta", "img", "input", "br"}
TIMES = "\N{MULTIPLICATION SIGN}"


def make_item(name: str = "a.png", **changes: object) -> ReportItem:
    item = ReportItem(
        name=name,
        image=GREY,
        anomaly_map=np.full((40, 60), 0.1, np.float32),
        score=1.0,
        percentile=50.0,
        verdict="good",
        label=None,
        kind="unknown",
        mask=None,
        own_box=Box(0.5, 0.5, 0.1, 0.1),
        reference_name="normal.png",
        reference=encode_jpeg(GREY, 80),
        reference_box=Box(0.4, 0.5, 0.1, 0.1),
    )
    return replace(item, **changes)


def make_report(*items: ReportItem, **changes: object) -> Report:
    report = Report(
        title="Bottles",
        summary=(("encoder", "efficientnet_lite0"),),
        normal_scores=np.linspace(0.5, 1.5, 50),
        threshold=2.0,
        unsure_threshold=1.6,
        map_threshold=1.0,
        items=items,
        failures=(),
        metrics={},
        roc=None,
        pro=None,
        notes=(),
    )
    return replace(report, **changes)


class Page(HTMLParser):
    """Elements, text, cards and rows of a page; fails on tags that do not nest."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def classes(self, tag: str) -> list[set[str]]:
        return [set((attrs.get("class") or "").split()) for name, attrs in self.tags if name == tag]

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def page_of(tmp_path: Path, report: Report) -> Page:
    write_report(tmp_path / "report.html", report)
    return Page((tmp_path / "report.html").read_text("utf-8"))


def test_page_is_one_file_that_loads_and_runs_nothing(tmp_path: Path) -> None:
    page = page_of(tmp_path, make_report(make_item()))
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "iframe", "object"}
        assert (attributes.get("src") or "data:image/jpeg;base64,").startswith("data:image/jpeg")
        assert "href" not in attributes
        assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"https?://|url\(|@import", page.source)
    assert "default-src 'none'" in page.source
    assert list(tmp_path.iterdir()) == [tmp_path / "report.html"]


def test_everything_from_outside_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>\"><img src=x onerror=y>"
    item = make_item(evil, reference_name=evil, label=1, kind=evil)
    page = page_of(
        tmp_path,
        make_report(
            item,
            title=evil,
            summary=((evil, evil),),
            failures=((evil, evil),),
            notes=(evil,),
            metrics={evil: 1.0},
        ),
    )
    assert page.count("script") == 0
    assert all(
        (attributes.get("src") or "data:").startswith("data:") for _, attributes in page.tags
    )
    assert page.text.count("alert('x')") >= 9


def test_undecodable_file_name_does_not_stop_the_report(tmp_path: Path) -> None:
    assert "bad?.png" in page_of(tmp_path, make_report(make_item("bad\udcff.png"))).text


def test_cards_are_sorted_by_score(tmp_path: Path) -> None:
    items = [make_item(f"{score}.png", score=score) for score in (1.0, 3.0, 2.0)]
    text = page_of(tmp_path, make_report(*items)).text
    assert text.index("3.0.png") < text.index("2.0.png") < text.index("1.0.png")


def test_counts_and_wrong_verdicts(tmp_path: Path) -> None:
    cases = [
        *[("defect", 1)] * 3,  # caught
        *[("unsure", 1)] * 2,
        ("good", 1),  # missed
        *[("good", 0)] * 4,  # passed
        *[("defect", 0)] * 2,  # false alarms
        ("unsure", None),
    ]
    items = [
        make_item(f"{i}.png", verdict=verdict, label=label)
        for i, (verdict, label) in enumerate(cases)
    ]
    page = page_of(tmp_path, make_report(*items, failures=(("z.png", "damaged"),)))
    for words in ("5 defect", "3 unsure", "5 good", "1 failed"):
        assert words in page.text[: page.text.index("encoder")]
    text = page.text.replace("\xa0", " ")
    assert "6 labelled defect: 3 caught, 2 unsure, 1 missed" in text
    assert "6 labelled good: 4 passed, 0 unsure, 2 false alarms" in text
    assert sum("wrong" in classes for classes in page.classes("article")) == 3
    assert text.count("Missed: labelled defect, judged good") == 1
    assert text.count("False alarm: labelled good, judged defect") == 2
    assert "wrong 3" in text


def test_card_tells_where_the_picture_stands(tmp_path: Path) -> None:
    item = make_item("x.png", score=3.6, percentile=99.97, verdict="defect", label=1, kind="crack")
    text = page_of(tmp_path, make_report(item)).text
    assert f"score 3.6 · 1.8 {TIMES} threshold · above 99.9 % of normal pictures" in text
    assert "label: defect (crack)" in text
    assert "compared with normal.png" in text


def test_card_without_thumbnails_of_normal_pictures(tmp_path: Path) -> None:
    with_crop = page_of(tmp_path, make_report(make_item()))
    without = page_of(tmp_path, make_report(make_item(reference=None)))
    nameless = page_of(
        tmp_path, make_report(make_item(reference=None, reference_name=None, reference_box=None))
    )
    assert with_crop.count("img") == without.count("img") + 1 == nameless.count("img") + 1
    assert "compared with normal.png" in without.text
    assert "compared with" not in nameless.text


def test_unknown_threshold_is_stated(tmp_path: Path) -> None:
    item = make_item(verdict="unsure", percentile=NAN)
    report = make_report(
        item,
        normal_scores=np.array([]),
        threshold=NAN,
        unsure_threshold=NAN,
        map_threshold=NAN,
    )
    text = page_of(tmp_path, report).text
    assert "No threshold is known" in text
    assert "its own maximum" in text
    assert f"{TIMES} threshold" not in text
    assert "nan" not in text.lower()


def test_nothing_inspected(tmp_path: Path) -> None:
    page = page_of(tmp_path, make_report(failures=(("a.png", "a.png: the file is empty"),)))
    assert "No picture was inspected." in page.text
    assert page.text.count("a.png") == 1
    nothing = page_of(tmp_path, make_report(normal_scores=np.array([])))
    assert nothing.count("svg") == 0


def test_metrics_in_plain_words(tmp_path: Path) -> None:
    metrics = {"image_auroc": 0.99512, "aupro": None, "keys": 12345.0}
    text = page_of(tmp_path, make_report(make_item(), metrics=metrics)).text
    assert "image AUROC 0.995 chance that a defective picture scores above a good one" in text
    assert "AUPRO - needs labels or masks" in text
    assert "keys 12,345" in text


def test_pictures_without_labels_have_no_metrics(tmp_path: Path) -> None:
    metrics = {"image_auroc": None, "aupro": None}
    text = page_of(tmp_path, make_report(make_item(label=None), metrics=metrics)).text
    assert "Against the labels" not in text
    assert "AUPRO" not in text


def test_curves_are_drawn_with_the_operating_point(tmp_path: Path) -> None:
    curve = np.array([0.0, 1.0]), np.array([0.0, 1.0])
    items = [make_item(f"{s}.png", score=s, label=int(s > 1)) for s in (1.0, 1.5, 3.0)]
    page = page_of(tmp_path, make_report(*items, roc=curve, pro=curve))
    assert page.count("svg") == 3
    assert "fitted threshold: 50.0% caught, 0.0% false alarms" in page.text


def test_large_runs_lose_nothing(tmp_path: Path) -> None:
    items = [make_item(f"p{i:04d}.png", score=float(i), label=0) for i in range(400)]
    items[3] = replace(items[3], verdict="defect")
    page = page_of(tmp_path, make_report(*items))
    assert page.count("article") == MAX_PICTURES
    assert len(re.findall(r"p\d{4}\.png", page.text)) == 400
    assert len(set(re.findall(r"p\d{4}\.png", page.text))) == 400
    assert "300 of 400 are shown with pictures" in page.text
    table = page.text[page.text.index("The others") :]
    assert "p0399.png" not in table  # scores highest
    assert "p0003.png" not in table  # judged wrong
    assert "p0001.png" in table
    assert "p0000.png" not in table  # in the sample


def test_report_can_be_repeated(tmp_path: Path) -> None:
    report = make_report(make_item(), make_item("b.png"))
    write_report(tmp_path / "1.html", report)
    write_report(tmp_path / "2.html", report)
    assert (tmp_path / "1.html").read_bytes() == (tmp_path / "2.html").read_bytes()


def test_report_creates_its_folder(tmp_path: Path) -> None:
    write_report(tmp_path / "new" / "folder" / "report.html", make_report())
    assert (tmp_path / "new" / "folder" / "report.html").is_file()


def test_unwritable_report_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.html").mkdir()
    for path in (tmp_path / "file" / "report.html", tmp_path / "folder.html"):
        with pytest.raises(OutputError, match=r"^[^\n]*cannot (write|create): [^\n]+$"):
            write_report(path, make_report())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.html"]


def test_interrupted_write_keeps_the_old_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "report.html").write_text("old")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_report(tmp_path / "report.html", make_report())
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]
