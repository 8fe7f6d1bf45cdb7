# SPDX-License-Identifier: Apache-2.0
"""The commands that only look: `doctor`, `list`, `report`, `inspect`, `schema`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from suite.allocators import Allocator, discover
from suite.build import BUILD_VARIABLE, Build
from suite.commands.fault import FAULTS
from suite.doctor import examine
from suite.errors import BadInput, EnvironmentMissing, nearest
from suite.inspection import draw_inspection, inspect_heap
from suite.output import print_json, print_text
from suite.project import project_root
from suite.report import as_csv, as_markdown, show
from suite.results import json_schema, load_run, newest_run
from suite.workloads import Workload, discover_workloads

__all__ = ["doctor", "inspect", "listing", "report", "schema"]

GRADE_STYLE = {"good": "green", "fair": "yellow", "poor": "red", "missing": "bold red"}
LISTS = ("allocators", "workloads", "faults")
PLAIN_WIDTH = 140


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=PLAIN_WIDTH)


def doctor(pm: Path | None, *, json_output: bool) -> int:
    """What this machine offers; 3 when something that every run needs is missing."""
    checks = examine(project_root(), pm)
    missing = [check for check in checks if check.grade == "missing"]
    if json_output:
        print_json({"checks": [asdict(check) for check in checks]})
    else:
        table = Table(title="This machine", title_justify="left")
        for column in ("what", "grade", "found", "what to change"):
            table.add_column(column, overflow="fold")
        for check in checks:
            grade = Text(check.grade, style=GRADE_STYLE[check.grade])
            table.add_row(Text(check.name), grade, Text(check.found), Text(check.advice))
        _console().print(table)
    return EnvironmentMissing.exit_code if missing else 0


def listing(what: str | None, allocator_paths: Sequence[Path], *, json_output: bool) -> int:
    """What can be named on the command line."""
    if what is not None and what not in LISTS:
        raise BadInput(
            f"There is no list of '{what}'{nearest(what, LISTS)} Choose one of: {', '.join(LISTS)}."
        )
    root = project_root()
    wanted = [what] if what else list(LISTS)
    allocators = discover(root, allocator_paths).all() if "allocators" in wanted else []
    workloads = list(discover_workloads(root).values()) if "workloads" in wanted else []
    if json_output:
        documents = {
            "allocators": [_allocator_document(allocator) for allocator in allocators],
            "workloads": [
                workload.model_dump(mode="json", by_alias=True) for workload in workloads
            ],
            "faults": [{"name": name, "summary": text} for name, text in FAULTS.items()],
        }
        print_json({name: documents[name] for name in wanted})
        return 0
    console = _console()
    if allocators:
        console.print(_allocator_table(allocators))
    if workloads:
        console.print(_workload_table(workloads))
    if "faults" in wanted:
        table = Table("fault", "what happens", title="Faults", title_justify="left")
        for name, text in FAULTS.items():
            table.add_row(name, text)
        console.print(table)
    return 0


def _allocator_document(allocator: Allocator) -> dict[str, object]:
    return {
        "name": allocator.name,
        "base": allocator.base,
        "kind": "persistent" if allocator.persistent else "volatile",
        "consistency": allocator.consistency,
        "options": allocator.options,
        "summary": allocator.summary,
        "folder": str(allocator.folder),
    }


def _allocator_table(allocators: Sequence[Allocator]) -> Table:
    table = Table(
        "allocator", "kind", "consistency", "what it is", title="Allocators", title_justify="left"
    )
    for allocator in allocators:
        table.add_row(
            allocator.name,
            "persistent" if allocator.persistent else "volatile",
            allocator.consistency,
            Text(allocator.summary),
        )
    return table


def _workload_table(workloads: Sequence[Workload]) -> Table:
    table = Table("workload", "heap", "what it does", title="Workloads", title_justify="left")
    for workload in workloads:
        table.add_row(workload.name, str(workload.heap), Text(workload.summary))
    return table


def report(
    run_path: Path | None,
    *,
    markdown: bool,
    csv: bool,
    html: Path | None,
    baseline: str | None,
    json_output: bool,
) -> int:
    """A run's tables again, in another form."""
    if html is not None:
        raise BadInput(
            "--html is not available in this version of nvcrucible. Use --markdown, --csv or "
            "--json; an HTML report comes with a later one."
        )
    if sum((markdown, csv, json_output)) > 1:
        raise BadInput(
            "More than one of --markdown, --csv and --json was stated. Expected one form at a time."
        )
    path = run_path
    if path is None:
        parent = project_root() / "results"
        path = newest_run(parent)
        if path is None:
            raise BadInput(
                f"{parent} holds no run yet. Expected the folder of a run. Run `nvcrucible bench`, or "
                "name a run's folder."
            )
    run = load_run(path)
    if baseline is not None and baseline not in run.config.get("allocators", []):
        known = [str(name) for name in run.config.get("allocators", [])]
        raise BadInput(
            f"--baseline {baseline}: that run has no allocator '{baseline}'"
            f"{nearest(baseline, known)} It has: {', '.join(known)}."
        )
    if json_output:
        print_json(run.document())
    elif markdown:
        print_text(as_markdown(run, baseline))
    elif csv:
        print_text(as_csv(run, baseline))
    else:
        show(run, path if path.is_dir() else path.parent, baseline)
    return 0


def inspect(heap: Path, *, json_output: bool) -> int:
    """A heap file's health and map, read-only."""
    stated = os.environ.get(BUILD_VARIABLE)
    folder = Path(stated) if stated else project_root() / "build"
    document = inspect_heap(Build(folder, {}).inspector, heap)
    if json_output:
        print_json(document)
    else:
        draw_inspection(heap, document, _console())
    return 4 if document.get("damage") else 0


def schema() -> int:
    """The JSON schema of run.json."""
    print_json(json_schema())
    return 0
