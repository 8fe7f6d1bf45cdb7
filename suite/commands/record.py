# SPDX-License-Identifier: Apache-2.0
"""`nvcrucible record`: a trace of what a program allocates, for the workload `replay`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from suite.build import find_build
from suite.errors import BadInput
from suite.output import print_json, print_text
from suite.project import project_root
from suite.recording import SUFFIX, Program, record
from suite.session import say

__all__ = ["RecordOptions", "record_program"]


@dataclass(frozen=True)
class RecordOptions:
    """The command line, as typed."""

    command: Sequence[str]
    out: Path | None
    json_output: bool


def record_program(options: RecordOptions) -> int:
    """Runs the program under the recorder; returns the exit code: the program's own troubles are
    told, but are none of ours."""
    if not options.command:
        raise BadInput("record: expected a program after `--`, such as `record -- sqlite3 my.db`.")
    program = Program(options.command, {}, to_stderr=options.json_output)
    out = options.out or Path(Path(options.command[0]).name + SUFFIX)
    trace = record(find_build(project_root()), program, out)
    if trace.exit_code != 0:
        say(
            f"{options.command[0]} ended with exit code {trace.exit_code}; what it did is recorded."
        )
    if options.json_output:
        print_json({**trace.facts, "path": str(trace.path), "exit_code": trace.exit_code})
        return 0
    facts = trace.facts
    print_text(
        f"{trace.path}: {facts['operations']} operations ({facts['allocations']} allocations, "
        f"{facts['reallocations']} reallocations), {facts['threads']} thread(s), at most "
        f"{facts['slots']} blocks and {facts['peak_bytes'] / 1e6:.1f} MB live.\n"
        f"Replay it: nvcrucible bench -w replay -p trace={trace.path}\n"
    )
    return 0
