# SPDX-License-Identifier: Apache-2.0
"""Does `compare` keep its promises on this machine?  Real benches, real builds, real noise.

    python tests/python/gate.py --build BUILD --slow SLOW_BUILD [--pairs 10] [--detect 10] [-- BENCH OPTIONS]

BUILD is a native build, SLOW_BUILD the same with -Dplant_slowdown=10. It benches pairs of BUILD against
itself, every second one while another process keeps one core busy, and counts those with a `regressed`
verdict (there must be none); then pairs of BUILD against SLOW_BUILD and counts those in which nvmalloc
is called regressed on every workload (9 of 10 must be) and nobody else is. The runs stay in
--out. It is no part of `make test`: with the default options it takes hours, and timings
taken while other tests run would tell nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent.parent
PLANTED = "nvmalloc"


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


def suite(build: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NVCRUCIBLE_BUILD": str(build), "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [sys.executable, "-m", "suite.cli", *arguments],
        env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip


def bench(build: Path, out: Path, name: str, seed: int, options: list[str]) -> Path:
    result = suite(
        build, "bench", "--runner", "local", "--survival-cases", "0", "--out", str(out),
        "--name", name, "--seed", str(seed), *options,
    )  # fmt: skip
    if result.returncode != 0:
        raise SystemExit(f"bench {name} ended with {result.returncode}: {result.stderr[-2000:]}")
    return max(out.glob(f"*-{name}"))


def compared(build: Path, base: Path, new: Path) -> dict[str, Any]:
    result = suite(build, "compare", str(base), str(new), "--json")
    if result.returncode not in (0, 1):
        raise SystemExit(f"compare ended with {result.returncode}: {result.stderr[-2000:]}")
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def worse(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in document["findings"] if each["verdict"] == "regressed"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--slow", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--detect", type=int, default=10)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("options", nargs="*", help="for `nvcrucible bench`, after --")
    stated = parser.parse_args()
    build, slow = stated.build.resolve(), stated.slow.resolve()
    false_alarms, found = 0, 0
    for pair in range(stated.pairs):
        loaded = pair % 2 == 1
        with one_core_busy(loaded):
            base = bench(build, stated.out, f"aa{pair}-base", 7, stated.options)
            new = bench(build, stated.out, f"aa{pair}-new", 7, stated.options)
        document = compared(build, base, new)
        bad = worse(document)
        false_alarms += bool(bad)
        names = [(f["workload"], f["threads"], f["allocator"], f["metric"]) for f in bad]
        state = "loaded" if loaded else "quiet"
        print(f"same build, pair {pair} ({state}): {document['counts']} {names}", flush=True)
    for pair in range(stated.detect):
        base = bench(build, stated.out, f"slow{pair}-base", 7, stated.options)
        new = bench(slow, stated.out, f"slow{pair}-new", 7, stated.options)
        document = compared(build, base, new)
        touched = {f["workload"] for f in document["findings"] if f["allocator"] == PLANTED}
        called = {f["workload"] for f in worse(document) if f["allocator"] == PLANTED}
        others = {f["allocator"] for f in worse(document)} - {PLANTED}
        by = sorted({f["metric"] for f in worse(document)})
        found += called == touched and not others
        print(
            f"planted, pair {pair}: {sorted(called)} of {sorted(touched)} by {by}; "
            f"others: {sorted(others)}",
            flush=True,
        )
    print(
        f"{time.strftime('%F %T')}: {false_alarms} of {stated.pairs} pairs of one build regressed; "
    )
    print(f"{found} of {stated.detect} planted slowdowns found on every workload")
    return 1 if false_alarms or 10 * found < 9 * stated.detect else 0


if __name__ == "__main__":
    raise SystemExit(main())
