# SPDX-License-Identifier: Apache-2.0
"""Which workloads there are: `workloads/<name>.yaml`, beside the C file of that name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from suite import yaml_source
from suite.allocators import Name
from suite.errors import BadInput, nearest

__all__ = ["Workload", "discover_workloads", "parse_size", "select_workloads"]

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


class Parameter(BaseModel):
    """A whole number that shapes a workload."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["int"]
    default: int
    min: int = Field(ge=0)
    max: int
    help: str = ""

    @model_validator(mode="after")
    def _ordered(self) -> Parameter:
        if not self.min <= self.default <= self.max:
            raise ValueError("min <= default <= max")
        return self


class Workload(BaseModel):
    """What a workload's YAML file says."""

    model_config = ConfigDict(extra="forbid", strict=True)

    schema_: Literal[1] = Field(alias="schema")
    name: Name
    summary: str = ""
    source: str = ""
    """Where the workload comes from in the literature."""
    heap: Size
    parameters: dict[Key, Parameter] = Field(default_factory=dict)
    profiles: dict[Literal["quick", "default", "full"], dict[Key, int]] = Field(
        default_factory=dict
    )
    """What a profile sets other than the defaults."""

    @model_validator(mode="after")
    def _profiles_fit(self) -> Workload:
        for profile, values in self.profiles.items():
            for name, value in values.items():
                known = self.parameters.get(name)
                if known is None:
                    raise ValueError(f"profile '{profile}' to name parameters of the workload only")
                if not known.min <= value <= known.max:
                    raise ValueError(
                        f"'{name}' of profile '{profile}' between {known.min} and {known.max}"
                    )
        return self

    @property
    def heap_bytes(self) -> int:
        return parse_size(self.heap)

    def parameter_values(self, profile: str) -> dict[str, int]:
        """Every parameter, as that profile sets it."""
        defaults = {name: parameter.default for name, parameter in self.parameters.items()}
        changes: dict[str, dict[str, int]] = dict(self.profiles.items())
        return {**defaults, **changes.get(profile, {})}


def discover_workloads(root: Path) -> dict[str, Workload]:
    """The project's workloads by name, in alphabetical order."""
    workloads = {}
    for path in sorted((root / "workloads").glob("*.yaml")):
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
