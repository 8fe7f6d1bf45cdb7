# SPDX-License-Identifier: Apache-2.0
"""A run's results: the models behind `run.json`, and the folder that it lives in.

Stability: `schema` rises when the meaning of a key changes; new keys may come
at any time.  `nvcrucible schema` prints the JSON schema that these models make.

Invariants: `samples` is in execution order and holds every attempt, also those
that failed or that were repeated for noise (`accepted` false); a sample
has an `error` or metrics, and an observed or stepped one (slowed by counting)
has costs but no throughput.  The file is replaced atomically, so a reader sees a whole
document at any time, also while the run goes on and after it was killed.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from suite.errors import BadInput, EnvironmentMissing

__all__ = [
    "FILE_NAME",
    "LEGAL_LIMIT",
    "SCHEMA",
    "CaseSummary",
    "Environment",
    "Metrics",
    "NvmDirectory",
    "PowerCost",
    "PowerStates",
    "Run",
    "RunFolder",
    "Sample",
    "Verdict",
    "json_schema",
    "load_run",
]

SCHEMA: Literal[1] = 1
FILE_NAME = "run.json"
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
SAVE_EVERY_S = 5.0
SAVE_SHARE = 0.04


class _Model(BaseModel):
    model_config = ConfigDict(extra="ignore")


class NvmDirectory(_Model):
    """Where the heaps were, and what is persistent about it."""

    path: str
    how: Literal["stated", "dax-mount", "tmpfs"]
    fstype: str
    dax: bool
    map_sync: bool
    emulated: bool
    """True: not real NVM; flushes and fences cost, but nothing survives a power cut."""
    free_bytes: int


class Environment(_Model):
    """The machine and everything on it that a number depends on."""

    nvcrucible: str
    python: str = ""
    """Of the orchestrator, whose loop takes `pace_ns`."""
    commit: str | None = None
    hostname: str
    kernel: str
    cpu_model: str
    cpus: int
    usable_cpus: list[int]
    memory_bytes: int
    flush_instructions: list[str]
    governor: str | None = None
    turbo: bool | None = None
    smt: bool | None = None
    numa_nodes: int = 1
    transparent_huge_pages: str | None = None
    perf_event_paranoid: int | None = None
    instructions_counted: bool = False
    nvm: NvmDirectory
    runner: dict[str, Any] = Field(default_factory=dict)
    calibration: dict[str, Any] | None = None
    """What `nvdrive calibrate` measured in this run, in ns."""
    allocators: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Name to what its adapter says of itself (version, capabilities)."""
    skipped: dict[str, str] = Field(default_factory=dict)
    """Allocators that could not be had, and why."""
    unsupported: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Those of the skipped ones whose options ask for what this machine has not: as in `allocators`,
    and `reason`."""
    notes: list[str] = Field(default_factory=list)


class Metrics(_Model):
    """Figures of one sample; a figure that was not measured is absent.  What each of them is, in
    which unit and from where: `suite.metrics`, printed as docs/metrics.md."""

    ops_per_s: float | None = None
    cpu_ns_per_op: float | None = None
    flushes_per_op: float | None = None
    fences_per_op: float | None = None
    fences_all_per_op: float | None = None
    nt_lines_per_op: float | None = None
    reflush_ratio: float | None = None
    xpline_writes_per_op: float | None = None
    instructions_per_op: float | None = None
    instructions_source: Literal["perf", "stepped"] | None = None
    """A hardware counter over all operations, or a sample of operations stepped over."""
    instructions_deviation: float | None = None
    driver_instructions_per_op: float | None = None
    p50_ns: float | None = None
    p99_ns: float | None = None
    p999_ns: float | None = None
    max_ns: float | None = None
    peak_bytes: float | None = None
    live_bytes: float | None = None
    footprint_ratio: float | None = None
    refill_ratio: float | None = None
    defragmented_ratio: float | None = None
    file_ratio: float | None = None
    failed_allocs_per_op: float | None = None
    live_objects: float | None = None
    open_ms: float | None = None
    first_op_ms: float | None = None
    rebuilt_ms: float | None = None
    objects_per_s: float | None = None
    recovery_ms: float | None = None
    figures: dict[str, float] | None = None
    """Of a standalone workload: what its YAML file names besides."""


class Sample(_Model):
    """One fresh process on one fresh heap."""

    allocator: str
    """In a standalone workload: the subject."""
    workload: str
    """The row that the sample belongs to: the workload, and after its name the parameters that
    tell this row from its siblings ("recovery live=10000")."""
    family: str | None = None
    """The workload's own name; None in a standalone workload."""
    parameters: dict[str, int] = Field(default_factory=dict)
    """All of the workload's parameters."""
    case: str | None = None
    """What a standalone workload did; other workloads have no cases."""
    threads: int
    repeat: int
    observed: bool = False
    """Persistence events were counted, which slows: costs only, no throughput."""
    stepped: bool = False
    """Stepped over instruction by instruction: `instructions_per_op` only."""
    metrics: Metrics = Field(default_factory=Metrics)
    accepted: bool = True
    """False: failed, or repeated because others took too much CPU meanwhile."""
    attempt: int = 1
    seed: int = 0
    noise: float | None = None
    """CPU time that others took meanwhile, as a share of all CPU time there was."""
    pace_ns: float | None = None
    """The time of one round of a fixed loop beside the sample: how fast the machine was just then."""
    started_s: float = 0.0
    """After the beginning of the run."""
    wall_s: float = 0.0
    error: str | None = None
    applicable: bool = True
    """False: the allocator can't do what the workload needs, and says so; no fault of it."""
    raw: dict[str, Any] | None = None
    """What the driver printed, unchanged."""


