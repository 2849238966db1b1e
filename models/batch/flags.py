"""Which flags of a command line belong to which script."""

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches

from models.run import InputError


def sort_flags(
    arguments: Sequence[str],
    own: Collection[str],
    scripts: Mapping[str, Collection[str]],
    fixed: Collection[str],
) -> tuple[list[str], dict[str, list[str]]]:
    """Splits a command line into the flags of process_folder.py and those of the scripts it runs.

    A flag that several scripts have goes to each of them.

    Args:
        own: names of the flags of process_folder.py.
        scripts: names of the flags of each script.
        fixed: flags of the scripts that process_folder.py sets itself.

    Returns:
        own flags with their values, and the flags with their values of each script.

    Raises:
        InputError: no script has the flag, or it is set by process_folder.py.
    """
    kept: list[str] = []
    sorted_flags: dict[str, list[str]] = {script: [] for script in scripts}
    every = set(own).union(*scripts.values())
    targets = [kept]
    for argument in arguments:
        if argument.startswith("--"):
            name = _name_of(argument, every)
            owners = [script for script, names in scripts.items() if name in names]
            if name in own or name.startswith("help"):
                targets = [kept]
            elif name in fixed:
                raise InputError(
                    f"--{name} is set for each clip by process_folder.py; leave it out"
                )
            elif not owners:
                near = get_close_matches(name, every, 1)
                advice = f"; did you mean --{near[0]}?" if near else ""
                raise InputError(f"no script has a flag --{name}{advice}")
            else:
                targets = [sorted_flags[script] for script in owners]
        for target in targets:
            target.append(argument)
    return kept, sorted_flags


def _name_of(argument: str, known: Collection[str]) -> str:
    """Name of a flag in a command line: ``--no-refine`` and ``--refine=x`` are ``refine``."""
    name = argument[2:].split("=", 1)[0].replace("-", "_")
    return name.removeprefix("no_") if name not in known else name
