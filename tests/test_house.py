"""The house stays as it was built: packages in one order, small modules, short functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "fapm"
# A package imports only from those in the lines above its own, and modules of its own.
ORDER = (
    ("_version", "_threads", "errors", "progress", "rules"),
    ("plain", "config"),
    ("system",),
    ("pictures", "memory"),
    ("datasets", "frames"),
    ("encoder",),
    ("bundle",),
    ("graph",),
    ("engines",),
    ("training", "inspection"),
    ("fitting", "updating"),
    ("estimator",),
    ("detector",),
    ("measure",),
    ("reports",),
    ("compare", "reproduce", "anomalib"),
    ("cli",),
    ("__main__",),
)
FLOOR = {name: floor for floor, names in enumerate(ORDER) for name in names}
MODULES = {
    path.relative_to(SOURCE).with_suffix("").parts: path
    for path in sorted(SOURCE.rglob("*.py"))
    if path.name != "__init__.py"
}
MOST_LINES, MOST_PARAMETERS = 80, 8
FEWEST_MODULES, MOST_MODULES = 3, 10


def imported(path: Path) -> Iterator[tuple[str, ...]]:
    """The modules of this project that a module imports, also inside its functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        parts = tuple(node.module.split("."))
        if parts[0] != "fapm":
            continue
        for alias in node.names:
            whole = (*parts[1:], alias.name)
            yield whole if whole in MODULES else parts[1:]


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            yield node


@pytest.mark.parametrize("module", MODULES, ids=".".join)
def test_imports_point_down(module: tuple[str, ...]) -> None:
    floor = FLOOR[module[0]]
    for other in imported(MODULES[module]):
        if other and other[0] != module[0]:
            assert FLOOR[other[0]] < floor, f"{'.'.join(module)} imports {'.'.join(other)}"


def test_no_module_imports_itself_by_a_way_round() -> None:
    edges = {
        module: {other for other in imported(path) if other in MODULES}
        for module, path in MODULES.items()
    }
    done: set[tuple[str, ...]] = set()
    while ready := {m for m in edges if m not in done and edges[m] <= done}:
        done |= ready
    assert done == set(edges), f"in a circle: {sorted('.'.join(m) for m in edges.keys() - done)}"


def test_packages_have_few_modules() -> None:
    packages = {module[:-1] for module in MODULES}
    for package in packages - {()}:
        count = sum(module[:-1] == package for module in MODULES)
        assert FEWEST_MODULES <= count <= MOST_MODULES, f"{'.'.join(package)}: {count} modules"


@pytest.mark.parametrize("module", MODULES, ids=".".join)
def test_functions_are_short(module: tuple[str, ...]) -> None:
    for function in functions(MODULES[module]):
        first = function.body[0].lineno if module[:1] == ("cli",) else function.lineno
        lines = (function.end_lineno or 0) - first + 1
        assert lines <= MOST_LINES, f"{function.name}: {lines} lines"
        arguments = function.args
        count = len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)
        own = bool(arguments.args) and arguments.args[0].arg in ("self", "cls")
        if module[0] != "cli":
            assert count - own <= MOST_PARAMETERS, f"{function.name}: {count - own} parameters"
