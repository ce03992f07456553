"""docs/paper.md names files, functions, settings and options: all of them exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from fapm.config import Config

PAGE = Path(__file__).parents[2] / "docs" / "paper.md"
TEXT = PAGE.read_text("utf-8")
NAMES = sorted(set(re.findall(r"\[`([\w.]+)`\]\((\.\./[^)]+\.py)\)", TEXT)))


def defined(body: list[ast.stmt], name: str) -> list[ast.stmt] | None:
    """What lies in the class or function ``name`` of ``body``; None if there is no such name."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name:
            # Attributes that __init__ makes count as the class's own.
            made = [n for n in ast.walk(node) if isinstance(n, (ast.Assign, ast.AnnAssign))]
            return [*node.body, *made]
        targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
        for target in targets:
            if getattr(target, "id", getattr(target, "attr", None)) == name:
                return []
    return None


@pytest.mark.parametrize(("name", "file"), NAMES)
def test_a_name_is_in_its_file(name: str, file: str) -> None:
    module, *path = name.split(".")
    target = PAGE.parent / file
    assert target.stem == module
    body: list[ast.stmt] | None = ast.parse(target.read_text("utf-8")).body
    for part in path:
        body = defined(body or [], part)
        assert body is not None, f"{file} has no {part}"


def test_a_name_that_is_not_there_is_found_out() -> None:
    body = ast.parse((PAGE.parent / "../src/fapm/memory/bank.py").read_text("utf-8")).body
    bank = defined(body, "MemoryBank")
    assert bank is not None
    assert defined(bank, "keys") == []
    assert defined(bank, "key") is None
    assert defined(body, "Memory") is None


def test_the_page_covers_the_method() -> None:
    """Every module of the method is on it, and every link to code is a name that is checked."""
    linked = {Path(file).name for _, file in NAMES}
    method = (PAGE.parents[1] / "src" / "fapm" / "memory").glob("[!_]*.py")
    assert {path.name for path in method} <= linked
    assert len(re.findall(r"\]\([^)]+\.py\)", TEXT)) == len(
        re.findall(r"\[`[\w.]+`\]\([^)]+\.py\)", TEXT)
    )


def test_links_to_pages_exist() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)(?:#[^)]*)?\)", TEXT)
    assert len(links) > len(NAMES)
    for link in links:
        assert (PAGE.parent / link).exists(), link


def test_settings_and_options_exist() -> None:
    settings = re.findall(r'`(\w+) = "([\w-]+)"`', TEXT)
    assert settings
    for field, value in settings:
        Config.create(**{field: value})
    options = re.findall(r"(?<![\w-])--(?:no-)?([a-z][a-z-]*)", TEXT)
    known = {*Config.model_fields, "preset", "output"}
    assert {option.replace("-", "_") for option in options} <= known
