# SPDX-License-Identifier: Apache-2.0
"""Which workloads there are: `workloads/<name>.yaml`, beside the C file of that name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from suite import yaml_source
from suite.allocators import Name
from suite.errors import BadInput, nearest
from suite.sweeps import Values, parse_values

__all__ = [
    "Budget",
    "Key",
    "Parameter",
    "ProfileName",
    "Recording",
    "Size",
    "Workload",
    "discover_workloads",
    "parse_size",
    "select_workloads",
    "standalone_files",
]

KEY_PATTERN = re.compile(r"[a-z][a-z0-9_-]*")
SIZE_PATTERN = re.compile(r"([0-9]+)([KMG]?)")
SIZE_FACTOR = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def parse_size(text: str | int) -> int:
    """Bytes of "64M" and the like; the suffixes are powers of 1024."""
    match = SIZE_PATTERN.fullmatch(str(text))
    if match is None or not int(match[1]):
        raise ValueError("a size such as 65536, 64K, 256M or 1G")
    return int(match[1]) * SIZE_FACTOR[match[2]]


def _check_size(text: str | int) -> str | int:
    parse_size(text)
    return text


def _check_key(key: str) -> str:
    if not KEY_PATTERN.fullmatch(key):
        raise ValueError("a parameter name of lower-case letters, digits, '-' and '_'")
    return key


Size = Annotated[str | int, AfterValidator(_check_size)]
Key = Annotated[str, AfterValidator(_check_key)]
ProfileName = Literal["quick", "default", "full"]


class Parameter(BaseModel):
    """A whole number that shapes a workload."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["int"]
    default: int
    min: int = Field(ge=0)
    max: int
    help: str = ""
    names: dict[str, int] = Field(default_factory=dict)
    """What people call certain values: on the command line, in ranges, and in tables."""

    @model_validator(mode="after")
    def _ordered(self) -> Parameter:
        if not self.min <= self.default <= self.max:
            raise ValueError("min <= default <= max")
        if any(not self.min <= value <= self.max for value in self.names.values()):
            raise ValueError(f"'names' of values between {self.min} and {self.max}")
        return self

    def values(self, text: Values) -> list[int]:
        """The values that are meant; ValueError says what was expected."""
        values = parse_values(text, self.names)
        for value in values:
            if not self.min <= value <= self.max:
                raise ValueError(f"values between {self.min} and {self.max}, found {value}")
        return values

    def shown(self, value: int) -> str:
        """The value as people call it."""
        named = (name for name, number in self.names.items() if number == value)
        return next(named, str(value))


