# SPDX-License-Identifier: Apache-2.0
"""Failing fault cases: kept as folders, replayed from them.

    <run>/cases/<allocator>-<fault>-<seed>/
        case.json           what failed, and how to show it again (CaseFile)
        heap.before.gz      the heap just before the recovery that failed
        journal.before.gz   what had been acknowledged, and what was in flight
        trace.nvl           instead of both: the trace of a power-failure case, whose case.json
                            also says where it was cut (docs/power-fail.md)

A heap is mostly zeros, so it compresses well.  At most KEPT cases of an allocator and a kind of
failure are kept; the others are counted.
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
import threading
import zlib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from suite.allocators import Allocator
from suite.case_parameters import CaseParameters
from suite.driver import Answer, Driver, Work
from suite.errors import BadInput
from suite.results import CaseSummary

__all__ = ["CaseFile", "CaseStore", "load_case", "replay_case"]

KEPT = 5
CASE_FILE = "case.json"
EVIDENCE = ("heap.before", "journal.before")
REPLAY_FILE = "replay.json"
TRACE_FILE = "trace.nvl"
COMPRESSION = 6
CHUNK = 1 << 20
HEAP_LIMIT = 64 << 30
"""A case that decompresses to more than this is not one of ours."""
SAFE_ARGUMENT = re.compile(r"(--)?[A-Za-z0-9][A-Za-z0-9_.-]*")
STDERR_BYTES = 4000
OWN_OPTIONS = frozenset({"--adapter", "--options", "--heap", "--journal", "--dir", "--work"})
"""Options that replay sets itself; a case file may not."""


class CaseFile(BaseModel):
    """What `case.json` says."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    schema_: Literal[1] = Field(default=1, alias="schema")
    allocator: str
    allocator_path: str | None = None
    """Folder of an allocator from outside the tree."""
    options: str
    fault: str
    seed: int
    number: int
    verdict: str
    detail: str
    arguments: list[str]
    """Of the nvdrive command that shows the verdict again, without adapter and files."""
    timeout_s: float = 60.0
    history: dict[str, Any] = Field(default_factory=dict)
    """The parameters of the whole case."""
    result: dict[str, Any] = Field(default_factory=dict)
    """The driver's verdict document."""
    stderr: str = ""
    """What the driver, the allocator and its library said to people, its end."""
    evidence: list[str] = Field(default_factory=list)

    @property
    def runs_again(self) -> bool:
        """The allocator failed at work and the heap that it left shows nothing: the whole history
        is run again.  With several threads it needn't fail again."""
        return self.arguments[:1] == ["history"]

    @property
    def traced(self) -> bool:
        """A case of the power-fail laboratory, not of the driver."""
        return self.arguments[:1] == ["replay"]


