"""``fapm doctor``: what this machine offers."""

from __future__ import annotations

from fapm import console
from fapm.options import one_line_errors


@one_line_errors
def doctor_command() -> None:
    """Say what this machine offers."""
    from fapm import doctor

    console.print_facts([*doctor.examine()])
