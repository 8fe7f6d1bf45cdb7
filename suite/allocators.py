# SPDX-License-Identifier: Apache-2.0
"""Which allocators there are: the folders with an `allocator.yaml`.

A folder describes one adapter.  Each *variant* of it (the folder's own name
first, then the names under `variants`) is one row of the tables: the same
adapter with other options.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from suite import yaml_source
from suite.errors import BadInput, nearest
from suite.yaml_source import shown

__all__ = ["Allocator", "AllocatorFile", "Registry", "VariantFile", "discover"]

FILE_NAME = "allocator.yaml"
COMMON_IMAGE = "job"
"""The image of every job whose allocator has none of its own."""
NAME_PATTERN = re.compile(r"[a-z][a-z0-9-]{0,62}")
OPTION_PATTERN = re.compile(r"[A-Za-z0-9_.:/+-]+")
VARIABLE_PATTERN = re.compile(r"[A-Z_][A-Z0-9_]*")
FORBIDDEN_VARIABLES = frozenset({"LD_PRELOAD", "LD_LIBRARY_PATH", "PATH", "LD_AUDIT"})


def _check_name(name: str) -> str:
    if not NAME_PATTERN.fullmatch(name):
        raise ValueError("a name of lower-case letters, digits and '-', beginning with a letter")
    return name


def _check_option(value: str | int | bool) -> str | int | bool:
    if not OPTION_PATTERN.fullmatch(str(value)):
        raise ValueError("an option of letters, digits and '_.:/+-' only")
    return value


def _check_inside(text: str) -> str:
    parts = Path(text).parts
    if not parts or Path(text).is_absolute() or ".." in parts:
        raise ValueError("a path inside the allocator's folder")
    return text


def _check_source(text: str) -> str:
    path = Path(text)
    if not path.parts or path.is_absolute():
        raise ValueError("a path relative to the allocator's folder")
    return text


def _check_variable(name: str) -> str:
    if not VARIABLE_PATTERN.fullmatch(name) or name in FORBIDDEN_VARIABLES:
        raise ValueError("an environment variable that doesn't change which code is loaded")
    return name


Name = Annotated[str, AfterValidator(_check_name)]
OptionKey = Annotated[str, AfterValidator(_check_option)]
OptionValue = Annotated[str | int | bool, AfterValidator(_check_option)]
InsidePath = Annotated[str, AfterValidator(_check_inside)]
SourcePath = Annotated[str, AfterValidator(_check_source)]
Variable = Annotated[str, AfterValidator(_check_variable)]
Workloads = dict[Name, dict[str, list[int]]]
Kind = Literal["persistent", "volatile"]
Consistency = Literal["none", "log", "gc", "tx"]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class VariantFile(_File):
    """One more row in the tables: the same adapter with other options."""

    name: Name
    summary: str = ""
    kind: Kind | None = None
    consistency: Consistency | None = None
    stands_as: Kind | None = None
    options: dict[OptionKey, OptionValue] = Field(default_factory=dict)
    fault_options: dict[OptionKey, OptionValue] = Field(default_factory=dict)
    workloads: Workloads | None = None


class AdapterFile(_File):
    """Where the adapter comes from: `sources` to build, or a prebuilt `library`.  Or there is none,
    but a `program` that speaks the driver's protocol by itself (what is no allocator)."""

    sources: list[SourcePath] = Field(default_factory=list)
    headers: list[str] = Field(default_factory=list)
    """Without which the sources can't be built."""
    pkgconfig: list[str] = Field(default_factory=list)
    link: list[str] = Field(default_factory=list)
    uses: list[str] = Field(default_factory=list)
    library: InsidePath | None = None
    program: InsidePath | None = None
    image: str | None = None
    """Of the program: the Debian release of an image of its own, which the folder's Dockerfile makes;
    None: the jobs' common image."""

    @model_validator(mode="after")
    def _one_origin(self) -> AdapterFile:
        if sum(map(bool, (self.library, self.sources, self.program))) != 1:
            raise ValueError(
                "either 'sources' (to build) or 'library' (prebuilt) or 'program', one of them"
            )
        if self.image and not self.program:
            raise ValueError("'image' beside a 'program' only")
        return self


class DebianFile(_File):
    """Debian packages that the adapter needs."""

    build: list[str] = Field(default_factory=list)
    run: list[str] = Field(default_factory=list)


class KnownFinding(_File):
    """A failure that is understood well enough to be reproduced without us.

    The tables show it like any other; only the exit code of `bench`, whose
    business is measuring, no longer depends on it.
    """

    document: str
    fault: str
    verdicts: list[str]


