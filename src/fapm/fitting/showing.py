"""Whether the good pictures of a fit show anything. No torch here."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fapm.frames.preparation import Frame

# Of the 256 grey levels that the upper byte of 16 bits has: what 10, 12 and 14 bits reach in them.
_UNSHIFTED = {4: 10, 16: 12, 64: 14}


class Showing:
    """Observations on the good pictures, gathered while they pass."""

    def __init__(self) -> None:
        self._first: NDArray[np.uint8] | None = None
        self._count = 0
        self._alike = True  # all of them
        self._plain = 0  # of one colour only
        self._alpha_ignored = 0
        self._brightest: list[int | None] = []

    def add(self, frame: Frame) -> None:
        """Look at one more."""
        if self._first is None:
            self._first = frame.pixels.copy()
        self._alike = self._alike and np.array_equal(self._first, frame.pixels)
        self._plain += bool((frame.pixels == frame.pixels[0, 0]).all())
        self._count += 1
        self._alpha_ignored += frame.alpha_ignored
        self._brightest.append(frame.brightest)

    def notes(self) -> list[str]:
        """Observations that a person should look at, one sentence each."""
        said = []
        if self._alpha_ignored:
            said.append(
                f"{_pictures(self._alpha_ignored)} of {self._count}: transparent everywhere; taken "
                "without the alpha channel"
            )
        if self._plain == self._count:
            said.append(
                f"{_pictures(self._count)} of one colour show nothing to learn: whatever is not of "
                "that colour is a defect; is the lens covered, or the alpha channel wrong?"
            )
        elif self._plain:
            said.append(f"nothing but one colour in {_pictures(self._plain)} of {self._count}")
        elif self._alike and self._count > 1:
            said.append(
                f"all {self._count} pictures look the same, so that anything else is a defect; "
                "give pictures of different parts"
            )
        known = [level for level in self._brightest if level is not None]
        if known and len(known) == self._count:
            said += _unshifted(max(known))
        return said


def _unshifted(brightest: int) -> list[str]:
    for levels, bits in _UNSHIFTED.items():
        if brightest < levels:
            return [
                f"these pictures of 16 bits use only {100 * levels / 256:.3g} % of the range, and "
                f"are dark: they look like {bits} bits in 16; shift them {16 - bits} bits to the "
                f"left (multiply by {1 << (16 - bits)})"
            ]
    return []


def _pictures(count: int) -> str:
    return f"{count} picture{'' if count == 1 else 's'}"
