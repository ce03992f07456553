"""Help in groups: the options that matter first, those of the command, then a group per package."""

from __future__ import annotations

from typing import Any, ClassVar

from typer.core import TyperCommand

from fapm.config import GROUPS

ENGINE = "Engine"

_ARGUMENTS, _FIRST, _OWN = "Arguments", "Start with these", "Options"
_ORDER = (_ARGUMENTS, _FIRST, _OWN, *map(str.capitalize, GROUPS), ENGINE)


def of_field(name: str) -> str:
    """The group in which help lists a field of :class:`fapm.Config`."""
    return next(group for group, fields in GROUPS.items() if name in fields).capitalize()


class GroupedCommand(TyperCommand):
    """A command whose help lists its options by their ``rich_help_panel``, as plain text."""

    first: ClassVar[tuple[str, ...]] = ()

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and each group of options; ``ctx`` and ``formatter`` are click's."""
        groups: dict[str, list[tuple[str, str]]] = {name: [] for name in _ORDER}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                groups[self._group(parameter)].append(record)
        for name, records in groups.items():
            if records:
                with formatter.section(name):
                    formatter.write_dl(records)

    def _group(self, parameter: Any) -> str:
        if parameter.param_type_name == "argument":
            return _ARGUMENTS
        if parameter.name in self.first:
            return _FIRST
        return getattr(parameter, "rich_help_panel", None) or _OWN


class FitCommand(GroupedCommand):
    """``fapm fit``: with the five options that matter first."""

    first = ("output", "preset", "tile", "align", "false_positive_rate")
