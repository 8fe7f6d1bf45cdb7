# SPDX-License-Identifier: Apache-2.0
"""Values of a parameter, as YAML files and the command line state them.

    64               one value
    [64, 4096]       these (in YAML); `64,4096` on the command line
    64..4096         64, 128, 256 ... 4096: doubled each time
    64..4096 x4      64, 256, 1024, 4096: multiplied each time
    0..100 +25       0, 25, 50, 75, 100

A range ends with the last value that is not above its end.  Numbers take the suffixes K, M, G
(powers of 1024); a parameter with names takes those, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["VALUES_MAX", "Values", "parse_values"]

Values = int | str | list[int | str]

VALUES_MAX = 64
"""More would be a mistake: each value is a row of its own in the tables."""

FACTORS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
NUMBER = re.compile(r"([0-9]+)([KMG]?)")
RANGE = re.compile(r"([0-9]+[KMG]?)\s*\.\.\s*([0-9]+[KMG]?)(?:\s*([x+])\s*([0-9]+[KMG]?))?")


def parse_values(text: Values, names: Mapping[str, int] | None = None) -> list[int]:
    """The values in the order stated, each once; ValueError says what was expected."""
    if isinstance(text, bool):
        raise ValueError("a number, a list of numbers, or a range such as 64..4096 x2")
    if isinstance(text, int):
        return [text]
    parts = text if isinstance(text, list) else text.split(",")
    values: list[int] = []
    for part in parts:
        values += [part] if isinstance(part, int) else _parse_part(part.strip(), names or {})
    values = list(dict.fromkeys(values))
    if not 0 < len(values) <= VALUES_MAX:
        raise ValueError(f"1 to {VALUES_MAX} values, found {len(values)}")
    return values


def _parse_part(text: str, names: Mapping[str, int]) -> list[int]:
    if text in names:
        return [names[text]]
    if NUMBER.fullmatch(text):
        return [_number(text)]
    match = RANGE.fullmatch(text)
    if match is None:
        known = f", one of {', '.join(names)}" if names else ""
        raise ValueError(f"a number{known}, a list of them, or a range such as 64..4096 x2")
    first, last = _number(match[1]), _number(match[2])
    by, step = match[3] or "x", _number(match[4] or "2")
    if first > last:
        raise ValueError(f"a range that rises; {first} is above {last}")
    if step < (2 if by == "x" else 1) or (by == "x" and first == 0):
        raise ValueError(f"a range that gets on; {text} does not")
    values: list[int] = []
    while first <= last and len(values) <= VALUES_MAX:
        values.append(first)
        first = first * step if by == "x" else first + step
    return values


def _number(text: str) -> int:
    match = NUMBER.fullmatch(text)
    assert match is not None, text  # noqa: S101 - the callers' patterns contain this one
    return int(match[1]) * FACTORS[match[2]]
