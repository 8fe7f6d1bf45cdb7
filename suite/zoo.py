# SPDX-License-Identifier: Apache-2.0
"""The zoo: does the power-fail laboratory catch every fault that we planted, and nobody else?

`tests/known_bad/zoo` has one small allocator with a redo log and a list of faults that can be
switched on in it (`plants.yaml`).  A plant is caught when `nvlab run` gives one of the verdicts
that the fault deserves, and names a source line of the plant's function within five lines of it:
a site's own line, or a line of the calls that lead there.  The same allocator without a plant and
nvmalloc, in each of its modes, must never be accused.

    python -m suite.zoo [--build DIR] [--only NAME] [--jobs N]

Exit code 0 when all are caught and nobody is accused, 4 otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.console import Console
from rich.table import Table

from suite.errors import BadInput, CorrectnessFailure, CrucibleError, EnvironmentMissing

__all__ = [
    "INNOCENTS",
    "NEAR_LINES",
    "Innocent",
    "Outcome",
    "Place",
    "Plant",
    "Zoo",
    "acquit",
    "find_marks",
    "judge",
    "load_zoo",
    "missing_parts",
    "nearest_site",
]

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "tests" / "known_bad" / "zoo"
MODULE = Path("tests") / "known_bad" / "zoo" / "lane-log.lens.so"
NEAR_LINES = 5
MARK = re.compile(r"\bPLANT\((\w+)\)")
FUNCTION = re.compile(r"^[a-z].*?\b(\w+)\([^;]*$")
FRAME = re.compile(r"^(?P<file>\S+):(?P<line>\d+) (?P<function>\w+)$")

Kind = Literal[
    "lost", "resurrected", "overlap", "corrupt", "leak", "unusable", "check-disagrees",
    "crash", "hang",
]  # fmt: skip
Value = str | int | float


class Plant(BaseModel):
    """One entry of `plants.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z][a-z-]*[a-z]$")
    what: str = Field(min_length=10)
    kinds: tuple[Kind, ...] = Field(min_length=1)
    faults: tuple[Literal["powerfail", "recovery-crash"], ...] = Field(min_length=1, max_length=1)
    run: dict[str, Value] = Field(default_factory=dict)

    @property
    def symbol(self) -> str:
        """Its name in C and in the allocator's option."""
        return self.name.replace("-", "_")


class Zoo(BaseModel):
    """All of `plants.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    version: Literal[1] = Field(alias="schema")
    defaults: dict[str, Value]
    plants: tuple[Plant, ...]

    def arguments(self, plant: Plant) -> list[str]:
        """Of `nvlab run`, but for the adapter and its folders."""
        deep = "recovery-crash" in plant.faults
        options: dict[str, Value] = {
            **self.defaults,
            **plant.run,
            "options": f"plant={plant.symbol}",
            "faults": "powerfail,recovery-crash" if deep else "powerfail",
        }
        return [text for key, value in options.items() for text in (f"--{key}", str(value))]


@dataclass(frozen=True)
class Place:
    """A line of the zoo's sources, and the function that it is in."""

    file: str
    line: int
    function: str


@dataclass(frozen=True)
class Innocent:
    """One run of an allocator that must not be accused."""

    name: str
    module: Path
    arguments: tuple[str, ...]

    def shorter(self) -> Innocent:
        """The same, of fewer operations and states, for a test on every commit."""
        return replace(self, arguments=(*self.arguments, "--ops", "16", "--states", "16"))


@dataclass(frozen=True)
class Outcome:
    """What the laboratory said of one run, and what is wrong with that."""

    name: str
    expected: str
    found: str
    near: str
    """How far the best site is from the plant, and which role it has."""
    operations: str
    states: int
    seconds: float
    wrong: str
    """Why it does not pass; empty: it does."""


