"""Help in groups: every setting stands once, under the package that it changes."""

from __future__ import annotations

import pytest

from conftest import Command
from fapm.config import GROUPS, Config


def sections(text: str) -> dict[str, list[str]]:
    """By the title of a section: the names of its options, in their order."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.endswith(":") and not line.startswith(" "):
            title = line.removesuffix(":")
            found[title] = []
        elif line.startswith("  -"):
            names = line.split("  ")[1].split()
            found[title].append(next(n for n in names if n.startswith("--")))
    return found


def flags(fields: tuple[str, ...]) -> set[str]:
    return {f"--{name.replace('_', '-')}" for name in fields}


def test_every_field_is_in_one_group() -> None:
    grouped = [name for fields in GROUPS.values() for name in fields]
    assert sorted(grouped) == sorted(Config.model_fields)


def test_the_help_of_fit_begins_with_what_matters_and_goes_on_by_packages(run: Command) -> None:
    shown = sections(run("fit", "--help").out)
    assert list(shown) == ["Arguments", "Start with these", "Options", "Frame", "Encoder",
                           "Memory", "Fit", "Engine"]  # fmt: skip
    first = shown["Start with these"]
    assert first == ["--output", "--preset", "--tile", "--align", "--false-positive-rate"]
    for group, fields in GROUPS.items():
        assert set(shown[group.capitalize()]) == flags(fields) - set(first)
    assert set(shown["Engine"]) == flags(("engine", "hint", "threads", "providers"))
    listed = [flag for options in shown.values() for flag in options]
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize("command", ["evaluate", "audit", "reproduce table1"])
def test_other_commands_show_the_same_groups(run: Command, command: str) -> None:
    shown = sections(run(*command.split(), "--help").out)
    assert "--output" not in shown["Frame"]
    assert set(shown["Frame"]) == flags(GROUPS["frame"])
    assert "--preset" in shown["Options"]


def test_help_is_plain_text(run: Command) -> None:
    assert run("fit", "--help").out.isascii()
