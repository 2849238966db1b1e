"""Settings of a script: a frozen dataclass whose fields are flags; options of rooms are nested in it.

A nested options class ``stereo: StereoOptions`` gives flags such as ``--stereo.longest_side``. They
are left out of ``--help`` and listed by ``--help_all``. ``Annotated[X, Plain()]`` gives the fields of
``X`` flags without the prefix, shown by ``--help``; ``Plain("a", "b")`` does so for two of them.
"""

import sys
from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields, is_dataclass, make_dataclass
from typing import Annotated, Any, TypeVar, get_type_hints

Settings = TypeVar("Settings")

_HELP_ALL = ("--help_all", "--help-all")
_LAST_LINE = "All other options, with the sizes and thresholds of each stage: --help_all"


@dataclass(frozen=True, init=False)
class Plain:
    """Marks a field of nested options whose own fields are flags without its prefix."""

    names: tuple[str, ...]
    """Names of those fields; empty for all."""

    def __init__(self, *names: str):
        object.__setattr__(self, "names", names)


def parse_settings(default: Settings, arguments: list[str] | None = None) -> Settings:
    """The settings with the values that the command line changes.

    Args:
        default: a frozen dataclass; its values are those of flags that are not given.
        arguments: the command line without the script's name; that of the process if not given.

    Raises:
        SystemExit: help was asked for, or a flag cannot be used.
    """
    import tyro  # the library needs no command line

    arguments = sys.argv[1:] if arguments is None else arguments
    whole = any(argument in _HELP_ALL for argument in arguments)
    if whole:
        arguments = ["--help"]
    short = not whole and any(argument in ("-h", "--help") for argument in arguments)
    kind = _with_flags(type(default), short)
    given = _converted(default, kind)
    try:
        parsed = tyro.cli(kind, default=given, args=arguments, use_underscores=True)
    except SystemExit:
        if short:
            print(_LAST_LINE)
        raise
    return _converted(parsed, type(default))


def flatten_settings(settings: object, prefix: str = "") -> dict[str, object]:
    """Fields of a dataclass and of the options nested in it, by the names of their flags."""
    flat: dict[str, object] = {}
    for own, kind, plain in _fields_of(type(settings)):
        value = getattr(settings, own.name)
        if not is_dataclass(kind):
            flat[prefix + own.name] = value
            continue
        for name, inner in flatten_settings(value).items():
            flat[prefix + (name if _is_plain(plain, name) else f"{own.name}.{name}")] = inner
    return flat


def nested_options(settings: object) -> dict[str, object]:
    """The options classes nested in settings, by the name of their field."""
    return {
        own.name: getattr(settings, own.name)
        for own, kind, _ in _fields_of(type(settings))
        if is_dataclass(kind)
    }


def _fields_of(kind: type) -> Iterator[tuple[Field, Any, Plain | None]]:
    """Fields of a dataclass with their types, and their ``Plain`` mark where they have one."""
    hints = get_type_hints(kind, include_extras=True)
    for own in fields(kind):
        hint = hints[own.name]
        marks = [mark for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, Plain)]
        yield own, hint.__origin__ if marks else hint, marks[0] if marks else None


def _is_plain(mark: Plain | None, name: str) -> bool:
    return mark is not None and (not mark.names or name in mark.names)


def _with_flags(kind: type, short: bool) -> type:
    """The class as tyro shall read it: nested options with their prefixes, hidden where ``short``."""
    own = []
    for part, hint, mark in _fields_of(kind):
        if is_dataclass(hint):
            hint = _nested_with_flags(hint, mark, short)
        own.append((part.name, hint, field(kw_only=True)))
    return _derived(kind, own)


def _nested_with_flags(kind: type, mark: Plain | None, short: bool) -> type:
    import tyro

    own = []
    for part, hint, _ in _fields_of(kind):
        if _is_plain(mark, part.name):
            hint = Annotated[hint, tyro.conf.arg(prefix_name=False)]
        elif short:
            hint = Annotated[hint, tyro.conf.Suppress]
        own.append((part.name, hint, field(kw_only=True)))
    return _derived(kind, own)


def _derived(kind: type, own: list[tuple[str, Any, Field]]) -> type:
    # a subclass, so that tyro finds the docstrings of the fields
    derived = make_dataclass(kind.__name__, own, bases=(kind,), frozen=True)
    derived.__doc__ = kind.__doc__
    return derived


def _converted(value: object, kind: type) -> Any:
    """A dataclass with the same values in the class ``kind`` and its nested classes."""
    values = {}
    for part, hint, _ in _fields_of(kind):
        inner = getattr(value, part.name)
        values[part.name] = _converted(inner, hint) if is_dataclass(hint) else inner
    return kind(**values)
