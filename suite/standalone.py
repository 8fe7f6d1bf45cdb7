# SPDX-License-Identifier: Apache-2.0
"""Workloads with an executable of their own: their YAML files, and the plan of their samples.

The contract, with every key and every option, is docs/standalone-workloads.md.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from suite import yaml_source
from suite.allocators import Name
from suite.errors import BadInput, nearest
from suite.plan import derive_seed
from suite.workloads import Key, Size, parse_size, standalone_files

__all__ = [
    "Case",
    "Figure",
    "Standalone",
    "StandaloneCell",
    "discover_standalone",
    "select_subjects",
    "standalone_plan",
]

ProfileName = Literal["quick", "default", "full"]
Threads = Annotated[int, Field(ge=1, le=1024)]


class Figure(BaseModel):
    """A column of the workload's table."""

    model_config = ConfigDict(extra="forbid", strict=True)

    label: str
    digits: int = Field(default=2, ge=0, le=9)


class Case(BaseModel):
    """One thing that is done."""

    model_config = ConfigDict(extra="forbid", strict=True)

    summary: str = ""
    threads: list[Threads] | None = None
    """Only these of the thread counts asked for; None: all of them."""
    parameters: dict[Key, int] = Field(default_factory=dict)
    profiles: list[ProfileName] | None = None
    timeout_s: float | None = Field(default=None, gt=0)


class Standalone(BaseModel):
    """What the YAML file of a standalone workload says."""

    model_config = ConfigDict(extra="forbid", strict=True)

    schema_: Literal[1] = Field(alias="schema")
    kind: Literal["standalone"]
    name: Name
    summary: str = ""
    source: str = ""
    operation: str
    """What `ops_per_s` counts."""
    unit: Literal["Mops/s", "kops/s", "ops/s"] = "Mops/s"
    heap: Size | None = None
    """The most that a sample takes on the NVM; None: nothing worth checking."""
    subjects: dict[Name, str] = Field(min_length=1)
    baseline: Name
    cases: dict[Name, Case] = Field(min_length=1)
    figures: dict[Key, Figure] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _baseline_is_a_subject(self) -> Standalone:
        if self.baseline not in self.subjects:
            raise ValueError(f"'baseline' to be one of the subjects ({', '.join(self.subjects)})")
        return self

    @property
    def heap_bytes(self) -> int:
        return 0 if self.heap is None else parse_size(self.heap)

    def cases_of(self, profile: str) -> dict[str, Case]:
        """The cases that a profile runs."""
        return {
            name: case
            for name, case in self.cases.items()
            if case.profiles is None or profile in case.profiles
        }

    def document(self, profile: str) -> dict[str, Any]:
        """What a report needs to know, for the run's `config`."""
        return {
            "kind": self.kind,
            "operation": self.operation,
            "unit": self.unit,
            "baseline": self.baseline,
            "subjects": dict(self.subjects),
            "figures": {name: figure.model_dump() for name, figure in self.figures.items()},
            "cases": {name: case.parameters for name, case in self.cases_of(profile).items()},
        }


@dataclass(frozen=True)
class StandaloneCell:
    """One sample to take."""

    workload: Standalone
    case_name: str
    subject: str
    threads: int
    repeat: int
    seed: int

    @property
    def case(self) -> Case:
        return self.workload.cases[self.case_name]

    @property
    def label(self) -> str:
        return (
            f"{self.subject} {self.workload.name}/{self.case_name} x{self.threads} #{self.repeat}"
        )


def discover_standalone(root: Path) -> dict[str, Standalone]:
    """The project's standalone workloads by name, in alphabetical order."""
    found = {}
    for path in standalone_files(root):
        workload = yaml_source.load(path, Standalone)
        if workload.name != path.stem:
            raise BadInput(
                f"{yaml_source.shown(path)}, key 'name': found '{workload.name}', expected "
                f"'{path.stem}', the file's own name. Rename one of them."
            )
        found[workload.name] = workload
    return found


def select_subjects(workload: Standalone, wanted: Sequence[str] | None) -> list[str]:
    """The workload's subjects among the names of -a, in its own order; None: all."""
    if wanted is None:
        return list(workload.subjects)
    chosen = [name for name in workload.subjects if name in wanted]
    if not chosen:
        raise BadInput(
            f"-a {','.join(wanted)}: none of them is a subject of the workload '{workload.name}'"
            f"{nearest(wanted[0], workload.subjects)} Its subjects: {', '.join(workload.subjects)}."
        )
    return chosen


def standalone_plan(
    workloads: Sequence[tuple[Standalone, Sequence[str]]],
    threads: Sequence[int],
    repeats: int,
    seed: int,
    profile: str,
) -> list[StandaloneCell]:
    """Every sample of these workloads with these subjects, in the order in which they are taken:
    as in `plan`, rounds of repeats, cells shuffled in a round, subjects shuffled in a cell."""
    order = random.Random(derive_seed(seed, "standalone order"))  # noqa: S311 - repeatable, not secret
    plan: list[StandaloneCell] = []
    for repeat in range(repeats):
        cells = [
            (workload, subjects, name, count)
            for workload, subjects in workloads
            for name, case in workload.cases_of(profile).items()
            for count in threads
            if case.threads is None or count in case.threads
        ]
        order.shuffle(cells)
        for workload, subjects, name, count in cells:
            cell_seed = derive_seed(seed, workload.name, name, count, repeat)
            row = list(subjects)
            order.shuffle(row)
            plan += [
                StandaloneCell(workload, name, subject, count, repeat, cell_seed) for subject in row
            ]
    return plan