def _innocents() -> Iterator[Innocent]:
    small = ("--heap-size", "256K", "--slots", "4", "--ops", "60", "--states", "64")
    for seed in range(1, 7):
        for threads in (1, 2, 3):
            extra = ("--seed", str(seed), "--threads", str(threads))
            yield Innocent(f"lane-log, seed {seed}, {threads} threads", MODULE, (*small, *extra))
    yield Innocent("lane-log, eADR", MODULE, (*small, "--seed", "7", "--domain", "eadr"))
    for mode in ("mode=owned", "mode=strict", "mode=gc,slots=heap"):
        for threads in (1, 2):
            yield Innocent(
                f"nvmalloc {mode}, {threads} threads",
                Path("allocators") / "nvmalloc.lens.so",
                ("--options", f"{mode},grow=no", "--seed", str(threads),
                 "--threads", str(threads), "--ops", "40", "--states", "64"),
            )  # fmt: skip


INNOCENTS = tuple(_innocents())


def load_zoo(folder: Path = FOLDER) -> Zoo:
    """`plants.yaml`, checked against the plants that the sources have."""
    file = folder / "plants.yaml"
    try:
        zoo = Zoo.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (yaml.YAMLError, ValidationError) as error:
        raise BadInput(f"{file} is no list of plants: {error}") from error
    described = [plant.symbol for plant in zoo.plants]
    marked = set(find_marks(folder))
    if len(set(described)) != len(described):
        raise BadInput(f"{file} has a name twice: {sorted(described)}")
    if set(described) != marked:
        odd = sorted(marked.symmetric_difference(described))
        raise BadInput(f"{file} and PLANT(...) in the sources beside it must agree on {odd}.")
    return zoo


def find_marks(folder: Path = FOLDER) -> dict[str, list[Place]]:
    """Where each plant stands: the lines that say `PLANT(name)`."""
    found: dict[str, list[Place]] = {}
    for file in sorted(folder.glob("*.c")):
        function = ""
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            if opening := FUNCTION.match(line):
                function = opening[1]
            for mark in MARK.finditer(line):
                found.setdefault(mark[1], []).append(Place(file.name, number, function))
    return found


def _frames(site: dict[str, Any]) -> Iterator[Place]:
    """The site's own line, then those of the calls that lead to it."""
    yield Place(site["file"], site["line"], site["function"])
    for text in site["frames"]:
        if frame := FRAME.match(text):
            yield Place(frame["file"], int(frame["line"]), frame["function"])


def nearest_site(
    sites: Iterable[dict[str, Any]], marks: Sequence[Place]
) -> tuple[int, str, int] | None:
    """Distance in lines, role and rank of the site that is nearest to a plant, in its function."""
    best: tuple[int, str, int] | None = None
    for rank, site in enumerate(sites, 1):
        for place in _frames(site):
            for mark in marks:
                if (place.file, place.function) != (mark.file, mark.function):
                    continue
                distance = abs(place.line - mark.line)
                if best is None or distance < best[0]:
                    best = (distance, str(site["role"]), rank)
    return best


