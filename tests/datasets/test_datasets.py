"""Every layout becomes samples; what is not a data set is refused in one clear line."""

from __future__ import annotations

from pathlib import Path

import pytest

from fapm.datasets.folders import list_images
from fapm.datasets.loading import LAYOUTS, Sample, load_dataset
from fapm.errors import DatasetError

DATA = Path(__file__).parents[3] / "shared" / "data"


def touch(root: Path, *names: str) -> Path:
    """Empty files: no layout looks into a picture."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def write_csv(path: Path, *lines: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


@pytest.fixture
def mvtec(tmp_path: Path) -> Path:
    return touch(
        tmp_path / "bottle",
        "train/good/000.png",
        "train/good/001.png",
        "test/good/000.png",
        "test/broken/000.png",
        "test/broken/001.png",
        "test/scratch/000.png",
        "ground_truth/broken/000_mask.png",
        "ground_truth/broken/001_mask.png",
        "ground_truth/scratch/000_mask.png",
    )


@pytest.fixture
def visa(tmp_path: Path) -> Path:
    names = [f"{name}/Data/Images/{i}.JPG" for name in ("candle", "pcb1") for i in range(3)]
    root = touch(tmp_path / "VisA", *names, "pcb1/Data/Masks/2.png", "candle/Data/Masks/2.png")
    lines = ["object,split,label,image,mask"]
    for name in ("pcb1", "candle"):
        lines += [
            f"{name},train,normal,{name}/Data/Images/0.JPG,",
            f"{name},test,normal,{name}/Data/Images/1.JPG,",
            f"{name},test,anomaly,{name}/Data/Images/2.JPG,{name}/Data/Masks/2.png",
        ]
    write_csv(root / "split_csv" / "1cls.csv", *lines)
    return root


# --- pictures in a folder -------------------------------------------------------------------------


def test_list_images_is_recursive_sorted_and_skips_hidden(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "b.png", "a/z.JPG", "a/b/y.jpeg", "a.tif", "B.tiff", "c.bmp", "d.WebP",
        ".hidden.png", ".cache/x.png", "a/._z.jpg", "notes.txt", "Thumbs.db",
    )  # fmt: skip
    found = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert found == ["B.tiff", "a.tif", "a/b/y.jpeg", "a/z.JPG", "b.png", "c.bmp", "d.WebP"]


def test_list_images_below_a_hidden_folder_that_was_named(tmp_path: Path) -> None:
    touch(tmp_path / ".hidden", "a.png")
    assert list_images(tmp_path / ".hidden") == [tmp_path / ".hidden" / "a.png"]


def test_list_images_of_a_file(tmp_path: Path) -> None:
    touch(tmp_path, "frame.raw")
    assert list_images(tmp_path / "frame.raw") == [tmp_path / "frame.raw"]


def test_list_images_does_not_run_in_circles(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png")
    try:
        (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
    except OSError:
        pytest.skip("this system has no symbolic links")
    assert list_images(tmp_path) == [tmp_path / "a" / "1.png"]


def test_no_pictures(tmp_path: Path) -> None:
    suffixes = r"pictures end in \.jpg \.jpeg \.png \.bmp \.tif \.tiff \.webp"
    with pytest.raises(DatasetError, match=rf"the folder is empty; {suffixes}"):
        list_images(tmp_path)
    touch(tmp_path, "a.txt", "b.txt")
    with pytest.raises(DatasetError, match=rf"no picture among 2 files; {suffixes}"):
        list_images(tmp_path)
    for read in (list_images, load_dataset):
        with pytest.raises(DatasetError, match="nowhere: no such file or folder"):
            read(tmp_path / "nowhere")


# --- layouts --------------------------------------------------------------------------------------


def test_flat_folder(tmp_path: Path) -> None:
    dataset = load_dataset(touch(tmp_path / "parts", "1.png", "more/2.png"))
    assert (dataset.name, dataset.layout, dataset.test) == ("parts", "folder", ())
    assert dataset.train[0] == Sample(tmp_path / "parts" / "1.png", None, (), "unknown")
    assert dataset.message == "Folder layout: 2 training pictures"
    assert dataset.warnings == ()


def test_mvtec(mvtec: Path) -> None:
    dataset = load_dataset(mvtec)
    assert (dataset.name, dataset.layout) == ("bottle", "mvtec")
    assert [sample.path.name for sample in dataset.train] == ["000.png", "001.png"]
    assert {(sample.label, sample.kind) for sample in dataset.train} == {(0, "good")}
    masks = mvtec / "ground_truth"
    assert dataset.test == (
        Sample(mvtec / "test/broken/000.png", 1, (masks / "broken/000_mask.png",), "broken"),
        Sample(mvtec / "test/broken/001.png", 1, (masks / "broken/001_mask.png",), "broken"),
        Sample(mvtec / "test/good/000.png", 0, (), "good"),
        Sample(mvtec / "test/scratch/000.png", 1, (masks / "scratch/000_mask.png",), "scratch"),
    )
    assert dataset.message == (
        "MVTec layout: 2 training pictures, 4 test pictures (3 defects, 3 masks)"
    )
    assert dataset.warnings == ()


def test_mpdd_is_the_same_tree_by_another_name(mvtec: Path) -> None:
    dataset = load_dataset(mvtec, "mpdd")
    assert dataset.layout == "mpdd"
    assert dataset.message.startswith("MPDD layout: 2 training pictures")
    assert dataset.test == load_dataset(mvtec).test


def test_mvtec_without_masks_or_test(tmp_path: Path) -> None:
    touch(tmp_path, "train/good/0.png", "test/bad/0.png")
    dataset = load_dataset(tmp_path)
    assert [sample.masks for sample in dataset.test] == [()]
    assert "1 test picture (1 defect, 0 masks)" in dataset.message
    assert dataset.warnings == ()
    (tmp_path / "test" / "bad" / "0.png").unlink()
    assert load_dataset(tmp_path).message == "MVTec layout: 1 training picture"


def test_oddities_are_reported_not_fatal(mvtec: Path) -> None:
    (mvtec / "test" / "broken" / "000.png").unlink()
    (mvtec / "ground_truth" / "scratch" / "000_mask.png").unlink()
    touch(mvtec, "test/loose.png", "ground_truth/gone/_mask.png", "ground_truth/good/000_mask.png")
    dataset = load_dataset(mvtec)
    assert len(dataset.test) == 3
    assert dataset.warnings == (
        f"2 masks without a picture, e.g. {mvtec / 'ground_truth/broken/000_mask.png'}",
        "1 picture left out, in test/ itself and not in test/KIND, "
        f"e.g. {mvtec / 'test/loose.png'}",
        f"1 defect without a mask, e.g. {mvtec / 'test/scratch/000.png'}",
    )


def test_btad_masks_have_any_suffix(tmp_path: Path) -> None:
    root = touch(
        tmp_path / "01",
        "train/ok/0.bmp", "test/ok/1.bmp", "test/ko/2.bmp", "test/ko/3.5.bmp",
        "ground_truth/ko/2.png", "ground_truth/ko/3.5.gif",
    )  # fmt: skip
    dataset = load_dataset(root)
    assert (dataset.name, dataset.layout, dataset.train[0].kind) == ("01", "btad", "good")
    assert [(sample.label, sample.kind) for sample in dataset.test] == [
        (1, "ko"), (1, "ko"), (0, "good"),
    ]  # fmt: skip
    names = [[mask.name for mask in sample.masks] for sample in dataset.test]
    assert names == [["2.png"], ["3.5.gif"], []]
    assert (
        dataset.message == "BTAD layout: 1 training picture, 3 test pictures (2 defects, 2 masks)"
    )
    assert dataset.warnings == ()


def test_windows_writes_folders_as_it_likes(mvtec: Path) -> None:
    expected = load_dataset(mvtec)
    for folder in ("train/good", "test/good", "test/scratch", "train", "test", "ground_truth"):
        path = mvtec / folder
        path.rename(path.with_name(path.name.title()))
        mvtec_now = load_dataset(mvtec)
        assert (mvtec_now.message, mvtec_now.warnings) == (expected.message, ())
        assert [s.label for s in mvtec_now.test if s.kind == "good"] == [0]


def test_a_picture_may_have_several_masks(mvtec: Path) -> None:
    touch(
        mvtec / "ground_truth",
        "broken/000.png", "broken/000_mask_1.png", "broken/001/000.png", "broken/001/001.png",
    )  # fmt: skip
    dataset = load_dataset(mvtec)
    masks = {sample.path.name: sample.masks for sample in dataset.test if sample.kind == "broken"}
    root = mvtec / "ground_truth" / "broken"
    assert masks == {
        "000.png": (root / "000.png", root / "000_mask.png", root / "000_mask_1.png"),
        "001.png": (root / "001/000.png", root / "001/001.png", root / "001_mask.png"),
    }
    assert dataset.warnings == ()


def test_a_tree_of_links(mvtec: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    for folder in ("train/good", "test/good", "test/broken", "test/scratch", "ground_truth/broken",
                   "ground_truth/scratch"):  # fmt: skip
        (linked / folder).parent.mkdir(parents=True, exist_ok=True)
        (linked / folder).symlink_to(mvtec / folder)
    assert load_dataset(linked).message == load_dataset(mvtec).message


@pytest.mark.parametrize("as_category", [True, False])
@pytest.mark.parametrize("layout", ["auto", "visa"])
def test_visa(visa: Path, as_category: bool, layout: str) -> None:
    if as_category:
        dataset = load_dataset(visa, layout, "pcb1")
    else:
        dataset = load_dataset(visa / "pcb1", layout)
    images = visa / "pcb1" / "Data" / "Images"
    assert (dataset.name, dataset.layout) == ("pcb1", "visa")
    assert dataset.train == (Sample(images / "0.JPG", 0, (), "good"),)
    assert dataset.test == (
        Sample(images / "1.JPG", 0, (), "good"),
        Sample(images / "2.JPG", 1, (visa / "pcb1/Data/Masks/2.png",), "defect"),
    )
    assert dataset.message == "VisA layout: 1 training picture, 2 test pictures (1 defect, 1 mask)"


def test_csv(tmp_path: Path) -> None:
    touch(tmp_path, *(f"pictures/{i}.png" for i in range(5)), "masks/3.png")
    file = write_csv(
        tmp_path / "parts.csv",
        "Path,Label,Split,Mask",
        "pictures/0.png,good,train,",
        "pictures/1.png,,train,",
        "pictures/2.png,OK,test,",
        "pictures/3.png,1,test,masks/3.png",
        f"{tmp_path / 'pictures' / '4.png'},bad,,",
    )
    dataset = load_dataset(file)
    assert (dataset.name, dataset.layout) == ("parts", "csv")
    assert [(s.label, s.kind) for s in dataset.train] == [(0, "good"), (None, "unknown")]
    assert [(s.label, s.kind) for s in dataset.test] == [(0, "good"), (1, "defect"), (1, "defect")]
    assert [s.masks for s in dataset.test] == [(), (tmp_path / "masks" / "3.png",), ()]
    assert dataset.message == "CSV layout: 2 training pictures, 3 test pictures (2 defects, 1 mask)"
    assert dataset.warnings == (f"1 defect without a mask, e.g. {tmp_path / 'pictures/4.png'}",)


def test_csv_with_paths_alone_and_as_excel_saves_it(tmp_path: Path) -> None:
    touch(tmp_path, "a, b.png")
    file = write_csv(tmp_path / "p.csv", "image;label", "a, b.png;anomaly", encoding="utf-8-sig")
    assert [sample.label for sample in load_dataset(file).test] == [1]
    file = write_csv(tmp_path / "p.csv", "path", '"a, b.png"')
    assert load_dataset(file).train == (Sample(tmp_path / "a, b.png", None, (), "unknown"),)


def test_csv_with_short_long_and_index_columns(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png")
    file = write_csv(tmp_path / "p.csv", ",path,label", "0,a.png", "1,b.png,1,surplus,cells")
    dataset = load_dataset(file)
    assert [sample.path.name for sample in (*dataset.train, *dataset.test)] == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("encoding", "start", "separator"),
    [
        ("utf-8", "", ","),
        ("utf-8-sig", "", ";"),
        ("utf-16", "", "\t"),
        ("utf-8", "sep=;\n", ";"),
        ("cp1252", "sep=;\n", ";"),
        ("cp1252", "", "\t"),
    ],
)
def test_csv_as_spreadsheets_save_it(
    encoding: str, start: str, separator: str, tmp_path: Path
) -> None:
    touch(tmp_path, "Gehäuse/0, 1.png", "Gehäuse/2.png")
    rows = [["path", "label"], ["Gehäuse\\0, 1.png", "NG"], ["Gehäuse\\2.png", "i.O."], ["", ""]]
    lines = [separator.join(f'"{cell}"' for cell in row) for row in rows]
    (tmp_path / "p.csv").write_bytes((start + "\r\n".join(lines) + "\r\n").encode(encoding))
    dataset = load_dataset(tmp_path / "p.csv")
    assert [(s.path.name, s.label) for s in dataset.train] == [("2.png", 0)]
    assert [(s.path.name, s.label) for s in dataset.test] == [("0, 1.png", 1)]
    assert dataset.warnings == ()


@pytest.mark.parametrize("encoding", ["cp1250", "mac-roman", "utf-16-le", "shift-jis"])
def test_csv_in_an_encoding_that_is_not_known(encoding: str, tmp_path: Path) -> None:
    touch(tmp_path, "Gehäuse.png", "złącze.png", "部品.png", "a.png")
    name = {"cp1250": "złącze", "shift-jis": "部品"}.get(encoding, "Gehäuse")
    (tmp_path / "p.csv").write_bytes(f"path\na.png\n{name}.png\n".encode(encoding))
    with pytest.raises(DatasetError, match=r"p\.csv: cannot be read .*; save it as 'CSV UTF-8'"):
        load_dataset(tmp_path / "p.csv")


def test_csv_in_windows_letters_where_no_path_has_any(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    write_csv(tmp_path / "p.csv", "path,remark", "a.png,Gehäuse", encoding="cp1252")
    assert len(load_dataset(tmp_path / "p.csv").train) == 1


@pytest.mark.parametrize(
    ("words", "label"),
    [("0 good OK io i.O. Pass normal gut", 0), ("1 bad KO NG nio n.i.O. Fail defect anomalous", 1)],
)
def test_csv_labels_in_any_case_of_letters(words: str, label: int, tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(len(words.split()))]
    touch(tmp_path, *names)
    lines = [f"{name},{word},test" for name, word in zip(names, words.split(), strict=True)]
    dataset = load_dataset(write_csv(tmp_path / "p.csv", "path,label,split", *lines))
    assert {sample.label for sample in dataset.test} == {label}


def test_csv_with_several_rows_of_one_picture(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "m0.png", "m1.png", "b.png")
    lines = ["path,label,split,mask", "a.png,ng,test,m0.png", "a.png,ng,test,m1.png"]
    file = write_csv(tmp_path / "p.csv", *lines, "b.png,,train,", "b.png,,test,")
    dataset = load_dataset(file)
    masks = (tmp_path / "m0.png", tmp_path / "m1.png")
    assert dataset.test[0] == Sample(tmp_path / "a.png", 1, masks, "defect")
    assert dataset.warnings == (
        f"1 line of a picture that another line has too; it counts once, e.g. {tmp_path / 'a.png'}",
        f"1 picture both in train and in test, e.g. {tmp_path / 'b.png'}",
    )
    write_csv(file, *lines, "a.png,ok,test,")
    with pytest.raises(DatasetError, match=r"line 4: .*a\.png has another label"):
        load_dataset(file)


def test_csv_oddities_are_reported_not_fatal(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png")
    file = write_csv(
        tmp_path / "p.csv",
        "path,label,split,mask",
        "a.png,defect,train,",
        "b.png,defect,test,b_mask.png",
        "c.png,good,test,",
    )
    assert load_dataset(file).warnings == (
        f"1 picture left out, no such file, e.g. {tmp_path / 'c.png'}",
        f"1 mask left out, no such file, e.g. {tmp_path / 'b_mask.png'}",
        f"1 training picture labelled as a defect, e.g. {tmp_path / 'a.png'}",
    )


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["name,label", "a.png,0"], "the first line must name a column path or image"),
        (["path"], "lists no pictures"),
        (["path,label", "a.png,0", "a.png,broken"], r"line 3: label 'broken' is unknown; .* bad"),
        (["path,split", "a.png,val"], "line 2: split 'val' is unknown; write train or test"),
        (["path", "x.png", "y.png"], r"not one of 2 pictures exists, e\.g\. .*x\.png"),
    ],
)
def test_unusable_csv(tmp_path: Path, lines: list[str], reason: str) -> None:
    touch(tmp_path, "a.png")
    file = write_csv(tmp_path / "p.csv", *lines)
    with pytest.raises(DatasetError, match=rf"p\.csv.*{reason}") as caught:
        load_dataset(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"\x89PNG\xff\xfe\x00", b""])
def test_file_that_is_no_csv(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DatasetError, match=r"a\.png: (cannot be read as a CSV|the first line)"):
        load_dataset(tmp_path / "a.png")


# --- choosing ------------------------------------------------------------------------------------


def test_unknown_layout_lists_the_names(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=f"layout: unknown 'coco'.*{', '.join(LAYOUTS)}"):
        load_dataset(tmp_path, "coco")


@pytest.mark.parametrize("layout", ["auto", "mvtec"])
def test_root_of_several_categories(mvtec: Path, layout: str) -> None:
    touch(mvtec.parent / "cable", "train/good/0.png")
    with pytest.raises(
        DatasetError, match=r"holds the categories bottle, cable; .* --category bottle"
    ):
        load_dataset(mvtec.parent, layout)
    assert load_dataset(mvtec.parent, layout, "bottle") == load_dataset(mvtec, layout)
    with pytest.raises(DatasetError, match="no category 'pill'; categories here: bottle, cable"):
        load_dataset(mvtec.parent, layout, "pill")


def test_visa_category_must_be_chosen(visa: Path) -> None:
    with pytest.raises(DatasetError, match="categories candle, pcb1; choose one"):
        load_dataset(visa)
    with pytest.raises(DatasetError, match="no category 'pcb9'; categories here: candle, pcb1"):
        load_dataset(visa, category="pcb9")
    assert len(load_dataset(visa, "folder", "pcb1").train) == 4  # not VisA, because it was said so


def test_only_object_of_visa_needs_no_category(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    write_csv(
        tmp_path / "split_csv/1cls.csv", "object,split,label,image,mask", "cap,train,normal,a.png,"
    )
    assert load_dataset(tmp_path).name == "cap"


@pytest.mark.parametrize(
    ("layout", "reason"),
    [
        ("mvtec", "MVTec layout needs a folder train/good"),
        ("mpdd", "MPDD layout needs a folder train/good"),
        ("btad", "BTAD layout needs a folder train/ok"),
        ("visa", "VisA layout needs a file split_csv/1cls.csv"),
        ("csv", "CSV layout needs a CSV file, this is a folder"),
    ],
)
def test_named_layout_that_is_not_there(tmp_path: Path, layout: str, reason: str) -> None:
    touch(tmp_path, "a.png")
    with pytest.raises(DatasetError, match=reason):
        load_dataset(tmp_path, layout)
    file = write_csv(tmp_path / "p.csv", "path", "a.png")
    with pytest.raises(DatasetError, match="MVTec layout needs a folder, this is a file"):
        load_dataset(file, "mvtec")


def test_half_a_data_set_is_not_taken_for_good_pictures(tmp_path: Path) -> None:
    touch(tmp_path, "train/0.png", "test/broken/0.png")
    with pytest.raises(
        DatasetError, match=r"not every picture .* is a good one: it has a folder 'test'"
    ):
        load_dataset(tmp_path)
    assert len(load_dataset(tmp_path, "folder").train) == 2


# --- real data -----------------------------------------------------------------------------------


@pytest.mark.skipif(not DATA.exists(), reason="the shared pictures are not here")
@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("mvtec/bottle", "209 training pictures, 83 test pictures (63 defects, 63 masks)"),
        ("mvtec/transistor", "213 training pictures, 100 test pictures (40 defects, 40 masks)"),
        ("magnetic_tile", "320 training pictures, 312 test pictures (192 defects, 192 masks)"),
        ("screw", "320 training pictures, 160 test pictures (119 defects, 0 masks)"),
    ],
)
def test_real_data(folder: str, message: str) -> None:
    dataset = load_dataset(DATA / folder)
    assert dataset.message == f"MVTec layout: {message}"
    assert dataset.warnings == ()
