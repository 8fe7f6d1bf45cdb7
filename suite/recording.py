# SPDX-License-Identifier: Apache-2.0
"""Traces for the workload `replay`: what a program allocates, written down by a preloaded library.

The program runs on this machine, once, under `libnvrecord.so`, which writes raw events; `nvdrive
trace` makes a trace of them (workloads/driver/trace.h).  The workload's YAML names programs whose
traces are made when a bench first wants them; they are kept in `build/traces`, and made again when
the program's files or the build that recorded them are newer.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from suite.build import Build
from suite.errors import BadInput, EnvironmentMissing
from suite.workloads import Recording

__all__ = ["Program", "Trace", "ensure_trace", "program_of", "record"]

TIMEOUT_S = 600.0
SUFFIX = ".nvtrace"


@dataclass(frozen=True)
class Program:
    """What is to be recorded."""

    command: Sequence[str]
    environment: Mapping[str, str]
    stdin: Path | None = None
    folder: Path | None = None
    """Its working directory; None: ours."""
    quiet: bool = False
    """Throw away what it prints."""
    to_stderr: bool = False
    """Send what it prints to standard error: ours holds a document."""

    @property
    def shown(self) -> str:
        text = shlex.join(self.command)
        return text if self.stdin is None else f"{text} < {self.stdin.name}"


@dataclass(frozen=True)
class Trace:
    """A trace that was made: what `nvdrive trace` says of it."""

    path: Path
    facts: Mapping[str, Any]
    exit_code: int
    """The program's own."""


def record(build: Build, program: Program, out: Path) -> Trace:
    """Runs the program and makes the trace, replacing `out`."""
    recorder = build.recorder
    if not recorder.is_file():
        raise EnvironmentMissing(
            f"The recorder is not there: {recorder}. Expected the build to put it there. Build "
            "again with `make build`."
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".recording-", dir=out.parent) as folder:
        raw, made = Path(folder) / "raw", Path(folder) / "trace"
        exit_code = _run(program, recorder, raw)
        facts = _convert(build, raw, made, program.shown)
        made.replace(out)
    return Trace(out, facts, exit_code)


def _run(program: Program, recorder: Path, raw: Path) -> int:
    preload = " ".join(filter(None, (str(recorder.absolute()), os.environ.get("LD_PRELOAD"))))
    environment = {
        **os.environ,
        **program.environment,
        "LD_PRELOAD": preload,
        "NVC_RECORD": str(raw.absolute()),
    }
    try:
        with (program.stdin or Path(os.devnull)).open("rb") as stdin:
            done = subprocess.run(
                program.command,
                env=environment,
                stdin=stdin if program.stdin is not None or program.quiet else None,
                stdout=_output(program),
                cwd=program.folder,
                timeout=TIMEOUT_S if program.quiet else None,
                check=False,
            )
    except OSError as error:
        raise BadInput(
            f"{program.command[0]} can't be run: {error.strerror}. Expected a program, as it would "
            "be typed in a shell."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise EnvironmentMissing(
            f"`{program.shown}` took longer than {TIMEOUT_S:.0f} s and was ended; its trace is "
            "missing."
        ) from error
    if not raw.is_file():
        raise EnvironmentMissing(
            f"`{program.shown}` was not recorded: nothing was written. Expected a dynamically "
            "linked program without special rights: the recorder is a preloaded library."
        )
    return done.returncode


def _output(program: Program) -> int | None:
    if program.quiet:
        return subprocess.DEVNULL
    return sys.stderr.fileno() if program.to_stderr else None


def _convert(build: Build, raw: Path, made: Path, shown: str) -> dict[str, Any]:
    done = subprocess.run(
        [build.nvdrive, "trace", "--raw", raw, "--program", shown, made],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        document = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        document = {}
    if document.get("type") != "trace":
        raise EnvironmentMissing(
            f"No trace could be made of `{shown}`: "
            f"{document.get('message') or done.stderr.strip() or 'nvdrive gives no reason'}"
        )
    return dict(document)


def program_of(recording: Recording, folder: Path) -> Program:
    """What a workload's YAML, in that folder, names."""
    files = [folder / word for word in recording.command]
    command = [
        str(file) if "/" in word and file.is_file() else word
        for word, file in zip(recording.command, files, strict=True)
    ]
    stdin = None if recording.stdin is None else folder / recording.stdin
    return Program(command, recording.environment, stdin, folder, quiet=True)


def ensure_trace(root: Path, build: Build, name: str, recording: Recording) -> Path:
    """The trace of that name, recorded now unless it is there and still good."""
    folder = root / "workloads"
    out = root / "build" / "traces" / f"{name}{SUFFIX}"
    program = program_of(recording, folder)
    sources = [build.recorder, build.nvdrive, folder / "replay.yaml"]
    sources += [
        folder / word for word in (*recording.command, recording.stdin or "") if "/" in word
    ]
    if out.is_file() and all(out.stat().st_mtime >= _changed(path) for path in sources):
        return out
    trace = record(build, program, out)
    if trace.exit_code != 0:
        out.unlink()
        raise EnvironmentMissing(
            f"`{program.shown}` was recorded, but ended with exit code {trace.exit_code}. Expected "
            "0. Run it by hand to see why."
        )
    return out


def _changed(path: Path) -> float:
    return path.stat().st_mtime if path.exists() else 0.0