class AllocatorFile(_File):
    """What an `allocator.yaml` says."""

    schema_: Literal[1] = Field(alias="schema")
    name: Name
    summary: str = ""
    homepage: str = ""
    licence: str = ""
    kind: Kind
    consistency: Consistency = "none"
    adapter: AdapterFile
    workloads: Workloads | None = None
    """The only workloads that it can run, and of their parameters the only values; None: all."""
    debian: DebianFile = Field(default_factory=DebianFile)
    environment: dict[Variable, str] = Field(default_factory=dict)
    preload: list[str] = Field(default_factory=list)
    """Libraries of the build for LD_PRELOAD where persistence events are to be seen."""
    stands_as: Kind | None = None
    """Of which kind its rows in the bench are; None: of `kind`.  `volatile` for something persistent
    with options under which the bench's operations are not."""
    options: dict[OptionKey, OptionValue] = Field(default_factory=dict)
    fault_options: dict[OptionKey, OptionValue] = Field(default_factory=dict)
    """What fault campaigns put in the place of options."""
    fill_tolerance: float | None = Field(default=None, ge=0, lt=1)
    """Share of the fill baseline that may be missing after recovery and drain."""
    slow: bool = False
    """An operation takes time in proportion to the blocks that there are: some workloads would
    take hours, and their budgets leave it out (`skip_slow`)."""
    known_findings: list[KnownFinding] = Field(default_factory=list)
    variants: list[VariantFile] = Field(default_factory=list)

    @model_validator(mode="after")
    def _rows_make_sense(self) -> AllocatorFile:
        for variant in (None, *self.variants):
            self._check_row(variant)
        return self

    def _check_row(self, variant: VariantFile | None) -> None:
        """Of the file's own row, or of a variant's."""
        where = f"'{variant.name if variant else self.name}': "
        options = self.options_of(variant)
        stated = variant.fault_options if variant else self.fault_options
        unknown = next((key for key in stated if key not in options), None)
        if unknown is not None:
            raise ValueError(
                f"{where}'fault_options' with keys that its 'options' have "
                f"({', '.join(options) or 'none'}), not '{unknown}'"
            )
        judged = self.kind_of(variant) == "persistent" and not self.adapter.program
        if stated and not judged:
            raise ValueError(
                f"{where}'fault_options' only where campaigns judge: an adapter of kind: persistent"
            )
        if self.kind_of(variant) == "volatile" and self.stands_as_of(variant) == "persistent":
            raise ValueError(f"{where}'stands_as: persistent' only beside 'kind: persistent'")

    def kind_of(self, variant: VariantFile | None) -> Kind:
        return (variant.kind if variant else None) or self.kind

    def stands_as_of(self, variant: VariantFile | None) -> Kind:
        stated = (variant.stands_as if variant else None) or self.stands_as
        return stated or self.kind_of(variant)

    def options_of(self, variant: VariantFile | None) -> dict[str, str | int | bool]:
        return {**self.options, **(variant.options if variant else {})}

    def fault_options_of(self, variant: VariantFile | None) -> dict[str, str | int | bool]:
        return {**self.fault_options, **(variant.fault_options if variant else {})}


@dataclass(frozen=True)
class Allocator:
    """One row of the tables: an adapter with its options."""

    name: str
    """Of the variant; unique in a registry."""
    base: str
    """Of the folder, hence of the adapter."""
    file: AllocatorFile
    folder: Path
    outside: bool
    summary: str
    persistent: bool
    consistency: str
    options: str
    """As the adapter gets them, in the bench."""
    fault_options: str = ""
    """The same in fault campaigns."""
    stands_as: Kind = "volatile"
    """Of which kind its rows in the bench are."""
    workloads: Workloads | None = None

    def runs(self, workload: str, values: Mapping[str, int]) -> bool:
        """Whether it is made for a workload with these parameters; capabilities are another matter."""
        if self.workloads is None:
            return True
        limits = self.workloads.get(workload)
        return limits is not None and all(values.get(key) in limits[key] for key in limits)

    @property
    def program(self) -> Path | None:
        """What runs its jobs instead of nvdrive and an adapter."""
        program = self.file.adapter.program
        return self.folder / program if program else None

    @property
    def judged(self) -> bool:
        """Whether fault campaigns can judge it: they need an adapter of something persistent."""
        return self.persistent and self.program is None

    @property
    def image(self) -> str:
        """The image that its jobs run in: its own, or the common one."""
        return self.folder.name if self.file.adapter.image else COMMON_IMAGE

    @property
    def prebuilt(self) -> Path | None:
        library = self.file.adapter.library
        return self.folder / library if library else None


