"""Command-line options made from :class:`fapm.Config`, so that every setting is defined once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from typing import Annotated, Any, Literal, TypeAlias, get_args, get_origin

import typer

from fapm.cli import ending, panels
from fapm.config import PRESETS, Config
from fapm.engines.base import EngineName, Runtime

Command: TypeAlias = "Callable[..., None]"


def config_options(command: Command) -> Command:
    """Give ``command`` a ``--preset`` and an option for every field of :class:`Config`.

    The command takes the result as its argument ``config``.
    """
    return some_config_options(tuple(Config.model_fields))(command)


def some_config_options(
    fields: Collection[str], preset: str = "fast", **defaults: Any
) -> Callable[[Command], Command]:
    """Do as :func:`config_options` for ``fields`` only, with another preset or other defaults."""
    return functools.partial(_with_config_options, tuple(fields), preset, defaults)


def _with_config_options(
    fields: Collection[str], default: str, defaults: dict[str, Any], command: Command
) -> Command:
    preset = inspect.Parameter(
        "preset",
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[
            str,
            typer.Option(help=f"named set of settings: {' | '.join(PRESETS)}", show_default=True),
        ],
    )
    knobs = [_knob(name) for name in fields]

    @functools.wraps(command)
    def with_config(*args: Any, **kwargs: Any) -> None:
        given = {name: kwargs.pop(name) for name in fields}
        overrides = {name: value for name, value in given.items() if value is not None}
        if "layers" in overrides:
            overrides["layers"] = tuple(overrides["layers"].split(","))
        config = Config.create(kwargs.pop("preset"), **{**defaults, **overrides})
        command(*args, config=config, **kwargs)

    own = [
        p
        for name, p in inspect.signature(command, eval_str=True).parameters.items()
        if name != "config"
    ]
    _set_parameters(with_config, [*own, preset, *knobs])
    return with_config


def runtime_options(command: Command) -> Command:
    """Give ``command`` the options of :class:`fapm.engines.base.Runtime`.

    The command takes the result as its argument ``runtime``.
    """
    kinds: dict[str, tuple[Any, Any, str]] = {
        "engine": (
            str,
            "auto",
            f"engine that runs the detector: {' | '.join(get_args(EngineName))}",
        ),
        "hint": (
            str,
            "latency",
            "latency: finish each picture as early as possible | throughput: finish as many "
            "pictures as possible",
        ),
        "threads": (int | None, None, "threads of inference; default: one per core"),
        "providers": (
            str | None,
            None,
            "providers of ONNX Runtime, separated by commas, e.g. CUDAExecutionProvider",
        ),
    }
    knobs = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=default,
            annotation=Annotated[
                kind, typer.Option(f"--{name}", help=text, rich_help_panel=panels.ENGINE)
            ],
        )
        for name, (kind, default, text) in kinds.items()
    ]

    @functools.wraps(command)
    def with_runtime(*args: Any, **kwargs: Any) -> None:
        given = {name: kwargs.pop(name) for name in kinds}
        if given["providers"] is None:
            del given["providers"]
        else:
            given["providers"] = tuple(given["providers"].split(","))
        command(*args, runtime=Runtime(**given), **kwargs)

    own = [
        p
        for name, p in inspect.signature(command, eval_str=True).parameters.items()
        if name != "runtime"
    ]
    _set_parameters(with_runtime, [*own, *knobs])
    return with_runtime


def one_line_errors(command: Command) -> Command:
    """Turn whatever ends a command into one line on stderr and an exit code (``ending``)."""

    @functools.wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except typer.Exit:
            raise
        except (Exception, KeyboardInterrupt) as error:
            raise typer.Exit(ending.explain(error)) from error

    _set_parameters(guarded, list(inspect.signature(command, eval_str=True).parameters.values()))
    return guarded


def _knob(name: str) -> inspect.Parameter:
    field = Config.model_fields[name]
    flag = name.replace("_", "-")
    kind = field.annotation
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    names = [f"--{flag}/--no-{flag}"] if kind is bool else [f"--{flag}"]
    option = typer.Option(
        *names,
        help=f"{field.description}{_default(field.default)}",
        show_default=False,
        metavar="|".join(choices) or None,
        rich_help_panel=panels.of_field(name),
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[_option_type(kind), option],
    )


def _default(value: object) -> str:
    """The default, as shown after the description of a setting.

    Empty for a setting whose default is no value: its description says what happens then.
    """
    if value is None or value == ():
        return ""
    shown = ("off", "on")[value] if isinstance(value, bool) else value
    return f" [fast: {shown}]"


def _option_type(kind: Any) -> Any:
    """The type that typer parses. :class:`Config` checks the value and names the field."""
    plain = {member for member in (kind, *get_args(kind)) if member in (bool, int, float)}
    return (plain.pop() if plain else str) | None


def _set_parameters(function: Callable[..., None], parameters: list[inspect.Parameter]) -> None:
    keyword_only = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    function.__signature__ = inspect.Signature(keyword_only)  # type: ignore[attr-defined]
    # typer reads annotations through typing.get_type_hints.
    function.__annotations__ = {p.name: p.annotation for p in keyword_only}
