# SPDX-License-Identifier: Apache-2.0
"""The laboratory held to what it promises, on allocators whose faults are known.

Run by meson: ``laboratory.py NVLAB GOOD.lens.so BAD.lens.so``, where BAD publishes a pointer
before it marks the block (tests/known_bad/publish-before-mark).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a tmpfs is what the laboratory wants
SMALL = ("--heap-size", "256K", "--slots", "4", "--dir", str(SHARED_MEMORY))
SCRIPT = "a0:64 a1:40 f0 a0:64 c2:96 a2.1:64 f2.1 f2 f1 a3:64 f3"
"""Small blocks: every state of the largest crash point can be tried one by one."""


class Wrong(Exception):
    """The laboratory did not do what it promises."""


def nvlab(program: str, *arguments: str) -> list[dict[str, Any]]:
    """The documents that it prints; its exit code must agree with the last one."""
    done = subprocess.run([program, *arguments], stdout=subprocess.PIPE, text=True, check=False)
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    if not documents or documents[-1]["type"] != "verdict":
        raise Wrong(f"{arguments}: no verdict: {documents[-1:]}")
    if done.returncode != (0 if documents[-1]["verdict"] == "ok" else 4):
        raise Wrong(f"{arguments}: exit code {done.returncode} with {documents[-1]['verdict']}")
    return documents


def require(condition: bool, what: str) -> None:
    if not condition:
        raise Wrong(what)


def good_is_never_accused(program: str, good: str, work: str) -> None:
    for seed in ("1", "2", "4"):
        for extra in ((), ("--domain", "eadr"), ("--threads", "2")):
            last = nvlab(
                program, "run", "--adapter", good, "--work", work, "--seed", seed,
                *SMALL, "--ops", "20", *extra,
            )[-1]  # fmt: skip
            require(last["verdict"] == "ok", f"seed {seed} {extra}: {last}")
            require(last["states_checked"] > 50, f"hardly anything was checked: {last}")
            require(last["recovery_states_checked"] > 0 or "eadr" in extra, f"none nested: {last}")


def bad_is_caught_and_replayed(program: str, bad: str, work: str) -> None:
    documents = nvlab(program, "run", "--adapter", bad, "--work", work, "--seed", "1", *SMALL)
    failure = next(each for each in documents if each["type"] == "failure")
    require(failure["verdict"] == "overlap", f"{failure}")
    require(failure["operation_count"] == 1, f"not shrunk: {failure['operations']}")
    sites = {(site["file"], site["function"]) for site in failure["sites"]}
    require(("first_fit.c", "publish_then_mark") in sites, f"no site of the plant: {sites}")
    for _ in range(3):
        again = nvlab(
            program, "replay", "--adapter", bad, "--work", work, "--case", failure["case"],
            "--dir", str(SHARED_MEMORY),
        )[-1]  # fmt: skip
        require(again["verdict"] == "overlap", f"replay: {again}")
        require(again["detail"] == failure["detail"], f"another failure: {again}")


def pruning_decides_as_exhaustion_does(program: str, adapter: str, work: str) -> None:
    """With every state tried, one by one, the same crash points fail in the same way."""
    found = []
    for extra in ((), ("--no-prune",)):
        last = nvlab(
            program, "run", "--adapter", adapter, "--work", work, "--seed", "1", *SMALL,
            "--generations", "1", "--script", SCRIPT, "--states", "1000000", "--no-shrink",
            "--faults", "powerfail", "--max-failures", "16", "--no-deep", *extra,
        )[-1]  # fmt: skip
        if last["verdict"] == "ok":
            require(last["states_covered"] == last["states_legal"], f"not all decided: {last}")
            require(last["crash_points_complete"] == last["crash_points"], f"{last}")
        found.append(last)
    pruned, exhaustive = found
    for key in ("verdict", "by_kind", "crash_points", "states_legal", "states_covered"):
        require(pruned[key] == exhaustive[key], f"{key}: {pruned[key]}, {exhaustive[key]}")
    require(pruned["states_checked"] <= exhaustive["states_checked"], "pruning costs states")
    if pruned["verdict"] == "ok":
        require(exhaustive["states_checked"] > 100, f"too small to prove anything: {exhaustive}")


def main() -> int:
    program, good, bad = sys.argv[1:4]
    with tempfile.TemporaryDirectory() as work:
        try:
            good_is_never_accused(program, good, work)
            bad_is_caught_and_replayed(program, bad, work)
            pruning_decides_as_exhaustion_does(program, good, work)
            pruning_decides_as_exhaustion_does(program, bad, work)
        except Wrong as wrong:
            sys.stderr.write(f"laboratory: {wrong}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
