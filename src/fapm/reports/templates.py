"""Render pages from the templates beside this module."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined


def render(template: str, filters: dict[str, Callable[..., Any]], **values: Any) -> str:
    """Render a page. All templates include ``style.css`` and so look alike."""
    environment = Environment(
        loader=FunctionLoader(_read),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters.update(filters)
    return environment.get_template(template).render(values)


def _read(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")