class CaseStore:
    """Where a run keeps its failing cases.  Safe for several threads."""

    def __init__(self, run_folder: Path, recovery_timeout_s: float) -> None:
        self._root = run_folder / "cases"
        self._recovery_timeout_s = recovery_timeout_s
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, str], int] = {}

    @property
    def relative_root(self) -> str:
        """As a verdict names it: relative to the run's folder."""
        return self._root.name

    def keep(
        self,
        allocator: Allocator,
        fault: str,
        parameters: CaseParameters,
        result: dict[str, Any],
        evidence: Path,
        stderr: str = "",
    ) -> CaseSummary:
        """Counts a failure and keeps its evidence while there is room for its kind."""
        kind, detail = str(result.get("verdict")), str(result.get("detail", ""))
        summary = CaseSummary(kind=kind, detail=detail, seed=parameters.seed)
        folder = self._folder_for(allocator, fault, parameters.seed, kind)
        if folder is None:
            return summary
        found = [name for name in EVIDENCE if (evidence / name).is_file()]
        for name in found:
            _compress(evidence / name, folder / f"{name}.gz")
        case = CaseFile(
            allocator=allocator.name,
            allocator_path=str(allocator.folder) if allocator.outside else None,
            options=allocator.fault_options,
            fault=fault,
            seed=parameters.seed,
            number=parameters.number,
            verdict=kind,
            detail=detail,
            arguments=_replay_arguments(evidence / REPLAY_FILE),
            timeout_s=4 * self._recovery_timeout_s + 60,
            history=vars(parameters),
            result=result,
            stderr=stderr[-STDERR_BYTES:],
            evidence=found,
        )
        text = json.dumps(case.model_dump(mode="json", by_alias=True), indent=1)
        (folder / CASE_FILE).write_text(text + "\n", encoding="utf-8")
        summary.path = f"{self._root.name}/{folder.name}"
        return summary

    def keep_power(
        self,
        allocator: Allocator,
        fault: str,
        parameters: dict[str, Any],
        failure: dict[str, Any],
        evidence: Path,
    ) -> CaseSummary:
        """The same for a failure of the power-fail laboratory and the folder that it left."""
        kind = str(failure.get("verdict"))
        detail = str(failure.get("explanation") or failure.get("detail", ""))
        seed = int(parameters["seed"])
        summary = CaseSummary(kind=kind, detail=detail, seed=seed)
        try:
            told = json.loads((evidence / CASE_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return summary  # counted, but there is nothing to replay
        folder = self._folder_for(allocator, fault, seed, kind)
        if folder is None or not (evidence / TRACE_FILE).is_file():
            return summary
        shutil.copyfile(evidence / TRACE_FILE, folder / TRACE_FILE)
        case = CaseFile(
            allocator=allocator.name,
            allocator_path=str(allocator.folder) if allocator.outside else None,
            options=allocator.fault_options,
            fault=fault,
            seed=seed,
            number=int(parameters["number"]),
            verdict=kind,
            detail=str(failure.get("detail", "")),
            arguments=["replay"],
            timeout_s=4 * self._recovery_timeout_s + 60,
            history=parameters,
            evidence=[TRACE_FILE],
        )
        # What the laboratory wrote stays; what it says of the history's own seed does, too.
        document = {**told, **case.model_dump(mode="json", by_alias=True), "seed": told["seed"]}
        text = json.dumps(document, indent=1)
        (folder / CASE_FILE).write_text(text + "\n", encoding="utf-8")
        summary.path = f"{self._root.name}/{folder.name}"
        return summary

    def _folder_for(self, allocator: Allocator, fault: str, seed: int, kind: str) -> Path | None:
        """A new folder, or None if enough of the kind are kept."""
        with self._lock:
            kept = self._kept.get((allocator.name, kind), 0)
            if kept >= KEPT:
                return None
            self._kept[allocator.name, kind] = kept + 1
        folder = self._root / f"{allocator.name}-{fault}-{seed:016x}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def _replay_arguments(path: Path) -> list[str]:
    """The driver's own words; empty when it left none (then the case can't be replayed)."""
    try:
        arguments = json.loads(path.read_text(encoding="utf-8"))["arguments"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [str(argument) for argument in arguments]


def _compress(source: Path, target: Path) -> None:
    with source.open("rb") as plain, gzip.GzipFile(target, "wb", COMPRESSION, mtime=0) as packed:
        shutil.copyfileobj(plain, packed, CHUNK)


def _decompress(source: Path, target: Path) -> None:
    """Writes zero pages as holes: a heap on tmpfs then takes what it holds."""
    written = 0
    with gzip.open(source, "rb") as packed, target.open("wb") as plain:
        while chunk := packed.read(CHUNK):
            written += len(chunk)
            if written > HEAP_LIMIT:
                raise BadInput(
                    f"{source} unpacks to more than {HEAP_LIMIT} bytes; it is no case of ours."
                )
            if any(chunk):
                plain.write(chunk)
            else:
                plain.seek(len(chunk), 1)
        plain.truncate(written)
    target.chmod(0o600)


def load_case(path: Path) -> tuple[Path, CaseFile]:
    """A case's folder and file; `BadInput` says what is wrong with it."""
    file = path / CASE_FILE if path.is_dir() else path
    expected = "Expected the folder of a case: a run's folder has them under cases/."
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{file} can't be read: {error.strerror}. {expected}") from error
    except ValueError as error:
        raise BadInput(f"{file} is not JSON ({error}). {expected}") from error
    try:
        case = CaseFile.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "(top level)"
        raise BadInput(
            f"{file}, key '{where}': found {first['input']!r:.60}, expected: {first['msg']}. The "
            "file was changed by hand or is of another version; run the campaign again."
        ) from error
    if case.traced:
        if not (file.parent / TRACE_FILE).is_file():
            raise BadInput(
                f"{file.parent} lacks {TRACE_FILE}. Expected case.json and {TRACE_FILE}. Copy the "
                "whole folder, or run the campaign again with its seed."
            )
        return file.parent, case
    _check_arguments(file, case.arguments)
    for name in EVIDENCE:
        if not (file.parent / f"{name}.gz").is_file():
            raise BadInput(
                f"{file.parent} lacks {name}.gz. Expected case.json, heap.before.gz and "
                "journal.before.gz. Copy the whole folder, or run the campaign again with its seed."
            )
    return file.parent, case


def _check_arguments(file: Path, arguments: list[str]) -> None:
    """A case may come from somebody else: it chooses the command's figures, no files."""
    if not arguments or arguments[0] not in ("verify", "history"):
        found = arguments[0] if arguments else "nothing"
        raise BadInput(
            f"{file}, key 'arguments': found {found!r}, expected a 'verify' or 'history' command. The "
            "driver left no replay for this case; run the campaign again with its seed."
        )
    for argument in arguments:
        name = argument.partition("=")[0]
        if not SAFE_ARGUMENT.fullmatch(argument) or name in OWN_OPTIONS:
            raise BadInput(
                f"{file}, key 'arguments': found {argument!r}, expected figures of "
                f"`nvdrive {arguments[0]}` only: a case names no files. It was changed by hand; run "
                "the campaign again."
            )


def replay_case(driver: Driver, folder: Path, case: CaseFile, allocator: Allocator) -> Answer:
    """Recovers a fresh copy of the heap once, exactly as when it failed; or runs the whole
    history again."""
    with driver.scratch.job(driver.job_number()) as (pm_dir, work_dir):
        if case.runs_again:
            return _replay_work(
                driver, case, allocator, pm_dir, work_dir, ("--dir", pm_dir, "--work", work_dir)
            )
        heap, journal = pm_dir / "heap", work_dir / "journal"
        for name, target in zip(EVIDENCE, (heap, journal), strict=True):
            try:
                _decompress(folder / f"{name}.gz", target)
            except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                raise BadInput(
                    f"{folder / name}.gz is damaged ({error}). Expected a whole gzip file. Copy the "
                    "case again, or run the campaign again with its seed."
                ) from error
        return _replay_work(
            driver, case, allocator, pm_dir, work_dir, ("--heap", heap, "--journal", journal)
        )


def _replay_work(
    driver: Driver,
    case: CaseFile,
    allocator: Allocator,
    pm_dir: Path,
    work_dir: Path,
    files: tuple[str | Path, ...],
) -> Answer:
    return driver.run(
        Work(
            label=f"replay {case.allocator} {case.seed:016x}",
            command=case.arguments[0],
            arguments=(
                *case.arguments[1:],
                *driver.adapter_arguments(allocator, judged=True),
                *files,
            ),
            expects="verdict",
            timeout_s=case.timeout_s,
            pm_dir=pm_dir,
            work_dir=work_dir,
            allocator=allocator,
            probe=True,
        )
    )
