"""CSV files as spreadsheets save them."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fapm.errors import DatasetError

_SAVE = "save it as 'CSV UTF-8'"
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_WINDOWS = "cp1252"


@dataclass(frozen=True)
class Row:
    """A line of a table: its number and its cells by lower-case column name."""

    line: int
    cells: dict[str, str]


@dataclass(frozen=True)
class Table:
    """Rows, and whether their letters beyond ASCII are a guess (Windows-1252)."""

    rows: tuple[Row, ...]
    guessed: bool


def read_table(file: Path, wanted: Sequence[str]) -> Table:
    """The lines of a CSV file, at least one, that has one of the columns ``wanted``.

    UTF-8, UTF-16 with a byte order mark, else Windows-1252. Cells are separated by commas,
    semicolons or tabs, or by what a first line ``sep=;`` says. Empty lines are skipped.

    Raises
    ------
    DatasetError
        The file cannot be read, has none of the columns, or no rows.
    """
    text, guessed = _decoded(file)
    separator, text, skipped = _separator(text)
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, restval="")
        columns = {name.strip().lower(): name for name in reader.fieldnames or ()}
        rows = [
            Row(
                reader.line_num + skipped,
                {key: cells[name].strip() for key, name in columns.items()},
            )
            for cells in reader
        ]
    except csv.Error as error:
        raise _unreadable(file, str(error)) from error
    if not any(column in columns for column in wanted):
        raise DatasetError(f"{file}: the first line must name a column {' or '.join(wanted)}")
    rows = [row for row in rows if any(row.cells.values())]
    if not rows:
        raise DatasetError(f"{file}: lists no pictures")
    return Table(tuple(rows), guessed)


def refuse_guess(file: Path, cell: str) -> DatasetError:
    """The error where a name that was decoded by a guess is that of no file."""
    return _unreadable(file, f"it is not UTF-8, and read as {_WINDOWS} there is no file {cell!r}")


def _decoded(file: Path) -> tuple[str, bool]:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DatasetError(f"{file}: cannot be read ({error.strerror})") from error
    encoding = next((e for mark, e in _BYTE_ORDER_MARKS.items() if data.startswith(mark)), None)
    if encoding is None and b"\0" in data:
        raise _unreadable(file, "it is no text, or UTF-16 without a byte order mark")
    guessed = encoding is None and not _is_utf8(data)
    try:
        return data.decode(_WINDOWS if guessed else encoding or "utf-8"), guessed
    except UnicodeDecodeError:
        raise _unreadable(file, "its letters are in an encoding that is not known") from None


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _unreadable(file: Path, reason: str) -> DatasetError:
    return DatasetError(f"{file}: cannot be read as a CSV file: {reason}; {_SAVE}")


def _separator(text: str) -> tuple[str, str, int]:
    """The separator of cells, the text without Excel's line on it, and 1 with such a line."""
    first, _, rest = text.partition("\n")
    said = first.strip("\r\"' ")
    if said.lower().startswith("sep=") and len(said) == len("sep=;"):
        return said[-1], rest, 1
    # Excel separates with semicolons where the decimal sign is a comma.
    return next((sign for sign in ";\t" if sign in first), ","), text, 0
