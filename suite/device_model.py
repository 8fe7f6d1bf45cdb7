# SPDX-License-Identifier: Apache-2.0
"""Models of devices that this machine has not: `--pm-model`.

A model is a YAML file in `suite/device_models/`: what the device takes more than DRAM, each figure
with its source and how it follows from it.  The driver makes the allocators wait by it
(workloads/driver/device.h, which says what the model can do and what it can't).

A run with a model is labelled emulated: in `config.pm_model` and under every table.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from suite import yaml_source
from suite.errors import BadInput, nearest

__all__ = ["FIGURES", "NO_MODEL", "DeviceModel", "find_model", "model_names"]

NO_MODEL = "none"
FOLDER = Path(__file__).parent / "device_models"

FIGURES = {
    "fence_ns": "an effective fence",
    "line_ns": "each further line under it",
    "media_write_ns": "the medium, for each unit written, once its buffer is full",
    "reflush_ns": "a line flushed again within the last 4",
    "read_ns": "a read of an evicted line",
    "read_buffered_ns": "such a read of a unit that the device's buffer holds",
    "unit_bytes": "the unit in which the medium is written",
    "units": "units that the buffer holds",
    "flush_evicts": "1: a flush removes the line from the cache",
}
"""What each figure is about; the driver wants every one."""


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Figure(_File):
    """One figure, and why it is that."""

    value: Annotated[int, Field(ge=0, le=1_000_000)]
    source: str
    """Key in `sources`."""
    how: Annotated[str, Field(min_length=1)]


class DeviceModel(_File):
    """What a model's file says."""

    schema_: Literal[1] = Field(alias="schema")
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")]
    summary: str
    figures: dict[str, Figure]
    sources: dict[str, Annotated[str, Field(min_length=1)]]

    @model_validator(mode="after")
    def _complete(self) -> DeviceModel:
        missing = [name for name in FIGURES if name not in self.figures]
        unknown = [name for name in self.figures if name not in FIGURES]
        if missing or unknown:
            raise ValueError(
                f"every figure of {', '.join(FIGURES)}, and no other (missing: "
                f"{', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'})"
            )
        for name, figure in self.figures.items():
            if figure.source not in self.sources:
                raise ValueError(f"'{figure.source}', the source of {name}, among the sources")
        return self

    @cached_property
    def argument(self) -> str:
        """For `nvdrive bench --device`."""
        parts = [f"name={self.name}"]
        return ",".join(parts + [f"{name}={self.figures[name].value}" for name in FIGURES])

    def document(self) -> dict[str, object]:
        """For a run's `config`."""
        return {
            "name": self.name,
            "emulated": True,
            "figures": {name: self.figures[name].value for name in FIGURES},
        }


def model_names() -> list[str]:
    """What `--pm-model` takes."""
    return [NO_MODEL, *sorted(path.stem for path in FOLDER.glob("*.yaml"))]


def find_model(name: str) -> DeviceModel | None:
    """The model of that name; None: no model is to be used."""
    known = model_names()
    if name not in known:
        raise BadInput(
            f"--pm-model {name}: there is no device model called '{name}'{nearest(name, known)} "
            f"Choose one of: {', '.join(known)}."
        )
    if name == NO_MODEL:
        return None
    model = yaml_source.load(FOLDER / f"{name}.yaml", DeviceModel)
    if model.name != name:
        raise BadInput(
            f"{FOLDER / name}.yaml, key 'name': found '{model.name}', expected '{name}', the file's "
            "own name. Rename one of them."
        )
    return model
