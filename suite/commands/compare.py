# SPDX-License-Identifier: Apache-2.0
"""`nvcrucible compare BASE NEW`: has anything got worse?  Exit code 1 if so."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from suite.commands.options import split_names
from suite.comparability import changed_workloads, notes_on, obstacles
from suite.comparison import Comparison, compare
from suite.comparison_tables import comparison_grid, power_lines, summary_grid
from suite.errors import BadInput, NotComparable, Regression, nearest
from suite.output import print_json, print_text
from suite.report import PLAIN_WIDTH
from suite.results import Run, load_run
from suite.tables import draw, to_markdown

__all__ = ["CompareOptions", "compare_runs", "share"]

SHARE = re.compile(r"([0-9]+(?:\.[0-9]+)?)(%?)")


@dataclass(frozen=True)
class CompareOptions:
    """The command line, as typed."""

    base: Path
    new: Path
    fail_on: str
    allocators: Sequence[str] | None
    force: bool
    everything: bool
    markdown: bool
    json_output: bool


def share(text: str, option: str) -> float:
    """ "5%" and "0.05" as 0.05."""
    match = SHARE.fullmatch(text.strip())
    value = float(match[1]) / (100 if match[2] else 1) if match else -1.0
    if not 0 < value < 10:
        raise BadInput(
            f"{option} {text}: found '{text}', expected a share such as 5% or 0.05, above 0 and "
            "below 1000%."
        )
    return value


def compare_runs(options: CompareOptions) -> int:
    """Compares, prints, judges; returns 0 or raises what the outcome is called."""
    if options.markdown and options.json_output:
        raise BadInput("Both --markdown and --json were stated. Expected one form at a time.")
    fail_on = share(options.fail_on, "--fail-on")
    base, new = load_run(options.base), load_run(options.new)
    wanted = split_names(options.allocators)
    _check_names(wanted, base, new)
    notes = _conditions(base, new, options)
    changed = changed_workloads(base, new)
    if not options.force:
        base = _without(base, changed)
    notes += [f"left out: {name} ({how})" for name, how in changed.items() if not options.force]
    found = compare(base, new, fail_on=fail_on, allocators=wanted)
    found = replace(found, notes=notes)
    if not found.findings:
        raise NotComparable(
            f"Nothing to compare: {options.base} and {options.new} share no cell (allocator, workload, "
            "threads) with a metric that is judged. Expected two runs of `nvcrucible bench` with the same "
            "options."
        )
    _print(found, options)
    if not found.regressed:
        return 0
    worse = found.with_verdict("regressed")
    names = ", ".join(dict.fromkeys(f"{each.allocator} {each.workload}" for each in worse[:5]))
    raise Regression(
        f"{len(worse)} of {len(found.findings)} figures regressed by more than {100 * fail_on:g} %: "
        f"{names}{' and others' if len(worse) > 5 else ''}."
    )


def _check_names(wanted: Sequence[str] | None, base: Run, new: Run) -> None:
    known = {sample.allocator for run in (base, new) for sample in run.samples}
    for name in wanted or ():
        if name not in known:
            raise BadInput(
                f"-a {name}: neither run has an allocator '{name}'{nearest(name, known)} They have: "
                f"{', '.join(sorted(known))}."
            )


def _conditions(base: Run, new: Run, options: CompareOptions) -> list[str]:
    """Notes on how the runs' conditions differ; NotComparable where that forbids comparing."""
    found = obstacles(base, new)
    if found and not options.force:
        raise NotComparable(
            f"{options.base} and {options.new} were made under different conditions: "
            f"{'; '.join(found)}. Expected the same machine and the same settings. Run both there, or "
            "compare all the same with --force."
        )
    return [f"forced: {each}" for each in found] + notes_on(base, new)


def _without(run: Run, workloads: dict[str, str]) -> Run:
    kept = [sample for sample in run.samples if sample.workload not in workloads]
    return run.model_copy(update={"samples": kept})


def _print(found: Comparison, options: CompareOptions) -> None:
    if options.json_output:
        print_json(_document(found, options))
        return
    grids = [summary_grid(found), comparison_grid(found, everything=options.everything)]
    lines = power_lines(found) + [f"note: {note}" for note in found.notes]
    if options.markdown:
        title = f"## nvcrucible compare: {options.base.name} and {options.new.name}\n"
        tables = [to_markdown(grid) for grid in grids if grid.rows]
        print_text("\n".join([title, *tables, "".join(f"- {line}\n" for line in lines)]))
        return
    console = Console(soft_wrap=False)
    if not console.is_terminal:
        console = Console(width=PLAIN_WIDTH)
    for grid in grids:
        if grid.rows:
            draw(grid, console)
            console.print()
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _document(found: Comparison, options: CompareOptions) -> dict[str, Any]:
    verdicts = [finding.verdict for finding in found.findings]
    return {
        "schema": 1,
        "base": str(options.base),
        "new": str(options.new),
        "fail_on": found.fail_on,
        "regressed": found.regressed,
        "counts": {name: verdicts.count(name) for name in ("regressed", "ok", "inconclusive")},
        "power": asdict(found.power),
        "notes": found.notes,
        "findings": [asdict(finding) for finding in found.findings],
    }
