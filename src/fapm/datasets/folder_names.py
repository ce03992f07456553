"""The meaning of a folder's name, or of a word in a table, for the pictures there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

# split: pictures of a data set, which may be good or not. mask: no pictures of parts.
Meaning = Literal["good", "bad", "split", "mask"]

# In lower case, without what separates words, in the languages that data sets and plants use.
_GOOD = """
    good ok normal pass passed io inordnung nominal healthy nondefective defectfree anomalyfree
    nodefect nodefects accepted accept conforming truegood gut gutteil gutteile gutbild gutbilder
    bon bons buono buoni bueno buenos 良品 正常 合格
"""
_BAD = """
    bad ko ng nok nio notok nichtok notgood nogood nogo def defect defects defective defectives
    defected anomaly anomalies anomalous abnormal abnormals fail fails failed failure failures
    fault faults faulty reject rejects rejected scrap error errors outlier outliers
    nonconforming damaged falsegood truebad falsebad
    schlecht schlechtteil schlechtteile schlechtbild schlechtbilder fehler
    fehlerhaft fehlerteil fehlerteile fehlerbild fehlerbilder defekt defekte ausschuss mangel
    nichtinordnung mauvais defaut défaut defauts défauts difetto difetti scarto malo malos
    defecto defectos 不良 不良品 异常 缺陷 次品 不合格
"""
_SPLIT = """
    train training trainset traindata trainval test tests testing testset testdata testpublic
    testprivate val valid validation validate eval evaluation positive positives negative
    negatives pos neg
"""
_MASK = """
    groundtruth groundtruths gt gts mask masks label labels labelmask annotation annotations
    annotated seg segmentation segmentations segmentationmask overlay overlays heatmap heatmaps
    anomalymap anomalymaps xyz depth pcd pointcloud
"""
_WORDS: dict[str, Meaning] = {
    **dict.fromkeys(_GOOD.split(), "good"),
    **dict.fromkeys(_BAD.split(), "bad"),
    **dict.fromkeys(_SPLIT.split(), "split"),
    **dict.fromkeys(_MASK.split(), "mask"),
}
# Words that change nothing: "bad parts", "test_images" and "NG_001" are bad, test and NG.
_NEUTRAL = """
    image images img imgs picture pictures pic pics photo photos part parts piece pieces sample
    samples copy json binary png jpg jpeg bmp
    data dataset set file files folder only all bild bilder teil teile product products
"""


def meaning(name: str) -> Meaning | None:
    """The kind of pictures in a folder of this name; None for an ordinary name.

    The whole name counts, not a word in it: ``label printer`` is a product, ``test rig`` a place.
    """
    return _WORDS.get("".join(word for word in _words(name) if word not in _NEUTRAL.split()))


def label_of(text: str) -> int | None:
    """0 for a word that means good, 1 for one that means a defect, None for any other."""
    if text in ("0", "1"):
        return int(text)
    return {"good": 0, "bad": 1}.get(meaning(text) or "")


def contrast(names: Iterable[str]) -> tuple[str, str] | None:
    """A good name and a bad one that are alike but for that: ``ok_front``, ``def_front``.

    Digits do not count. None where there is no such pair.
    """
    good: dict[tuple[str, ...], str] = {}
    bad: dict[tuple[str, ...], str] = {}
    for name in names:
        words = _words(name)
        for position, word in enumerate(words):
            rest = (*words[:position], *words[position + 1 :])
            if _WORDS.get(word) == "good":
                good.setdefault(rest, name)
            elif _WORDS.get(word) == "bad":
                bad.setdefault(rest, name)
    return next(((name, bad[rest]) for rest, name in good.items() if rest in bad), None)


def _words(name: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", name.casefold())