class Budget(BaseModel):
    """How much of a profile's time a workload takes; what is absent is as the profile has it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    skip: bool = False
    """Left out, unless it is named with -w."""
    skip_slow: bool = False
    """The same for the allocators that are `slow`."""
    repeat: int | None = Field(default=None, ge=1)
    warmup_s: float | None = Field(default=None, ge=0)
    seconds: float | None = Field(default=None, gt=0)
    latency_s: float | None = Field(default=None, ge=0)
    timeout_s: float | None = Field(default=None, gt=0)


class Recording(BaseModel):
    """A program whose allocations are recorded for the workload to read."""

    model_config = ConfigDict(extra="forbid", strict=True)

    command: list[str] = Field(min_length=1)
    """A word with a '/' is a path beside the YAML file, if there is such a file."""
    stdin: str | None = None
    environment: dict[str, str] = Field(default_factory=dict)


class Workload(BaseModel):
    """What a workload's YAML file says."""

    model_config = ConfigDict(extra="forbid", strict=True)

    schema_: Literal[1] = Field(alias="schema")
    kind: Literal["adapter"] = "adapter"
    """Part of `nvdrive`, which drives an adapter; the other kind is in `suite.standalone`."""
    name: Name
    summary: str = ""
    source: str = ""
    """Where the workload comes from in the literature."""
    operation: str = ""
    """What `ops_per_s` counts, where it is not an allocation or a free.  Such a workload is not
    stepped over: that goes by allocations."""
    shape: Literal["windows", "trial"] = "windows"
    """A trial is a script with a beginning and an end (workloads/driver/trial.h)."""
    timed: bool = True
    """False: what it measures does not depend on time, so that a noisy sample is a good one."""
    needs: list[Literal["persistent", "crash-safe", "nested-slots", "walk", "threads"]] = Field(
        default_factory=list
    )
    """Capabilities that an adapter must have; crash-safe: persistent, and of a consistency."""
    threads: list[Annotated[int, Field(ge=1, le=1024)]] | None = None
    """Thread counts, where the command line states none."""
    max_threads: int | None = Field(default=None, ge=1)
    heap: Size
    recordings: dict[Name, Recording] = Field(default_factory=dict)
    """The workload reads a trace (`suite.recording`): of which programs there is one."""
    parameters: dict[Key, Parameter] = Field(default_factory=dict)
    profiles: dict[ProfileName, dict[Key, Values]] = Field(default_factory=dict)
    """What a profile sets other than the defaults: a value, or several (`suite.sweeps`), each of
    which is then a row of its own."""
    without: list[dict[Key, Values]] = Field(default_factory=list)
    """Combinations that make no sense, and are left out where several values are run."""
    budgets: dict[ProfileName, Budget] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _profiles_fit(self) -> Workload:
        for profile, values in self.profiles.items():
            self._known(f"profile '{profile}'", values)
        for combination in self.without:
            self._known("'without'", combination)
        return self

    def _known(self, where: str, settings: dict[str, Values]) -> None:
        for name, text in settings.items():
            known = self.parameters.get(name)
            if known is None:
                raise ValueError(f"{where} to name parameters of the workload only")
            try:
                known.values(text)
            except ValueError as error:
                raise ValueError(f"for '{name}' in {where}: {error}") from error

    @property
    def heap_bytes(self) -> int:
        return parse_size(self.heap)

    def settings(self, profile: str) -> dict[str, list[int]]:
        """Every parameter's values, as that profile sets them."""
        changes: dict[str, dict[str, Values]] = dict(self.profiles.items())
        stated = changes.get(profile, {})
        return {
            name: parameter.values(stated[name]) if name in stated else [parameter.default]
            for name, parameter in self.parameters.items()
        }

    def sensible(self, values: dict[str, int]) -> bool:
        """Whether `without` lets this combination pass."""
        return not any(
            all(values[name] in self.parameters[name].values(text) for name, text in each.items())
            for each in self.without
        )

    def budget(self, profile: str) -> Budget:
        budgets: dict[str, Budget] = dict(self.budgets.items())
        return budgets.get(profile, Budget())


class _Kind(BaseModel):
    """The one key that says which model a workload's file has."""

    kind: Any = "adapter"


def _files(root: Path, *, standalone: bool) -> list[Path]:
    paths = sorted((root / "workloads").glob("*.yaml"))
    return [
        path for path in paths if (yaml_source.load(path, _Kind).kind == "standalone") == standalone
    ]


def standalone_files(root: Path) -> list[Path]:
    """The files of the workloads that have an executable of their own."""
    return _files(root, standalone=True)


def discover_workloads(root: Path) -> dict[str, Workload]:
    """The project's workloads of adapters by name, in alphabetical order."""
    workloads = {}
    for path in _files(root, standalone=False):
        workload = yaml_source.load(path, Workload)
        if workload.name != path.stem:
            raise BadInput(
                f"{yaml_source.shown(path)}, key 'name': found '{workload.name}', expected "
                f"'{path.stem}', the file's own name. Rename one of them."
            )
        workloads[workload.name] = workload
    return workloads


def select_workloads(known: dict[str, Workload], wanted: Sequence[str] | None) -> list[Workload]:
    """The named workloads in the stated order; None or "all": every one."""
    if not wanted or list(wanted) == ["all"]:
        return list(known.values())
    chosen: dict[str, Workload] = {}
    for name in wanted:
        if name not in known:
            raise BadInput(
                f"There is no workload called '{name}'{nearest(name, known)} Known here: "
                f"{', '.join(known)}."
            )
        chosen[name] = known[name]
    return list(chosen.values())
