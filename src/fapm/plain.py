"""Plain values: those that JSON can hold, checks of values that are read, and short text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from fapm.errors import BundleError

# How a part of a bundle is written: plain JSON, and tensors by their names in the bundle.
Tensors = Mapping[str, NDArray[Any]]
Described = tuple[dict[str, Any], Tensors]

# What is raised where a value is of another kind than the code that reads it expects.
MALFORMED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)

_NAMED = 5  # of the things that a line lists


def finite(value: float) -> float | None:
    """The value, or None where JSON has no number for it."""
    return value if math.isfinite(value) else None


def first_few(names: Sequence[str]) -> str:
    """Names for a line that people read: at most five, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def require(sound: bool, otherwise: str) -> None:
    """Refuse what is not sound.

    Raises
    ------
    BundleError
        It is not; ``otherwise`` is the message.
    """
    if not sound:
        raise BundleError(otherwise)


def texts(values: Any) -> tuple[str, ...]:
    """A list of text, as a tuple.

    Raises
    ------
    BundleError
        It is something else.
    """
    sound = isinstance(values, list) and all(isinstance(value, str) for value in values)
    require(sound, "names are not a list of text")
    return tuple(values)


def size(value: Any) -> tuple[int, int] | None:
    """A height and a width in pixels, both above 1; None stays None.

    Raises
    ------
    BundleError
        It is something else.
    """
    if value is None:
        return None
    sound = len(value) == 2 and all(isinstance(n, int) and n > 1 for n in value)
    require(sound, "picture size missing")
    return value[0], value[1]


def reason(error: Exception) -> str:
    """Why a value is not what was expected, in one line of at most 200 characters."""
    text = " ".join(str(error).split())[:200] or type(error).__name__
    return f"{text} is missing" if isinstance(error, KeyError) else text


def shortened(text: str, most: int = 60) -> str:
    """Text in quotes, without its middle where it has more than so many characters."""
    if len(text) > most:
        half = (most - 3) // 2
        text = f"{text[:half]}...{text[-half:]}"
    return repr(text)