class CaseSummary(_Model):
    """One failing fault case."""

    kind: str
    detail: str
    seed: int
    path: str | None = None
    """Folder, relative to the run's; None: only counted, its like had been kept already."""


class PowerCost(_Model):
    """A flush or fence that costs without need, by source line."""

    kind: str
    file: str
    line: int
    function: str = ""
    times: int
    of: int
    """How often the line was reached at all."""


LEGAL_LIMIT = 1e300
"""A case with more legal states counts as one of so many: JSON knows no larger numbers."""


class PowerStates(_Model):
    """What a power-failure campaign went through.  Sums over its cases."""

    lens: str = ""
    """"compiled": every store was seen; "library": only what was flushed, and when."""
    operations: int = 0
    """Acknowledged ones, of all histories."""
    crash_points: int = 0
    complete_points: int = 0
    """Those of which every legal state was decided."""
    legal: float = 0.0
    """Legal states of all crash points: the denominator."""
    covered: float = 0.0
    """Of them, decided: tried, or like one that was tried in all that recovery reads."""
    checked: int = 0
    """States that were recovered and judged, for this fault."""
    all_checked: int = 0
    """The same, for both faults that a case serves."""
    distinct: int = 0
    """Different heap images among them."""
    deep: int = 0
    """Judged with a second workload, drained and filled to the brim."""
    cpu_seconds: float = 0.0
    stored_bytes: int = 0
    media_bytes: int = 0
    """In units of 256 bytes."""
    costs: list[PowerCost] = Field(default_factory=list)


class Verdict(_Model):
    """What a fault campaign found out about one allocator."""

    allocator: str
    fault: str
    cases: int
    """Judged cases: passed + failed."""
    states: int
    """Crash states that were recovered and checked."""
    passed: int
    failed: int
    by_kind: dict[str, int] = Field(default_factory=dict)
    cases_dir: str | None = None
    errors: int = 0
    """Cases that gave no verdict (the driver died, hung, printed garbage)."""
    error: str | None = None
    """The first such error."""
    planned: int | None = None
    seconds: float = 0.0
    stopped_early: bool = False
    """The campaign gave up on this allocator after --max-failures failures."""
    failures: list[CaseSummary] = Field(default_factory=list)
    known_finding: str | None = None
    """The document on a known failure of this allocator under this fault."""
    known_kinds: list[str] = Field(default_factory=list)
    """The kinds of failure that the document explains."""
    power: PowerStates | None = None
    """Of the faults `powerfail` and `recovery-crash`."""

    @property
    def unexplained(self) -> int:
        """Failures of a kind that no known finding explains."""
        return sum(count for kind, count in self.by_kind.items() if kind not in self.known_kinds)


