# SPDX-License-Identifier: Apache-2.0
"""Does `compare` keep its promises on this machine?  Real benches, real builds, real noise.

    python tests/python/gate.py --build BUILD --slow SLOW_BUILD --out DIR [--pairs 10] [--detect 10]
                                [-- BENCH OPTIONS]

BUILD is a native build, SLOW_BUILD the same with -Dplant_slowdown=10. Two claims are tested:

    same build   in --pairs pairs of runs of BUILD nothing is `regressed`; during every second
                 pair another process keeps one core busy
    planted      in 9 of 10 of --detect pairs (BUILD, SLOW_BUILD) nvmalloc is `regressed` on every
                 workload, on at least one of the numbers of threads, and nobody else is anywhere

Runs of BUILD and SLOW_BUILD alternate.  A run of BUILD serves twice: as the base of a planted pair,
and together with the next one as a quiet pair of the same build; no run is in two pairs of one claim.

Exit codes: 0 both claims hold, 4 one does not, 3 a bench or a comparison could not be made.  The runs
and table.json, which has every verdict, stay in --out. It is no part of `make test`: timings
taken while other tests run would tell nothing.  What it takes, and why these are the default
options: docs/comparing.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent.parent
PLANTED = "nvmalloc"
OPTIONS = [
    "-a", "nvmalloc,glibc", "-w", "threadtest,larson,shbench", "-p", "larson.slots_per_thread=1000",
    "-t", "1,2", "--repeat", "12",
]  # fmt: skip
SHARE_FOUND = 0.9
MISS, NOT_MADE = 4, 3


@dataclass(frozen=True)
class Pair:
    """What `compare` said of two runs."""

    claim: str
    name: str
    state: str
    counts: dict[str, int]
    regressed: list[str]
    """workload xthreads allocator metric"""
    holds: bool
    by_time: bool = False
    """Planted: it would hold without the figures that are counted."""


@contextlib.contextmanager
def one_core_busy(wanted: bool) -> Iterator[None]:
    """Another process, wherever the scheduler puts it."""
    if not wanted:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            yield
        finally:
            busy.kill()


class NotMade(Exception):
    """A run or a comparison that could not be had."""


class Gate:
    """Makes runs and compares them; prints a line for each pair."""

    def __init__(self, build: Path, slow: Path, out: Path, options: Sequence[str]) -> None:
        self._builds = {False: build, True: slow}
        self._out = out
        self._options = options
        self._stamp = time.strftime("%H%M%S")
        self.pairs: list[Pair] = []
        self.benches = 0
        self.bench_s = 0.0

    def bench(self, name: str, *, slow: bool = False) -> Path:
        name = f"{self._stamp}-{name}"
        began = time.monotonic()
        result = _suite(
            self._builds[slow], "bench", "--runner", "local", "--survival-cases", "0", "--out",
            str(self._out), "--name", name, "--seed", "7", *self._options,
        )  # fmt: skip
        if result.returncode != 0:
            raise NotMade(f"bench {name} ended with {result.returncode}: {result.stderr[-2000:]}")
        self.benches += 1
        self.bench_s += time.monotonic() - began
        return max(self._out.glob(f"*-{name}"))

    def same_build(self, name: str, state: str, base: Path, new: Path) -> None:
        document = self._compared(base, new)
        self._add("same build", name, state, document, not _worse(document))

    def planted(self, name: str, base: Path, new: Path) -> None:
        document = self._compared(base, new)
        worse = _worse(document)
        touched = {f["workload"] for f in document["findings"] if f["allocator"] == PLANTED}
        called = {f["workload"] for f in worse if f["allocator"] == PLANTED}
        others = {f["allocator"] for f in worse} - {PLANTED}
        timed = {f["workload"] for f in worse if f["allocator"] == PLANTED and f["p"] is not None}
        holds = bool(touched) and called == touched and not others
        by_time = holds and timed == touched
        self._add("planted", name, "quiet", document, holds, by_time=by_time)

    def _compared(self, base: Path, new: Path) -> dict[str, Any]:
        result = _suite(self._builds[False], "compare", str(base), str(new), "--json")
        if result.returncode not in (0, 1):
            raise NotMade(f"compare ended with {result.returncode}: {result.stderr[-2000:]}")
        document: dict[str, Any] = json.loads(result.stdout)
        return document

    def _add(
        self,
        claim: str,
        name: str,
        state: str,
        document: dict[str, Any],
        holds: bool,
        *,
        by_time: bool = False,
    ) -> None:
        regressed = [
            f"{f['workload']} x{f['threads']} {f['allocator']} {f['metric']}"
            for f in _worse(document)
        ]
        pair = Pair(claim, name, state, document["counts"], regressed, holds, by_time)
        self.pairs.append(pair)
        print(_line(pair), flush=True)


def _suite(build: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NVCRUCIBLE_BUILD": str(build), "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [sys.executable, "-m", "suite.cli", *arguments],
        env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip


def _worse(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in document["findings"] if each["verdict"] == "regressed"]


HEADING = (
    f"{'claim':<10}  {'pair':<9}  {'machine':<7}  {'regr.':>5}  {'ok':>4}  {'incl.':>5}  holds  "
    "what regressed"
)


def _line(pair: Pair) -> str:
    figures = [pair.counts.get(key, 0) for key in ("regressed", "ok", "inconclusive")]
    return (
        f"{pair.claim:<10}  {pair.name:<9}  {pair.state:<7}  {figures[0]:>5}  {figures[1]:>4}  "
        f"{figures[2]:>5}  {'yes' if pair.holds else 'NO':<5}  {', '.join(pair.regressed) or '-'}"
    )


def run(gate: Gate, pairs: int, detect: int) -> None:
    """All the benches, and each comparison as soon as its two runs are there."""
    loaded = pairs // 2
    quiet = pairs - loaded
    bases: list[Path] = []
    for number in range(max(detect, 2 * quiet)):
        bases.append(gate.bench(f"base{number}"))
        if number % 2 == 1 and number // 2 < quiet:
            gate.same_build(f"{number - 1}, {number}", "quiet", bases[-2], bases[-1])
        if number < detect:
            slow = gate.bench(f"slow{number}", slow=True)
            gate.planted(f"{number}, slow", bases[-1], slow)
    for number in range(loaded):
        with one_core_busy(True):
            base = gate.bench(f"loaded{number}-base")
            new = gate.bench(f"loaded{number}-new")
        gate.same_build(f"{number}", "loaded", base, new)


def verdict(pairs: Sequence[Pair]) -> int:
    """Prints the two claims; the exit code."""
    same = [pair for pair in pairs if pair.claim == "same build"]
    planted = [pair for pair in pairs if pair.claim == "planted"]
    alarms = sum(not pair.holds for pair in same)
    found = sum(pair.holds for pair in planted)
    wanted = math.ceil(SHARE_FOUND * len(planted))
    print(
        f"\nsame build: {alarms} of {len(same)} pairs with a false alarm, none is allowed"
        f"\nplanted: found in {found} of {len(planted)} pairs, {wanted} are wanted; by time alone "
        f"it would have been {sum(pair.by_time for pair in planted)}"
    )
    missed = alarms > 0 or found < wanted
    print("MISSED" if missed else "both claims hold")
    return MISS if missed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--slow", type=Path, required=True, help="with -Dplant_slowdown=10")
    parser.add_argument("--pairs", type=int, default=10, help="of runs of one build")
    parser.add_argument("--detect", type=int, default=10, help="pairs with the slow build")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("options", nargs="*", help="for `nvcrucible bench`, after --")
    stated = parser.parse_args()
    out = stated.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    gate = Gate(stated.build.resolve(), stated.slow.resolve(), out, stated.options or OPTIONS)
    print(HEADING, flush=True)
    try:
        run(gate, stated.pairs, stated.detect)
    except NotMade as error:
        print(error, file=sys.stderr)
        return NOT_MADE
    finally:
        table = json.dumps([asdict(pair) for pair in gate.pairs], indent=1)
        (out / "table.json").write_text(table + "\n")
    print(
        f"\n{time.strftime('%F %T')}: {gate.benches} benches, {gate.bench_s / gate.benches:.0f} s each"
        if gate.benches
        else "\nno bench was asked for"
    )
    return verdict(gate.pairs)


if __name__ == "__main__":
    raise SystemExit(main())
