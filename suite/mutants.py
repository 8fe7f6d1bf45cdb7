# SPDX-License-Identifier: Apache-2.0
"""Mutants of nvmalloc: `python -m suite.mutants`, or `make mutants`.

A mutant is nvmalloc with one persistence event changed at one call site: a flush or fence that is
missing (`drop-flush`, `drop-fence`), that changes places with what its thread does next (`swap-flush`,
`swap-fence`), or a non-temporal store that is an ordinary one (`cached`).  `nvlab run --mutate` makes it
while it records and while it recovers, so nothing is built anew.

Each runs through the histories that reach its site until one kills it.  A survivor is either
equivalent, and then the reviewed list (faults/surviving-mutants.yaml) says why, or a gap.  Exit code 0:
the list explains all that survived and no more; 4: it does not.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console
from rich.table import Table

from suite import yaml_source
from suite.build import find_build
from suite.errors import CrucibleError, EnvironmentMissing
from suite.persistence_sites import Identity, Site, nvmalloc_sources, scan
from suite.project import project_root

__all__ = [
    "HISTORIES",
    "HISTORIES_PER_MUTANT",
    "MUTATIONS",
    "REVIEWED",
    "History",
    "Laboratory",
    "Mutant",
    "Outcome",
    "Reviewed",
    "compare",
    "main",
    "mutants_of",
    "sample",
]

REVIEWED = "faults/surviving-mutants.yaml"
RUN_LIMIT_S = 900.0
INCORRECT = 4
HISTORIES_PER_MUTANT = 5

MUTATIONS: Mapping[str, tuple[str, ...]] = {
    "flush": ("drop-flush", "swap-flush"),
    "fence": ("drop-fence", "swap-fence"),
    "nt-store": ("cached",),
}
UNREACHED = "unreached"
Kind = Literal["drop-flush", "swap-flush", "drop-fence", "swap-fence", "cached", "unreached"]


@dataclass(frozen=True)
class History:
    """What one run of the laboratory does."""

    mode: str
    seed: int
    threads: int = 1
    ops: int = 40
    generations: int = 3
    states: int = 48
    script: str = ""

    @property
    def name(self) -> str:
        what = "script" if self.script else f"{self.ops} operations"
        return f"{self.mode} seed {self.seed}, {what}, {self.threads} thread(s)"

    def arguments(self) -> list[str]:
        """Of `nvlab run`."""
        script = ["--script", self.script] if self.script else ["--ops", str(self.ops)]
        return [
            "--options", f"mode={self.mode}",
            "--seed", str(self.seed),
            "--threads", str(self.threads),
            "--generations", str(self.generations),
            *script,
        ]  # fmt: skip


MODES = ("owned", "strict", "gc")
CLOSING = "a0:1000000 a1:1000000 f1 o a2:64 f0 o a3:500000"
"""An extent is freed far from what else is written, and the heap closed right after that."""
HISTORIES = (
    *(History(mode, seed) for seed in (1, 2, 3) for mode in MODES),
    *(History(mode, seed, threads=2) for seed in (4, 5) for mode in MODES),
    *(History(mode, 6, ops=300, generations=1, states=16) for mode in MODES),
    *(History(mode, 7, ops=8, generations=12) for mode in MODES),
    *(History(mode, 8, threads=2, ops=240, generations=1, states=16) for mode in MODES),
    History("gc", 9, generations=2, script=CLOSING),
)
"""Short ones for states, long ones for what seldom happens (a lane's ring goes round; another
thread raises the watermark), many crashes for recovery, closing after a collection."""


@dataclass(frozen=True)
class Mutant:
    """One change at one site."""

    site: Site
    kind: Kind

    @property
    def argument(self) -> str:
        """For `--mutate`."""
        return f"{self.kind}:{self.site.place}"


@dataclass
class Outcome:
    """What became of a mutant."""

    mutant: Mutant
    verdict: str = ""
    """What killed it; "": it survived."""
    detail: str = ""
    history: History | None = None
    """That killed it."""
    tried: int = 0
    states: int = 0
    seconds: float = 0.0


class ReviewedMutant(BaseModel):
    """A mutant that may survive, or a site that no history reaches."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    function: str
    text: str
    occurrence: int = Field(default=1, ge=1)
    kind: Kind
    reason: str = Field(min_length=20)

    @property
    def key(self) -> tuple[Identity, str]:
        return Identity(self.file, self.function, self.text, self.occurrence), self.kind


