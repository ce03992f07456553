"""Write a table as Markdown, CSV, JSON and HTML."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from fapm.reports.templates import render
from fapm.system.files import make_directory, replaced_when_complete

FORMATS = ("md", "csv", "json", "html")


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes
    ----------
    key
        key of the value in a row.
    group
        heading that several neighbouring columns share, e.g. one metric.
    digits
        digits behind the point; None for text.
    beside
        key of a difference that stands in brackets behind the value.
    """

    key: str
    label: str
    group: str = ""
    digits: int | None = None
    beside: str | None = None

    @property
    def full_label(self) -> str:
        """The label for a table without a line of groups above it."""
        return f"{self.group}: {self.label}" if self.group else self.label

    def text(self, row: Mapping[str, Any]) -> str:
        """Text of a row's cell; ``-`` if there is no value."""
        value = row.get(self.key)
        if value is None:
            return "-"
        if self.digits is None:
            return str(value)
        difference = None if self.beside is None else row.get(self.beside)
        behind = "" if difference is None else f" ({difference:+.2f})"
        return f"{value:,.{self.digits}f}{behind}"


@dataclass(frozen=True)
class Document:
    """A table with its settings and notes.

    Attributes
    ----------
    heading
        heading of the table.
    facts
        settings, machine and date, by name.
    rows
        values by column; ``error`` replaces the values, and ``strong`` marks averages.
    notes
        remarks for the reader, one sentence each.
    data
        everything, as plain JSON.
    """

    title: str
    heading: str
    facts: Mapping[str, str]
    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]
    notes: Sequence[str]
    data: Mapping[str, Any] = field(default_factory=dict)

    def cells(self, row: Mapping[str, Any]) -> list[str]:
        """Texts of the cells of a row."""
        return [column.text(row) for column in self.columns]


def write(folder: Path, stem: str, document: Document) -> list[Path]:
    """Write a document in every one of :data:`FORMATS`, each file whole or not at all.

    Raises
    ------
    OutputError
        The folder or a file cannot be written.
    """
    texts = (as_markdown(document), as_csv(document), as_json(document), as_html(document))
    make_directory(folder)
    written = []
    for suffix, text in zip(FORMATS, texts, strict=True):
        path = folder / f"{stem}.{suffix}"
        with replaced_when_complete(path) as file:
            file.write(text.encode("utf-8", errors="replace"))
        written.append(path)
    return written


def as_markdown(document: Document) -> str:
    """The document as Markdown, with a table in GitHub's form."""
    lines = [f"# {document.title}", ""]
    lines += [f"- {name}: {value}" for name, value in document.facts.items()]
    lines += ["", f"## {document.heading}", "", *markdown_table(document), ""]
    lines += [f"- {note}" for note in document.notes]
    return "\n".join(lines).rstrip() + "\n"


def markdown_table(document: Document) -> list[str]:
    """The lines of the table alone."""
    lines = [_line([column.full_label for column in document.columns])]
    lines.append(_line(["---" if c.digits is None else "--:" for c in document.columns]))
    for row in document.rows:
        cells = document.cells(row)
        if row.get("error"):
            cells = [cells[0], row["error"], *[""] * (len(cells) - 2)]
        elif row.get("strong"):
            cells[0] = f"**{cells[0]}**"
        lines.append(_line(cells))
    return lines


def as_csv(document: Document) -> str:
    """The table with full precision; a last column ``error``."""
    text = io.StringIO()
    keys = [key for c in document.columns for key in (c.key, c.beside) if key is not None]
    writer = csv.DictWriter(text, [*keys, "error"], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(document.rows)
    return text.getvalue()


def as_json(document: Document) -> str:
    """:attr:`Document.data`, indented."""
    return json.dumps(document.data, indent=2) + "\n"


def as_html(document: Document) -> str:
    """One page that loads no file, light or dark according to the reader's system."""
    groups = [(group, len(list(c))) for group, c in groupby(document.columns, lambda c: c.group)]
    firsts = {sum(span for _, span in groups[:n]) for n, (label, _) in enumerate(groups) if label}
    return render(
        "table.html.j2",
        {},
        document=document,
        groups=groups if len(groups) > 1 else [],
        columns=[
            {"label": c.label, "text": c.digits is None, "first": number in firsts}
            for number, c in enumerate(document.columns)
        ],
        rows=[
            {
                "cells": document.cells(row),
                "error": row.get("error"),
                "strong": row.get("strong", False),
            }
            for row in document.rows
        ],
    )


def _line(cells: Sequence[str]) -> str:
    escaped = [cell.replace("|", "\\|").replace("\n", " ") for cell in cells]
    return f"| {' | '.join(escaped)} |"
