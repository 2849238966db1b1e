"""Settings of a script: a frozen dataclass whose fields are flags; options of rooms are nested in it.

A nested options class ``mvs: StereoOptions`` gives flags such as ``--mvs.longest_side``. They
are left out of ``--help`` and listed by ``--help_all``. ``Annotated[X, Plain()]`` gives the fields of
``X`` flags without the prefix, which ``--help`` shows.
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, field, fields, is_dataclass, make_dataclass, replace
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

Settings = TypeVar("Settings")

_HELP_ALL = ("--help_all", "--help-all")
_LAST_LINE = "All other options, with the sizes and thresholds of each stage: --help_all"


@dataclass(frozen=True)
class Plain:
    """Marks a field of nested options whose own fields are flags without its prefix."""

    shown: tuple[str, ...] = ()
    """Own fields that ``--help`` shows; all that lose the prefix if empty."""
    names: tuple[str, ...] = ()
    """Own fields that lose the prefix; all if empty."""

    def renames(self, name: str) -> bool:
        """Whether a field loses the prefix."""
        return not self.names or name in self.names

    def shows(self, name: str) -> bool:
        """Whether ``--help`` shows a field."""
        return self.renames(name) and (not self.shown or name in self.shown)


def parse_settings(
    default: Settings,
    arguments: list[str] | None = None,
    preset: Mapping[str, object] | None = None,
) -> Settings:
    """The settings with the values that the command line changes.

    Args:
        default: a frozen dataclass; its values are those of flags that are not given.
        arguments: the command line without the script's name; that of the process if not given.
        preset: values that ``--preview`` sets, see ``apply_preset``.

    Raises:
        SystemExit: help was asked for, or a flag cannot be used.
    """
    import tyro  # the library needs no command line

    arguments = sys.argv[1:] if arguments is None else arguments
    if preset is not None and "--preview" in arguments:
        # as defaults: each flag that is given counts more
        default = apply_preset(default, preset)
    whole = any(argument in _HELP_ALL for argument in arguments)
    # tyro knows only --help; which fields it shows is decided below.
    if whole:
        arguments = ["--help"]
    short = not whole and any(argument in ("-h", "--help") for argument in arguments)
    kind = _with_flags(type(default), short)
    given = _converted(default, kind)
    try:
        parsed = tyro.cli(kind, default=given, args=arguments, use_underscores=True)
    except SystemExit:
        # argparse ends the process after help: the last line follows its text.
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
            is_plain = plain is not None and plain.renames(name)
            flat[prefix + (name if is_plain else f"{own.name}.{name}")] = inner
    return flat


def apply_preset(settings: Settings, preset: Mapping[str, object]) -> Settings:
    """The settings with the values of a preset.

    Args:
        preset: values by the names of fields; ``mvs.longest_side`` is a field of nested options.
    """
    for name, value in preset.items():
        settings = _replace_field(settings, name.split("."), value)
    return settings


def _replace_field(settings: Any, names: list[str], value: object) -> Any:
    if len(names) > 1:
        value = _replace_field(getattr(settings, names[0]), names[1:], value)
    return replace(settings, **{names[0]: value})


def flag_names(kind: type) -> set[str]:
    """Names of the flags of a settings class, as ``flatten_settings`` gives them."""
    names = set()
    for own, inner, plain in _fields_of(kind):
        if not is_dataclass(inner):
            names.add(own.name)
            continue
        for name in flag_names(inner):
            is_plain = plain is not None and plain.renames(name)
            names.add(name if is_plain else f"{own.name}.{name}")
    return names


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
        # Annotated[X, ...] keeps X as its origin.
        bare = getattr(hint, "__origin__", hint)
        yield own, bare if is_dataclass(bare) else hint, marks[0] if marks else None


def _with_flags(kind: type, short: bool, mark: Plain | None = None, nested: bool = False) -> type:
    """The class as tyro shall read it.

    Args:
        short: hide the fields of nested options.
        mark: names the fields of ``kind`` that ``--help`` shows, and that have no prefix.
        nested: ``kind`` is nested in other settings.
    """
    import tyro

    own = []
    for part, hint, inner in _fields_of(kind):
        if is_dataclass(hint):
            hint = _with_flags(hint, short, inner, nested=True)
            if inner is not None and not inner.names:
                hint = Annotated[hint, tyro.conf.arg(name="")]
        elif nested and short and not (mark and mark.shows(part.name)):
            hint = Annotated[hint, tyro.conf.Suppress]
        else:
            has_prefix = mark is None or part.name not in mark.names
            hint = _with_metavar(hint, None if has_prefix else False)
        own.append((part.name, hint, field(kw_only=True)))
    # a subclass, so that tyro finds the docstrings of the fields
    derived = make_dataclass(kind.__name__, own, bases=(kind,), frozen=True)
    derived.__doc__ = kind.__doc__
    return derived


def _with_metavar(hint: Any, prefix_name: bool | None) -> Any:
    """The type of a field with its flag's prefix; help shows a value that may be None by the type
    of the value alone."""
    import tyro

    marks = list(getattr(hint, "__metadata__", ()))
    kinds = get_args(hint.__origin__ if marks else hint)
    given = next((mark for mark in marks if hasattr(mark, "help_behavior_hint")), None)
    changes: dict[str, Any] = {"prefix_name": prefix_name}
    if len(kinds) == 2 and type(None) in kinds:
        (kind,) = (kind for kind in kinds if kind is not type(None))
        changes |= {"metavar": kind.__name__.upper(), "help_behavior_hint": _show_default}
    if given is None:
        return Annotated[hint, tyro.conf.arg(**changes)]
    return Annotated[hint.__origin__, replace(given, **changes)]


def _show_default(default: str) -> str:
    return "" if default == "None" else f"(default: {default})"


def _converted(value: object, kind: type) -> Any:
    """A dataclass with the same values in the class ``kind`` and its nested classes."""
    values = {}
    for part, hint, _ in _fields_of(kind):
        inner = getattr(value, part.name)
        values[part.name] = _converted(inner, hint) if is_dataclass(hint) else inner
    return kind(**values)
