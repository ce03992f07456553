"""``fapm doctor``: what this machine offers. It imports nothing that may be broken."""

from __future__ import annotations

from fapm import doctor

_WIDTH = 24


def doctor_command() -> None:
    """Say what this machine offers."""
    for name, value in doctor.examine():
        print(f"{name:<{_WIDTH}}{value}", flush=True)
