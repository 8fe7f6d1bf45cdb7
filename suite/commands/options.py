# SPDX-License-Identifier: Apache-2.0
"""How option texts become values, for several commands."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from pathlib import Path

from suite.errors import BadInput

__all__ = ["positive", "results_parent", "seconds", "seed_or_fresh", "split_names", "thread_counts"]

DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)?")
FACTOR = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
THREADS_LIMIT = 1024
SEED_BITS = 32


def split_names(values: Sequence[str] | None) -> list[str] | None:
    """`-a A,B -a C` as a list; None when nothing was stated or it is "all"."""
    names = [name.strip() for value in values or () for name in value.split(",") if name.strip()]
    return None if not names or names == ["all"] else names


def thread_counts(text: str) -> list[int]:
    """ "1,2,8" as numbers, each once, in the stated order."""
    counts: list[int] = []
    for part in text.split(","):
        stripped = part.strip()
        if (
            not (stripped.isascii() and stripped.isdigit())
            or not 1 <= int(stripped) <= THREADS_LIMIT
        ):
            raise BadInput(
                f"-t {text}: found '{part}', expected thread counts between 1 and {THREADS_LIMIT}, "
                "separated by commas, such as 1,2,4."
            )
        counts.append(int(stripped))
    return list(dict.fromkeys(counts))


def seconds(text: str, option: str) -> float:
    """ "90", "1.5s", "2m", "1h" in seconds."""
    match = DURATION.fullmatch(text.strip())
    value = float(match[1]) * FACTOR[match[2] or "s"] if match else 0.0
    if value <= 0:
        raise BadInput(
            f"{option} {text}: found '{text}', expected a time such as 60s, 1.5m or 1h, more than 0."
        )
    return value


def positive(value: int | float, option: str, least: int | float = 1) -> None:
    """Refuses a number below `least`."""
    if value < least:
        raise BadInput(f"{option} {value}: found {value}, expected {least} or more.")


def seed_or_fresh(seed: int | None) -> int:
    """The stated seed, or a new one, which the results name."""
    if seed is None:
        return secrets.randbits(SEED_BITS)
    if not 0 <= seed < 1 << 63:
        raise BadInput(f"--seed {seed}: expected a whole number from 0 to 2^63 - 1.")
    return seed


def results_parent(root: Path, out: Path | None) -> Path:
    """Where run folders are made."""
    return root / "results" if out is None else out
