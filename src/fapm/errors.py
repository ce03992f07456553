"""Errors on the user's side: one line that says what to type instead, no traceback."""

from __future__ import annotations

from collections.abc import Sequence


class FapmError(Exception):
    """Base of every error a user can cause and mend. Its message is one complete line.

    Examples
    --------
    >>> import fapm
    >>> try:
    ...     fapm.load("lost.fapm")
    ... except fapm.FapmError as error:
    ...     print(error)
    lost.fapm: no such file; check the path
    """


class ConfigError(FapmError, ValueError):
    """A knob has an unknown or contradictory value; the message names the field."""


class ImageError(FapmError, ValueError):
    """A picture cannot be used; the message names the file."""


class MaskError(ImageError):
    """A mask can be read, but does not say where its picture's defect is."""


class RoiError(FapmError, ValueError):
    """A region of interest cannot be read, does not fit the pictures, or leaves nothing."""


class DatasetError(FapmError, ValueError):
    """A folder or file list is not a data set that can be used."""


class CategoryError(DatasetError):
    """A folder holds several data sets, ``names`` below it; one has to be chosen."""

    def __init__(self, message: str, names: Sequence[str]) -> None:
        super().__init__(message)
        self.names = tuple(names)


class EncoderError(FapmError):
    """An encoder or its weights cannot be had."""


class EngineError(FapmError):
    """An engine is not installed, or cannot run what it is given."""


class BundleError(FapmError):
    """A bundle is missing, damaged, hostile or of a newer format."""


class OutputError(FapmError):
    """A result cannot be written."""


class DriftError(FapmError):
    """Drift cannot be watched, or a saved state is not one of this fit."""


class NotFittedError(FapmError, ValueError, AttributeError):
    """The detector has to be fitted or loaded first.

    A ``ValueError`` and an ``AttributeError`` as scikit-learn's is: ``hasattr(d, "threshold_")``.
    """