class Run(_Model):
    """The document in `run.json`."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    schema_: Literal[1] = Field(alias="schema")
    name: str
    command: Literal["bench", "fault"]
    started: datetime
    finished: datetime | None = None
    interrupted: bool = False
    environment: Environment
    config: dict[str, Any]
    samples: list[Sample] = Field(default_factory=list)
    verdicts: list[Verdict] = Field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """JSON-able; what was not measured is left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def json_schema() -> dict[str, Any]:
    """The JSON schema of `run.json`."""
    schema = Run.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "nvcrucible run.json, schema 1"
    return schema


class RunFolder:
    """`results/<UTC time>-<name>/` and the run in it."""

    def __init__(self, path: Path, run: Run) -> None:
        self.path = path
        self.run = run
        self._save_again = 0.0

    @classmethod
    def create(cls, parent: Path, run: Run) -> RunFolder:
        """Makes the folder; a second run in the same second gets a number."""
        if not NAME_PATTERN.fullmatch(run.name):
            raise BadInput(
                f"The run's name '{run.name}' can't name a folder. Expected letters, digits, '-', "
                "'_' and '.', at most 64."
            )
        stamp = f"{run.started.astimezone(UTC):%Y%m%dT%H%M%SZ}-{run.name}"
        try:
            parent.mkdir(parents=True, exist_ok=True)
            for suffix in ("", *(f"-{number}" for number in range(2, 1000))):
                path = parent / (stamp + suffix)
                try:
                    path.mkdir()
                except FileExistsError:
                    continue
                return cls(path, run)
        except OSError as error:
            raise EnvironmentMissing(
                f"Results can't be written to {parent}: {error.strerror}. Expected a folder that "
                "we may create files in. Name another with --out DIR."
            ) from error
        raise EnvironmentMissing(
            f"{parent} already holds 999 runs called {stamp}. Remove some of them, or name another "
            "folder with --out DIR."
        )

    def save(self, *, soon: bool = False) -> None:
        """Replaces run.json; with `soon`, only when the last save is a while ago, so that
        saving never takes more than SAVE_SHARE of the time, however large the run has grown."""
        began = time.monotonic()
        if soon and began < self._save_again:
            return
        temporary = self.path / f".{FILE_NAME}.new"
        text = _text(self.run.document())
        try:
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, self.path / FILE_NAME)  # noqa: PTH105 - says what it is: rename(2)
        except OSError as error:
            raise EnvironmentMissing(
                f"{self.path / FILE_NAME} can't be written: {error.strerror}. Make room there, or "
                "name another folder with --out DIR."
            ) from error
        ended = time.monotonic()
        self._save_again = ended + max(SAVE_EVERY_S, (ended - began) / SAVE_SHARE)


def _text(document: dict[str, Any]) -> str:
    """The document, indented for people, but a sample on each line: indenting a latency
    histogram would make the file three times as long."""
    samples = document.get("samples", [])
    text = json.dumps({**document, "samples": []}, indent=1, ensure_ascii=False)
    lines = ",\n".join(
        "  " + json.dumps(each, ensure_ascii=False, separators=(",", ":")) for each in samples
    )
    return text.replace('\n "samples": []', f'\n "samples": [\n{lines}\n ]', 1) + "\n"


def load_run(path: Path) -> Run:
    """A run, from its folder or its run.json."""
    file = path / FILE_NAME if path.is_dir() else path
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(
            f"{file} can't be read: {error.strerror}. Expected the folder of a run (it lies in "
            "results/, named by its time) or a run.json."
        ) from error
    except ValueError as error:
        raise BadInput(
            f"{file} is not JSON ({error}). Expected a run.json, as `nvcrucible bench` writes it."
        ) from error
    found = document.get("schema") if isinstance(document, dict) else None
    if found != SCHEMA:
        raise BadInput(
            f"{file}: found schema {found!r}, expected {SCHEMA}. "
            + (
                "It was written by a newer nvcrucible: use that one to read it."
                if isinstance(found, int) and found > SCHEMA
                else "Name the run.json of a run."
            )
        )
    try:
        return Run.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadInput(
            f"{file}, key '{where}': found {first['input']!r:.60}, expected: {first['msg']}. The "
            "file was changed by hand or damaged; run again, or restore it."
        ) from error


def newest_run(parent: Path) -> Path | None:
    """The folder of the latest run under `parent`."""
    folders: Sequence[Path] = sorted(parent.glob(f"*/{FILE_NAME}")) if parent.is_dir() else []
    return folders[-1].parent if folders else None