class Reviewed(BaseModel):
    """faults/surviving-mutants.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    survivors: list[ReviewedMutant]


@dataclass
class Comparison:
    """What the run and the reviewed list say of each other."""

    unexplained: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        return not self.unexplained and not self.stale


def mutants_of(sites: Iterable[Site], reached: Iterable[tuple[str, str]]) -> list[Mutant]:
    """Those of the events that histories reached; `reached` are places and events."""
    known = set(reached)
    return [
        Mutant(site, kind)  # type: ignore[arg-type]
        for site in sites
        for event in site.events
        if (site.place, event) in known
        for kind in MUTATIONS[event]
    ]


def sample(mutants: Sequence[Mutant], count: int, seed: int) -> list[Mutant]:
    """A seeded choice of `count`, with one of each kind."""
    draw = random.Random(seed)  # noqa: S311 - repeatable, not secret
    shuffled = draw.sample(list(mutants), len(mutants))
    first = {mutant.kind: mutant for mutant in reversed(shuffled)}
    rest = [mutant for mutant in shuffled if first[mutant.kind] is not mutant]
    return [*first.values(), *rest][: max(count, len(first))]


def compare(
    outcomes: Iterable[Outcome], sites: Sequence[Site], unreached: Iterable[Site], list_: Reviewed
) -> Comparison:
    """Holds survivors and unreached sites against the list, and the list against them."""
    survived = {
        (each.mutant.site.identity, str(each.mutant.kind)) for each in outcomes if not each.verdict
    }
    found = survived | {(site.identity, UNREACHED) for site in unreached}
    listed = {each.key for each in list_.survivors}
    existing = {site.identity for site in sites}
    comparison = Comparison([f"{kind} {identity}" for identity, kind in sorted(found - listed)])
    for identity, kind in sorted(listed - found):
        why = "is killed or reached now" if identity in existing else "is in the sources no more"
        comparison.stale.append(f"{kind} {identity}: {why}")
    return comparison


class Laboratory:
    """Runs `nvlab`; safe to use from several threads."""

    def __init__(self, nvlab: Path, lens: Path, folder: Path, heaps: Path) -> None:
        self._nvlab = nvlab
        self._lens = lens
        self._folder = folder
        self._heaps = heaps

    def run(self, history: History, *extra: str) -> list[dict[str, Any]]:
        """The documents of one run; `EnvironmentMissing` if there was no verdict."""
        with (
            tempfile.TemporaryDirectory(dir=self._folder) as work,
            tempfile.TemporaryDirectory(dir=self._heaps, prefix="nvcrucible-") as heaps,
        ):
            command = [
                str(self._nvlab), "run", "--adapter", str(self._lens), "--work", work, "--dir", heaps,
                "--no-shrink", *history.arguments(), *extra,
            ]  # fmt: skip
            ended = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=RUN_LIMIT_S
            )
        documents = [json.loads(line) for line in ended.stdout.splitlines()]
        if ended.returncode in (0, INCORRECT) and documents and "verdict" in documents[-1]:
            return documents
        errors = [str(each.get("message")) for each in documents if each["type"] == "error"]
        raise EnvironmentMissing(
            f"nvlab gave no verdict (exit code {ended.returncode}): {'; '.join(errors)}\n"
            f"{ended.stderr}Command: {' '.join(command)}"
        )

    def reached(self, history: History) -> Counter[tuple[str, str]]:
        """Source places on the call stacks of its events, by kind of event."""
        found: Counter[tuple[str, str]] = Counter()
        light = ("--states", "1", "--faults", "powerfail", "--no-deep", "--sites")
        for document in self.run(history, *light):
            for site in document["sites"] if document["type"] == "sites" else ():
                for place in {f"{frame['file']}:{frame['line']}" for frame in site["frames"]}:
                    found[place, site["kind"]] += site["count"]
        return found

    def judge(self, history: History, mutate: str | None = None) -> dict[str, Any]:
        """The verdict on a history at its full number of states."""
        extra = () if mutate is None else ("--mutate", mutate)
        return self.run(history, "--states", str(history.states), *extra)[-1]

    def kill(self, mutant: Mutant, histories: Sequence[History]) -> Outcome:
        """Tries them in turn until one kills the mutant."""
        outcome = Outcome(mutant)
        began = time.monotonic()
        for history in histories:
            verdict = self.judge(history, mutant.argument)
            outcome.tried += 1
            outcome.states += verdict["states_checked"] + verdict["recovery_states_checked"]
            if verdict["verdict"] != "ok":
                outcome.verdict, outcome.detail = verdict["verdict"], verdict["detail"]
                outcome.history = history
                break
        outcome.seconds = time.monotonic() - began
        return outcome


Reach = Mapping[History, Mapping[tuple[str, str], int]]


def histories_for(mutant: Mutant, reach: Reach, limit: int) -> list[History]:
    """Those that reach its site, a mode after the other; of each, scripts and the busiest first."""
    event = next(event for event, kinds in MUTATIONS.items() if mutant.kind in kinds)
    place = (mutant.site.place, event)
    by_mode: dict[str, list[History]] = {}
    for history in sorted(reach, key=lambda each: (not each.script, -reach[each].get(place, 0))):
        if reach[history].get(place, 0) > 0:
            by_mode.setdefault(history.mode, []).append(history)
    ranks = [(rank, each) for of in by_mode.values() for rank, each in enumerate(of)]
    return [history for _, history in sorted(ranks, key=lambda item: item[0])][:limit]


def _table(outcomes: Sequence[Outcome]) -> Table:
    table = Table(title="Mutants of nvmalloc", title_justify="left")
    for heading in ("site", "function", "mutation", "outcome", "by"):
        table.add_column(heading)
    for heading in ("histories", "states", "s"):
        table.add_column(heading, justify="right")
    for each in outcomes:
        site = each.mutant.site
        table.add_row(
            site.place, site.identity.function, each.mutant.kind, each.verdict or "SURVIVED",
            each.history.name if each.history else "", str(each.tried), f"{each.states:,}",
            f"{each.seconds:.1f}",
        )  # fmt: skip
    return table


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m suite.mutants", description=__doc__)
    parser.add_argument("-n", "--workers", type=int, default=2, help="runs at a time (2)")
    parser.add_argument(
        "--sample", type=int, help="only so many mutants, one of each kind at least"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the sample (1)")
    parser.add_argument(
        "--only", help="only mutants whose --mutate argument contains one of these (a,b)"
    )
    parser.add_argument(
        "--histories", type=int, default=HISTORIES_PER_MUTANT, help="tried for a mutant at most"
    )
    parser.add_argument("--heaps", type=Path, default=Path("/dev/shm"), help="a tmpfs, for heaps")  # noqa: S108 - a tmpfs is what it is
    parser.add_argument("--json", type=Path, help="file for the outcomes")
    return parser.parse_args(arguments)


def _as_json(outcomes: Sequence[Outcome], unreached: Sequence[Site]) -> str:
    rows = [
        {
            **vars(each.mutant.site.identity), "line": each.mutant.site.line, "kind": each.mutant.kind,
            "verdict": each.verdict, "detail": each.detail, "histories": each.tried,
            "history": each.history.name if each.history else None, "states": each.states,
            "seconds": round(each.seconds, 2),
        }
        for each in outcomes
    ]  # fmt: skip
    return json.dumps(
        {"mutants": rows, "unreached": [vars(s.identity) for s in unreached]}, indent=1
    )


def run(options: argparse.Namespace, console: Console) -> int:
    """All of it; an exit code."""
    root = project_root()
    build = find_build(root)
    lens = build.lenses.get("nvmalloc")
    if lens is None:
        raise EnvironmentMissing("The build has no nvmalloc.lens.so: libdw-dev was missing.")
    reviewed = yaml_source.load(root / REVIEWED, Reviewed)
    sources = nvmalloc_sources(root)
    newer = [path.name for path in sources if path.stat().st_mtime > lens.stat().st_mtime]
    if newer:
        raise EnvironmentMissing(
            f"{', '.join(newer)} changed since {lens} was built, so lines are not where the build has "
            "them. Build again."
        )
    sites = scan(sources)
    with (
        tempfile.TemporaryDirectory(prefix="nvcrucible-mutants-") as folder,
        ThreadPoolExecutor(options.workers) as pool,
    ):
        laboratory = Laboratory(build.nvlab, lens, Path(folder), options.heaps)
        reach = dict(zip(HISTORIES, pool.map(laboratory.reached, HISTORIES), strict=True))
        reached = {place for of in reach.values() for place in of}
        unreached = [
            site
            for site in sites
            if not any((site.place, event) in reached for event in site.events)
        ]
        mutants = mutants_of(sites, reached)
        total = len(mutants)
        if options.only:
            wanted = options.only.split(",")
            mutants = [each for each in mutants if any(part in each.argument for part in wanted)]
        if options.sample:
            mutants = sample(mutants, options.sample, options.seed)

        def kill(mutant: Mutant) -> Outcome:
            outcome = laboratory.kill(mutant, histories_for(mutant, reach, options.histories))
            console.print(f"{mutant.argument}: {outcome.verdict or 'survived'}", style="dim")
            return outcome

        outcomes = list(pool.map(kill, mutants))
        killers = sorted({each.history for each in outcomes if each.history}, key=lambda h: h.name)
        controls = list(zip(killers, pool.map(laboratory.judge, killers), strict=True))
    console.print(_table(outcomes))
    if options.json:
        options.json.write_text(_as_json(outcomes, unreached))
    return _conclude(outcomes, sites, unreached, reviewed, controls, total, console)


def _conclude(
    outcomes: Sequence[Outcome],
    sites: Sequence[Site],
    unreached: Sequence[Site],
    reviewed: Reviewed,
    controls: Sequence[tuple[History, Mapping[str, Any]]],
    total: int,
    console: Console,
) -> int:
    killed = sum(bool(each.verdict) for each in outcomes)
    console.print(
        f"{len(sites)} sites in the sources, {len(sites) - len(unreached)} reached; "
        f"{len(outcomes)} of {total} mutants tried, {killed} killed: "
        f"kill rate {killed / max(1, len(outcomes)):.1%}"
    )
    for site in unreached:
        console.print(f"not reached: {site.place} {site.identity.function}()")
    accused = [history for history, verdict in controls if verdict["verdict"] != "ok"]
    for history in accused:
        console.print(f"nvmalloc itself fails, unmutated: {history.name}", style="red")
    comparison = compare(outcomes, sites, unreached, reviewed)
    if len(outcomes) < total:  # a sample knows nothing of those that it left out
        tried = {(each.mutant.site.identity, each.mutant.kind) for each in outcomes}
        keys = {f"{kind} {identity}" for identity, kind in tried}
        comparison.stale = [each for each in comparison.stale if each.split(": is ")[0] in keys]
    for each in comparison.unexplained:
        console.print(f"survived or not reached, and not on the list: {each}", style="red")
    for each in comparison.stale:
        console.print(f"stale in {REVIEWED}: {each}", style="red")
    return INCORRECT if accused or not comparison.agrees else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs it for the command line."""
    try:
        return run(_parse(arguments), Console(highlight=False, markup=False, width=180))
    except CrucibleError as error:
        sys.stderr.write(f"mutants: {error}\n")
        return error.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
