"""The interface that scikit-learn asks of an estimator; it is imported only when it asks.

See docs/scikit-learn.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fapm.config import Config
from fapm.errors import ConfigError, DatasetError

_PREFIX = "config__"


def config_params(config: Config) -> dict[str, Any]:
    """Each field as ``config__resize``."""
    return {_PREFIX + name: value for name, value in config}


def changed_config(config: Config, params: Mapping[str, Any]) -> Config:
    """``config`` or the one in ``params``, with the fields in ``params`` replaced.

    Raises
    ------
    ConfigError
        No config, or a value out of range.
    """
    fields = {n.removeprefix(_PREFIX): v for n, v in params.items() if n.startswith(_PREFIX)}
    base = params.get("config", config)
    if not isinstance(base, Config):
        raise ConfigError(f"config: {base!r} is not a Config; make one with Config.create")
    if not fields:
        return base
    kept = dict(base)
    if fields.get("tile") is not None:
        kept.pop("resize")  # tiles use none; one that is in `params` is judged
    return Config.create(**{**kept, **fields})


def good_ones(source: object, y: ArrayLike) -> list[Any]:
    """The pictures of ``source`` that ``y`` calls good.

    Parameters
    ----------
    source
        pictures, one for each label.
    y
        0 good, 1 defect; ``[N]``.

    Raises
    ------
    DatasetError
        Labels other than 0 and 1, another number of them, or none that is good.
    """
    if isinstance(source, (str, Path)) or not isinstance(source, Iterable):
        raise DatasetError("y: labels belong to a list of pictures, not to a folder")
    pictures, labels = list(source), np.asarray(y)
    if labels.shape != (len(pictures),):
        raise DatasetError(f"y: {labels.shape} is not the shape of {len(pictures)} labels")
    if not np.isin(labels, (0, 1)).all():
        raise DatasetError("y: labels must be 0 (good) or 1 (defect)")
    good = [picture for picture, label in zip(pictures, labels, strict=True) if label == 0]
    if not good:
        raise DatasetError("y: no picture is labelled 0 (good), and only those are fitted on")
    return good


def tags() -> Any:
    """A classifier of two classes whose input scikit-learn must not check.

    With a classifier, cross-validation keeps both classes in each part, and scorers know that 1 is
    what ``decision_function`` is high for.
    """
    from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

    return Tags(
        estimator_type="classifier",
        target_tags=TargetTags(required=False),
        classifier_tags=ClassifierTags(multi_class=False),
        input_tags=InputTags(two_d_array=False, three_d_array=True, string=True),
        no_validation=True,
    )
