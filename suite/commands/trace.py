# SPDX-License-Identifier: Apache-2.0
"""`nvcrucible trace`: a recorded history for people, one event a line."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from suite.build import find_build
from suite.errors import BadInput, EnvironmentMissing
from suite.output import print_json, print_text
from suite.project import project_root

__all__ = ["event_line", "trace"]

TRACE_FILE = "trace.nvl"
WIDTHS = (7, 9, 24)
"""Of event number, kind, and what it concerns."""


def trace(file: Path, *, json_output: bool) -> int:
    """Prints the trace; 0 when it could be read."""
    path = file / TRACE_FILE if file.is_dir() else file
    if not path.is_file():
        raise BadInput(
            f"There is no trace {path}. Expected a file that `nvlab record` wrote, or the folder of a "
            "power-failure case, which holds trace.nvl."
        )
    documents = _read(path)
    last = documents[-1]
    if json_output:
        print_json({**last, "events": documents[:-1]})
        return 0
    print_text(
        f"{path}: {last['adapter']}, {last['lens']} lens, heap of {last['size']} bytes, "
        f"{last['events']} events, seed {last['seed']}\n"
    )
    for document in documents[:-1]:
        print_text(event_line(document) + "\n")
    return 0


def _read(path: Path) -> list[dict[str, Any]]:
    nvlab = find_build(project_root()).nvlab
    if not nvlab.is_file():
        raise EnvironmentMissing(
            f"The power-fail laboratory was not built: there is no {nvlab}. It needs libdw-dev, on "
            "x86-64. Install it, then build again with `make build`."
        )
    done = subprocess.run(
        [str(nvlab), "trace", "--trace", str(path)], capture_output=True, text=True, check=False
    )
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    if not documents or documents[-1]["type"] != "trace":
        said = documents[-1].get("message") if documents else done.stderr.strip()
        raise BadInput(f"The trace can't be shown: {said}. Expected a whole trace of this version.")
    return documents


def event_line(event: dict[str, Any]) -> str:
    """One event, for people."""
    number, kind, concerns = WIDTHS
    if event["kind"] == "mark":
        what = event.get("operation") or event.get("slot") or ""
        return f"{event['event']:>{number}} t{event['thread']} == {event['mark']} {what}".rstrip()
    where = ""
    if "offset" in event:
        where = f"0x{event['offset']:x}+{event['length']}"
    place = event.get("at", "")
    if event.get("function"):
        place += f" {event['function']}"
    data = f"  {event['data']}" if "data" in event else ""
    return (
        f"{event['event']:>{number}} t{event['thread']} {event['kind']:<{kind}}"
        f"{where:<{concerns}} {place}{data}"
    ).rstrip()
