# SPDX-License-Identifier: Apache-2.0
"""`nvcrucible report` and `nvcrucible history`: what was measured, in every form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from suite.commands.options import positive, split_names, thread_counts
from suite.errors import BadInput, EnvironmentMissing, nearest
from suite.history import History, gather, history_grid, runs_in
from suite.metrics import METRICS, Metric, metric_named
from suite.output import print_json, print_text
from suite.project import project_root
from suite.report import PLAIN_WIDTH, as_csv, as_markdown, show
from suite.results import Run, load_run, newest_run
from suite.session import say
from suite.tables import draw, to_csv, to_markdown

__all__ = ["HistoryOptions", "ReportOptions", "history", "report"]


@dataclass(frozen=True)
class ReportOptions:
    """The command line, as typed."""

    run: Path | None
    markdown: bool
    csv: bool
    html: Path | None
    readme: Path | None
    details: bool
    baseline: str | None
    json_output: bool


@dataclass(frozen=True)
class HistoryOptions:
    """The command line, as typed."""

    metric: str
    allocators: Sequence[str] | None
    workloads: Sequence[str] | None
    threads: str | None
    last: int
    results: Path | None
    markdown: bool
    csv: bool
    json_output: bool


def report(options: ReportOptions) -> int:
    """A run's tables again, in another form."""
    _one_form(markdown=options.markdown, csv=options.csv, json=options.json_output)
    path = options.run or _newest()
    run = load_run(path)
    folder = path if path.is_dir() else path.parent
    _check_baseline(options.baseline, run)
    if options.html is not None:
        _write_html(run, folder, options.html, options.baseline)
    if options.readme is not None:
        from suite.readme import rewrite

        rewrite(options.readme, run, folder)
        say(f"{options.readme}: the table is that of {folder}")
    if options.json_output:
        print_json(run.document())
    elif options.markdown:
        print_text(as_markdown(run, options.baseline))
    elif options.csv:
        print_text(as_csv(run, options.baseline))
    elif options.html is None and options.readme is None:
        show(run, folder, options.baseline, details=True if options.details else None)
    return 0


def _one_form(**stated: bool) -> None:
    if sum(stated.values()) > 1:
        names = ", ".join(f"--{name}" for name in stated)
        raise BadInput(f"More than one of {names} was stated. Expected one form at a time.")


def _newest() -> Path:
    parent = project_root() / "results"
    path = newest_run(parent)
    if path is None:
        raise BadInput(
            f"{parent} holds no run yet. Expected the folder of a run. Run `nvcrucible bench`, or "
            "name a run's folder."
        )
    return path


def _check_baseline(baseline: str | None, run: Run) -> None:
    known = [str(name) for name in run.config.get("allocators", [])]
    for workload in run.config.get("workloads", {}).values():
        known += workload.get("subjects", {})
    if baseline is not None and baseline not in known:
        raise BadInput(
            f"--baseline {baseline}: that run has no allocator '{baseline}'"
            f"{nearest(baseline, known)} It has: {', '.join(known)}."
        )


def _write_html(run: Run, folder: Path, file: Path, baseline: str | None) -> None:
    from suite.html_report import render

    page = render(run, folder, file, baseline)
    try:
        file.write_text(page, encoding="utf-8")
    except OSError as error:
        raise EnvironmentMissing(
            f"--html {file}: it can't be written: {error.strerror}. Expected a file in a folder that we "
            "may write to."
        ) from error
    say(f"{file}: {len(page) / 1e6:.1f} MB, complete in itself")


def _metric(name: str) -> Metric:
    names = [metric.name for metric in METRICS]
    if name not in names:
        raise BadInput(
            f"There is no metric called '{name}'{nearest(name, names)} Known: {', '.join(names)}. "
            "docs/metrics.md says what they are."
        )
    return metric_named(name)


def history(options: HistoryOptions) -> int:
    """A metric over past runs."""
    _one_form(markdown=options.markdown, csv=options.csv, json=options.json_output)
    metric = _metric(options.metric)
    positive(options.last, "--last")
    parent = project_root() / "results" if options.results is None else options.results
    runs, problems = runs_in(parent)
    for problem in problems:
        say(f"left out: {problem}")
    if not runs:
        raise BadInput(
            f"{parent} holds no run. Expected a folder of runs, as `nvcrucible bench` makes them. Run it, "
            "or name another folder with --results DIR."
        )
    found = gather(
        metric,
        runs,
        allocators=split_names(options.allocators),
        workloads=split_names(options.workloads),
        threads=None if options.threads is None else thread_counts(options.threads),
        last=options.last,
    )
    if not found.series:
        raise BadInput(
            f"No run in {parent} has '{metric.name}' of these allocators, workloads and threads. "
            "`nvcrucible history` without -a, -w and -t shows all there are."
        )
    grid = history_grid(found)
    if options.json_output:
        print_json(_document(found))
    elif options.markdown:
        print_text(to_markdown(grid))
    elif options.csv:
        print_text(to_csv(grid))
    else:
        console = Console(soft_wrap=False)
        draw(grid, console if console.is_terminal else Console(width=PLAIN_WIDTH))
    if found.elsewhere:
        say(f"left out: {found.elsewhere} runs under other conditions than {found.names[-1]}")
    return 0


def _document(found: History) -> dict[str, Any]:
    return {
        "schema": 1,
        "metric": found.metric.name,
        "unit": found.metric.unit,
        "runs": [
            {"name": name, "started": date.isoformat()}
            for name, date in zip(found.names, found.dates, strict=True)
        ],
        "left_out": found.elsewhere,
        "series": [asdict(each) for each in found.series],
    }
