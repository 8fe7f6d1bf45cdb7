# SPDX-License-Identifier: Apache-2.0
"""The table in the README, from a run: between two markers, with the line that says where it was
measured.  `nvcrucible report RUN --readme README.md` writes it; nothing in it is typed by hand."""

from __future__ import annotations

import os
from pathlib import Path

from suite.errors import BadInput, EnvironmentMissing, NothingMeasured
from suite.results import Run, Verdict
from suite.summary import KINDS as ORDER
from suite.summary import Row, Summary, safety_of, summarize

__all__ = ["readme_table", "rewrite"]

BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
CLASSICS = ("threadtest", "larson", "shbench", "prodcon", "large")
"""The columns, where the run has them; they are in every paper of the field."""
OURS = "nvmalloc"
CONSISTENCY = {
    "log": "durable",
    "tx": "durable, by transactions",
    "gc": "durable after a collection",
}


def rewrite(file: Path, run: Run, folder: Path) -> None:
    """Replaces what stands between the markers."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"--readme {file}: it can't be read: {error.strerror}.") from error
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BadInput(
            f"--readme {file}: found no pair of the markers '{BEGIN}' and '{END}'. Expected both, around "
            "the table. Put them where the table is to stand."
        )
    table = readme_table(run, folder)
    try:
        file.write_text(f"{before}{BEGIN}\n{table}{END}{after}", encoding="utf-8")
    except OSError as error:
        raise EnvironmentMissing(
            f"--readme {file}: it can't be written: {error.strerror}."
        ) from error


def readme_table(run: Run, folder: Path) -> str:
    """Throughput, survival, and the environment."""
    summary = summarize(run)
    rows = [row for row in summary.rates if row.rate]
    if not rows:
        raise NothingMeasured(
            f"{folder} holds no throughput. Expected a run of `nvcrucible bench`."
        )
    measured = list(dict.fromkeys(row.workload for row in rows))
    columns = [name for name in CLASSICS if name in measured] or measured[:6]
    parts = [_throughput(run, rows, columns)]
    if run.verdicts:
        parts.append(_survival(run, summary))
    return "\n".join([*parts, _conditions(run, folder)])


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |\n"


def _throughput(run: Run, rows: list[Row], columns: list[str]) -> str:
    counts = sorted({row.threads for row in rows if row.workload in columns})
    threads = " / ".join(map(str, counts)) + (" threads" if counts != [1] else " thread")
    head = [f"Mops/s (malloc and free each count), {threads}", *columns]
    text = _line(head) + "|" + "---|" * len(head) + "\n"
    found = {(row.allocator, row.workload, row.threads): row for row in rows}
    names = list(dict.fromkeys(row.allocator for row in rows))
    names.sort(key=lambda name: (ORDER.index(safety_of(run, name)), -_total(rows, name)))
    for name in names:
        cells = [_name(run, name)]
        for workload in columns:
            figures = [found.get((name, workload, count)) for count in counts]
            shown = [row.figures["ops_per_s"] if row else None for row in figures]
            cells.append(
                " / ".join(
                    "-" if each is None else each.metric.shown(each.estimate.median)
                    for each in shown
                )
            )
        text += _line(cells)
    return text


def _total(rows: list[Row], name: str) -> float:
    return sum(row.median("ops_per_s") or 0.0 for row in rows if row.allocator == name)


def _name(run: Run, name: str) -> str:
    shown = f"**{name}**" if name == OURS or name.startswith(f"{OURS}-") else name
    kind = safety_of(run, name)
    if kind != "durable":
        return f"{shown} ({kind}{', an upper bound' if kind == 'volatile' else ''})"
    consistency = str(run.environment.allocators.get(name, {}).get("consistency") or "")
    return f"{shown} ({CONSISTENCY.get(consistency, 'durable')})"


def _survival(run: Run, summary: Summary) -> str:
    faults = list(dict.fromkeys(verdict.fault for verdict in run.verdicts))
    head = ["survived", *faults, "effective fences a durable operation"]
    text = _line(head) + "|" + "---|" * len(head) + "\n"
    by_key = {(verdict.allocator, verdict.fault): verdict for verdict in run.verdicts}
    for name in dict.fromkeys(verdict.allocator for verdict in run.verdicts):
        fences = [row.median("fences_per_op") for row in summary.rates if row.allocator == name]
        known = sorted(each for each in fences if each is not None)
        cells = [f"**{name}**" if name == OURS else name]
        cells += [_outcome(by_key.get((name, fault))) for fault in faults]
        span = f"{known[0]:.2f}" if known else "-"
        if known and f"{known[-1]:.2f}" != span:
            span += f" .. {known[-1]:.2f}"
        text += _line([*cells, span])
    return text


def _outcome(verdict: Verdict | None) -> str:
    if verdict is None:
        return "-"
    text = f"{verdict.passed} of {verdict.cases}"
    if verdict.failed and verdict.known_finding:
        return f"[{text}]({verdict.known_finding}/README.md)"
    return text


def _conditions(run: Run, folder: Path) -> str:
    environment = run.environment
    limits = environment.calibration or {}
    line = f"`{_command(run)}` on {environment.cpu_model}, {environment.cpus} CPUs"
    line += f", heaps in {environment.nvm.path} ({environment.nvm.fstype}"
    line += ", emulated NVM)" if environment.nvm.emulated else ")"
    nt = limits.get("nt_fence_ns")
    if nt:
        line += (
            f": one line written past the caches and one fence take {nt:.0f} ns there, so that "
            f"{1e3 / nt:.1f} Mops/s is a thread's limit for operations that are durable one by one"
        )
    versions = [
        f"{name} {facts['library_version'].split('-')[0]}"
        for name, facts in environment.allocators.items()
        if facts.get("library_version") and not name.startswith(OURS)
    ]
    line += f". Medians of {_repeats(run)} samples; {', '.join(versions)}; "
    line += f"nvcrucible {environment.commit or environment.nvcrucible}, {run.started:%Y-%m-%d}, "
    return f"{line}{os.path.basename(folder.resolve())}.\n"  # noqa: PTH119 - of a resolved path


def _command(run: Run) -> str:
    profile = str(run.config.get("profile") or "default")
    return "make bench" if profile == "default" else f"nvcrucible bench --profile {profile}"


def _repeats(run: Run) -> int:
    timed = [each for each in run.samples if not (each.observed or each.stepped)]
    return 1 + max((sample.repeat for sample in timed), default=0)
