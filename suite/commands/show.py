# SPDX-License-Identifier: Apache-2.0
"""The commands that only look: `doctor`, `list`, `inspect`, `schema`."""

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
from suite.doctor import examine, overall
from suite.errors import BadInput, EnvironmentMissing, nearest
from suite.inspection import draw_inspection, inspect_heap
from suite.metrics import METRICS, Metric
from suite.output import print_json
from suite.project import project_root
from suite.results import json_schema
from suite.standalone import Standalone, discover_standalone
from suite.versions import Known, versions_of
from suite.workloads import Workload, discover_workloads

__all__ = ["doctor", "inspect", "listing", "schema"]

GRADE_STYLE = {"good": "green", "fair": "yellow", "poor": "red", "missing": "bold red"}
LISTS = ("allocators", "workloads", "faults", "metrics")
PLAIN_WIDTH = 140


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=PLAIN_WIDTH)


def doctor(pm: Path | None, *, json_output: bool) -> int:
    """What this machine offers; 3 when something that every run needs is missing."""
    checks = examine(project_root(), pm)
    missing = [check for check in checks if check.grade == "missing"]
    verdict = overall(checks)
    if json_output:
        print_json({"overall": asdict(verdict), "checks": [asdict(check) for check in checks]})
    else:
        table = Table(title="This machine", title_justify="left")
        for column in ("what", "grade", "found", "what to change"):
            table.add_column(column, overflow="fold")
        for check in [*checks, verdict]:
            grade = Text(check.grade, style=GRADE_STYLE[check.grade])
            last = check is checks[-1]
            table.add_row(
                Text(check.name), grade, Text(check.found), Text(check.advice), end_section=last
            )
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
    workloads: list[Workload | Standalone] = []
    if "workloads" in wanted:
        workloads = [*discover_workloads(root).values(), *discover_standalone(root).values()]
    versions = versions_of(root, allocators)
    if json_output:
        documents = {
            "allocators": [_allocator_document(allocator, versions) for allocator in allocators],
            "workloads": [
                workload.model_dump(mode="json", by_alias=True) for workload in workloads
            ],
            "faults": [{"name": name, "summary": text} for name, text in FAULTS.items()],
            "metrics": [_metric_document(metric) for metric in METRICS],
        }
        print_json({name: documents[name] for name in wanted})
        return 0
    console = _console()
    if allocators:
        console.print(_allocator_table(allocators, versions))
    if workloads:
        console.print(_workload_table(workloads))
    if "faults" in wanted:
        table = Table("fault", "what happens", title="Faults", title_justify="left")
        for name, text in FAULTS.items():
            table.add_row(name, text)
        console.print(table)
    if "metrics" in wanted:
        table = Table("metric", "unit", "what it is", title="Metrics", title_justify="left")
        for metric in METRICS:
            table.add_row(metric.name, metric.unit, Text(metric.definition))
        console.print(table)
    return 0


def _metric_document(metric: Metric) -> dict[str, object]:
    return {
        "name": metric.name,
        "heading": metric.heading,
        "unit": metric.unit,
        "direction": metric.direction,
        "model": metric.model,
        "definition": metric.definition,
        "source": metric.source,
        "judged": metric.judged,
    }


def _allocator_document(allocator: Allocator, versions: dict[str, Known]) -> dict[str, object]:
    known = versions.get(allocator.name, Known())
    return {
        "name": allocator.name,
        "base": allocator.base,
        "kind": "persistent" if allocator.persistent else "volatile",
        "consistency": allocator.consistency,
        "stands_as": allocator.stands_as,
        "options": allocator.options,
        "fault_options": allocator.fault_options,
        "version": known.version or None,
        "built": known.built or None,
        "workloads": allocator.workloads,
        "summary": allocator.summary,
        "folder": str(allocator.folder),
    }


def _allocator_table(allocators: Sequence[Allocator], versions: dict[str, Known]) -> Table:
    table = Table(title="Allocators", title_justify="left")
    for column in ("allocator", "kind", "consistency", "version", "what it is; how it was built"):
        table.add_column(column, overflow="fold")
    for allocator in allocators:
        known = versions.get(allocator.name, Known())
        text = "\n".join(part for part in (allocator.summary, known.built) if part)
        table.add_row(
            allocator.name,
            "persistent" if allocator.persistent else "volatile",
            allocator.consistency,
            Text(known.version or "not here"),
            Text(text),
        )
    return table


def _workload_table(workloads: Sequence[Workload | Standalone]) -> Table:
    table = Table(
        "workload", "kind", "heap", "what it does", title="Workloads", title_justify="left"
    )
    for workload in workloads:
        summary = workload.summary
        if isinstance(workload, Standalone):
            summary += f" ({', '.join(workload.subjects)})"
        table.add_row(workload.name, workload.kind, str(workload.heap or "-"), Text(summary))
    return table


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
