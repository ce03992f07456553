"""Options that exclude each other, and options that a command cannot take: once, for all.

Everything else composes. ``docs/options.md`` prints these tables, and a test runs every pair.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple


class Rule(NamedTuple):
    """Two options, or a command and an option, that do not go together.

    Attributes
    ----------
    one, other
        fields of :class:`fapm.Config`; ``one`` may be a command.
    reason
        a sentence's second half: why not.
    """

    one: str
    other: str
    reason: str


# Pairs of options. The first is named first in the message.
OPTIONS = (
    Rule("tile", "keep_aspect", "tiles keep the shape of pictures anyway"),
    Rule("tile", "resize", "tiles are cut from pictures as they are; --tile-scale shrinks them"),
    Rule("tile", "crop", "tiles cover the whole picture; --roi leaves parts of it out"),
    Rule("tile", "align", "only whole, square frames are registered"),
    Rule("tile", "rotations", "each place has its own memory, and turned parts change place"),
    Rule("tile", "coarse_upsampling", "row-order is for the paper's square frames"),
    Rule("keep_aspect", "crop", "a crop is square; --roi leaves parts of a picture out"),
    Rule("keep_aspect", "align", "only square frames are registered"),
    Rule("keep_aspect", "coarse_upsampling", "row-order is for the paper's square frames"),
    Rule("rotations", "align", "aligned parts all lie one way"),
    Rule("rotations", "flat_field", "the light stays where it is when a copy is turned"),
)

# Stands for every stage of a frame, such as ``light``.
STAGES = "stages"
COMMANDS = (
    Rule("audit", "rotations", "compares the pictures as they lie"),
    Rule("audit", "augment", "compares the pictures as they are"),
    Rule("audit", "robust", "leaves no picture out"),
    Rule("audit", "precision", "compares in fp32"),
    Rule("reproduce", "tile", "makes the paper's tables, with square frames"),
    Rule("reproduce", "keep_aspect", "makes the paper's tables, with square frames"),
    Rule("benchmark", "tile", "measures PatchCore beside it, on square frames"),
    Rule("benchmark", "keep_aspect", "measures PatchCore beside it, on square frames"),
    Rule("anomalib", "tile", "hands over square frames"),
    Rule("anomalib", "keep_aspect", "hands over square frames"),
    Rule("anomalib", STAGES, "hands over frames as they are"),
    Rule("export", STAGES, "writes the graph, which begins at the finished frame"),
)


def excluded(given: Collection[str]) -> Iterator[str]:
    """One line for each pair of options that excludes another; ``given`` are those in use."""
    for one, other, reason in OPTIONS:
        if one in given and other in given:
            yield f"{one}: does not go with {other}: {reason}; use either"


def refused(command: str, given: Collection[str], stages: Collection[str]) -> Iterator[str]:
    """One line for each option in use that a command cannot take.

    Parameters
    ----------
    stages
        names of the stages of a frame that are in use.
    """
    for one, other, reason in COMMANDS:
        if one != command:
            continue
        for option in stages if other == STAGES else {other} & set(given):
            yield f"{option}: {command} {reason}; leave it out"


def markdown(stages: Collection[str]) -> str:
    """Both tables as Markdown; ``stages`` are the names of all stages of a frame."""
    rows: list[tuple[Any, ...]] = [("option", "does not go with", "because"), ("---",) * 3]
    rows += [(_flag(one), _flag(other), reason) for one, other, reason in OPTIONS]
    options = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    rows = [("command", "cannot take", "because it"), ("---",) * 3]
    every = ", ".join(map(_flag, stages))
    rows += [
        (f"`{one}`", every if other == STAGES else _flag(other), reason)
        for one, other, reason in COMMANDS
    ]
    return f"{options}\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def _flag(option: str) -> str:
    return f"`--{option.replace('_', '-')}`"
