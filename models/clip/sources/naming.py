"""Names with numbers in the order of the numbers."""

import re
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import TypeVar

Named = TypeVar("Named")
Key = list[tuple[int, int | Decimal | str]]

# A minus belongs to a number at the beginning of a name, and after an underscore, an equals sign or
# another minus; in frame-1 and 2024-01-05 it is a hyphen.
_SIGN = r"(?<![^_=-])-"
_WHOLE = re.compile(rf"((?:{_SIGN})?\d+)")
# Numbers in a row with dots, as of a version or a date, are no decimals.
_DECIMAL = re.compile(rf"((?:{_SIGN})?(?<![\d.])\d+\.\d+(?!\.?\d)|(?:{_SIGN})?\d+)")


def natural_key(name: str, decimals: bool = False) -> Key:
    """Sorting key under which frame2 comes before frame10, and frame_-2 before frame_-1.

    Args:
        decimals: whether a dot between digits is a decimal point.
    """
    pattern = _DECIMAL if decimals else _WHOLE
    parts = enumerate(pattern.split(name.lower()))
    return [(0, _read_number(part)) if k % 2 else (1, part) for k, part in parts if part]


def _read_number(text: str) -> int | Decimal:
    return Decimal(text) if "." in text else int(text)


def sort_naturally(items: Iterable[Named], name_of: Callable[[Named], str]) -> list[Named]:
    """Items in the order of the numbers in their names."""
    items = list(items)
    decimals = hold_decimals([name_of(item) for item in items])
    return sorted(items, key=lambda item: (natural_key(name_of(item), decimals), name_of(item)))


def hold_decimals(names: Iterable[str]) -> bool:
    """Whether dots between digits are decimal points, as in 0.5 and 0.25, or separate two numbers,
    as in 2.9 and 2.10.

    Programs write decimals without zeros at the end, and no second number with zeros in front.
    """
    found = [match for name in names for match in _DECIMAL.findall(name.lower()) if "." in match]
    pairs = [match.split(".") for match in found]
    wholes = {whole for whole, _ in pairs}
    fractions = {fraction for _, fraction in pairs if len(fraction) > 1}
    if len({len(fraction) for _, fraction in pairs}) == 1:
        return True
    if any(fraction.endswith("0") for fraction in fractions):
        return False
    zero_first = any(fraction.startswith("0") for fraction in fractions)
    return zero_first or len(wholes) > 1 or wholes <= {"0", "-0"}