class Registry:
    """All allocators that a command may name."""

    def __init__(self, allocators: Iterable[Allocator]) -> None:
        self._by_name: dict[str, Allocator] = {}
        for allocator in allocators:
            other = self._by_name.get(allocator.name)
            if other is not None:
                raise BadInput(
                    f"Two allocators are called '{allocator.name}': {shown(other.folder)} and "
                    f"{shown(allocator.folder)}. Expected each name once. Rename one of them in its "
                    f"{FILE_NAME}."
                )
            self._by_name[allocator.name] = allocator

    def names(self) -> list[str]:
        return list(self._by_name)

    def all(self) -> list[Allocator]:
        return list(self._by_name.values())

    def select(self, wanted: Sequence[str] | None) -> list[Allocator]:
        """The named allocators in the stated order; None or "all": every one."""
        if not wanted or list(wanted) == ["all"]:
            return self.all()
        chosen: dict[str, Allocator] = {}
        for name in wanted:
            allocator = self._by_name.get(name)
            if allocator is None:
                raise BadInput(
                    f"There is no allocator called '{name}'{nearest(name, self._by_name)} Known "
                    f"here: {', '.join(self._by_name)}. An allocator outside the tree is added "
                    "with --allocator-path DIR."
                )
            chosen[name] = allocator
        return list(chosen.values())


def discover(root: Path, outside: Sequence[Path] = ()) -> Registry:
    """The allocators of the project at `root` and those of the folders outside."""
    found = _folders_in(root / "allocators")
    allocators = [row for folder in found for row in _rows(folder, outside=False)]
    for path in outside:
        for folder in outside_folders(path):
            allocators += _rows(folder, outside=True)
    return Registry(allocators)


def outside_folders(path: Path) -> list[Path]:
    """`path` itself if it holds an allocator, else its sub-folders that do."""
    if not path.is_dir():
        raise BadInput(
            f"--allocator-path {path}: there is no such folder. Expected a folder with an "
            f"{FILE_NAME}, or a folder of such folders."
        )
    path = path.resolve()
    if _has_file(path):
        return [path]
    folders = _folders_in(path)
    if not folders:
        raise BadInput(
            f"--allocator-path {path}: found no {FILE_NAME} in it nor in its sub-folders. Expected "
            "a folder that describes an allocator; docs/ has a tutorial that writes one."
        )
    return folders


def _folders_in(path: Path) -> list[Path]:
    return [folder for folder in sorted(path.iterdir()) if _has_file(folder)]


def _has_file(folder: Path) -> bool:
    return (folder / FILE_NAME).is_file()


def _rows(folder: Path, *, outside: bool) -> list[Allocator]:
    path = folder / FILE_NAME
    file = yaml_source.load(path, AllocatorFile)
    _check_stays_inside(path, file, folder)
    rows = [_row(file, folder, outside, file.name, None)]
    rows += [_row(file, folder, outside, each.name, each) for each in file.variants]
    return rows


def _check_stays_inside(path: Path, file: AllocatorFile, folder: Path) -> None:
    """Links included: a library lies in the folder; sources do, or in one beside it
    (a folder of allocators may share some)."""
    named = [(name, folder.parent) for name in file.adapter.sources]
    own = (file.adapter.library, file.adapter.program)
    named += [(name, folder) for name in own if name is not None]
    for name, limit in named:
        if not (folder / name).resolve().is_relative_to(limit.resolve()):
            raise BadInput(
                f"{shown(path)} names '{name}', which leads out of {limit}. Expected a file in "
                "there, not a way out by '..' or a link. Put the file itself there."
            )


def _row(
    file: AllocatorFile, folder: Path, outside: bool, name: str, variant: VariantFile | None
) -> Allocator:
    options = file.options_of(variant)
    return Allocator(
        name=name,
        base=file.name,
        file=file,
        folder=folder,
        outside=outside,
        summary=(variant.summary if variant else "") or file.summary,
        persistent=file.kind_of(variant) == "persistent",
        consistency=(variant.consistency if variant else None) or file.consistency,
        workloads=(variant.workloads if variant else None) or file.workloads,
        options=_joined(options),
        fault_options=_joined({**options, **file.fault_options_of(variant)}),
        stands_as=file.stands_as_of(variant),
    )


def _joined(options: Mapping[str, str | int | bool]) -> str:
    return ",".join(f"{key}={_option(value)}" for key, value in options.items())


def _option(value: str | int | bool) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)