def _nvlab(build: Path, module: Path, arguments: Sequence[str]) -> list[dict[str, Any]]:
    """The documents of one `nvlab run`, the verdict last; its exit code must agree with it."""
    with tempfile.TemporaryDirectory(prefix="zoo-") as work:
        command = [
            str(build / "faults" / "nvlab"), "run", "--adapter", str(build / module),
            "--work", work, *arguments,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    documents: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    last = documents[-1] if documents else {}
    expected = 0 if last.get("verdict") == "ok" else CorrectnessFailure.exit_code
    if last.get("type") == "verdict" and done.returncode == expected:
        return documents
    said = last.get("message") or done.stderr.strip() or last
    return [{"verdict": "none", "explanation": f"exit code {done.returncode}, no verdict: {said}"}]


def _complaint(
    plant: Plant,
    last: dict[str, Any],
    failure: dict[str, Any],
    near: tuple[int, str, int] | None,
) -> str:
    verdict: str = last["verdict"]
    if verdict == "ok":
        return "not caught"
    if not failure:
        return str(last["explanation"])
    if verdict not in plant.kinds:
        return f"of another kind: {failure['detail']}"
    if "recovery-crash" in plant.faults and failure["depth"] == 0:
        return "the history's crash alone is said to show it"
    if near is None:
        return "no site is in the plant's function"
    if near[0] > NEAR_LINES:
        return f"the nearest site is {near[0]} lines away"
    return ""


def _states(last: dict[str, Any]) -> int:
    return int(last.get("states_checked", 0)) + int(last.get("recovery_states_checked", 0))


def judge(zoo: Zoo, plant: Plant, build: Path) -> Outcome:
    """Runs the laboratory on one plant."""
    documents = _nvlab(build, MODULE, zoo.arguments(plant))
    last = documents[-1]
    failure = next((each for each in documents if each["type"] == "failure"), {})
    near = nearest_site(failure.get("sites", []), find_marks()[plant.symbol])
    return Outcome(
        name=plant.name,
        expected=", ".join(plant.kinds),
        found=last["verdict"],
        near="" if near is None else f"{near[0]} ({near[1]})",
        operations=str(failure.get("operations", "")),
        states=_states(last),
        seconds=last.get("seconds", 0.0),
        wrong=_complaint(plant, last, failure, near),
    )


def acquit(innocent: Innocent, build: Path) -> Outcome:
    """Runs the laboratory on an allocator that has no fault."""
    last = _nvlab(build, innocent.module, innocent.arguments)[-1]
    states = _states(last)
    wrong = "" if last["verdict"] == "ok" else f"accused: {last['explanation']}"
    if not wrong and states < 100:
        wrong = f"hardly anything was checked: {states} states"
    return Outcome(
        innocent.name, "ok", last["verdict"], "", "", states, last.get("seconds", 0.0), wrong
    )


def _table(title: str, outcomes: Sequence[Outcome]) -> Table:
    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    for heading in ("plant", "expected", "found", "lines away", "smallest history"):
        table.add_column(heading, overflow="fold")
    for heading in ("states", "s"):
        table.add_column(heading, justify="right")
    for each in outcomes:
        table.add_row(
            each.name, each.expected, each.found, each.near, each.operations,
            f"{each.states:,}", f"{each.seconds:.2f}",
            style="red" if each.wrong else None,
        )  # fmt: skip
    return table


def missing_parts(build: Path) -> list[Path]:
    """What the zoo needs of a build and this one does not have."""
    needed = (Path("faults") / "nvlab", MODULE, Path("allocators") / "nvmalloc.lens.so")
    return [build / part for part in needed if not (build / part).is_file()]


def _require_laboratory(build: Path) -> None:
    if missing := missing_parts(build):
        raise EnvironmentMissing(
            f"{missing[0]} is missing. The power-fail laboratory needs an x86-64 build "
            "with libdw-dev and with tests; 'make build' makes it, NVCRUCIBLE_BUILD names it."
        )


def _run(build: Path, only: Sequence[str], jobs: int) -> int:
    _require_laboratory(build)
    zoo = load_zoo()
    plants = [plant for plant in zoo.plants if not only or plant.name in only]
    if unknown := set(only) - {plant.name for plant in zoo.plants}:
        raise BadInput(f"{FOLDER / 'plants.yaml'} has no plant {', '.join(sorted(unknown))}.")
    with ThreadPoolExecutor(jobs) as pool:
        caught = pool.map(lambda plant: judge(zoo, plant, build), plants)
        acquitted = pool.map(lambda each: acquit(each, build), () if only else INNOCENTS)
        bad, good = list(caught), list(acquitted)
    console = Console(width=max(100, shutil.get_terminal_size((140, 24)).columns))
    console.print(_table("planted faults", bad))
    if good:
        console.print()
        console.print(_table("allocators without a fault", good))
    wrong = [each for each in (*bad, *good) if each.wrong]
    for each in wrong:
        console.print(f"{each.name}: {each.wrong}", style="red", highlight=False, markup=False)
    console.print(
        f"\n{sum(not each.wrong for each in bad)} of {len(bad)} plants caught with the right kind "
        f"and place; {sum(bool(each.wrong) for each in good)} accusations in {len(good)} runs "
        f"without a fault; {sum(each.states for each in (*bad, *good)):,} states",
        highlight=False,
    )
    return CorrectnessFailure.exit_code if wrong else 0


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description="The power-fail laboratory, tested on planted faults"
    )
    build = Path(os.environ.get("NVCRUCIBLE_BUILD") or ROOT / "build")
    parser.add_argument("--build", type=Path, default=build, help="the native build")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="this plant")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    try:
        return _run(options.build, options.only, max(1, options.jobs))
    except CrucibleError as error:
        sys.stderr.write(f"zoo: {error}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
