# SPDX-License-Identifier: Apache-2.0
"""Finds or makes the native programs: `nvdrive`, the adapters, the probe library.

Three origins, in this order: NVCRUCIBLE_BUILD names a finished build, used as
it is; the checkout's `build/`, made or brought up to date with meson; for an
allocator outside the tree, a build of its own beside that one, or the
prebuilt library that its folder names.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, Field

from suite.allocators import Allocator
from suite.errors import BadInput, EnvironmentMissing
from suite.yaml_source import shown

__all__ = [
    "BUILD_VARIABLE",
    "RECIPE",
    "Build",
    "Installation",
    "Recipe",
    "find_build",
    "install",
    "read_build",
    "split_modules",
]

BUILD_VARIABLE = "NVCRUCIBLE_BUILD"
RECIPE = "recipe.json"
LENS_SUFFIX = ".lens"
SETUP_HINT = "Run `make build` in the checkout, which installs what it needs where it may"
OUTPUT_KEPT = 12
"""Lines of a failed build's output that the error shows."""


class Recipe(BaseModel):
    """How a build was made: its `allocators/recipe.json`."""

    compiler: str = ""
    """With its version."""
    options: str = ""
    """Those of the build that change the code."""
    packages: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Allocator to Debian packages that it needs at run time, and their versions when it was built."""


@dataclass(frozen=True)
class Build:
    """A finished build, at `root` in the file system that the jobs see."""

    root: Path
    adapters: Mapping[str, Path]
    """Allocator name to adapter; what was not built is not in it."""
    lenses: Mapping[str, Path] = field(default_factory=dict)
    """Allocator name to the adapter that is compiled for the power-fail laboratory's lens."""
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Allocator name to the reason why its adapter was not built."""
    in_image: bool = False
    """The files lie in a runner's image, not on this machine."""
    recipe: Recipe = field(default_factory=Recipe)

    @property
    def nvdrive(self) -> Path:
        return self.root / "workloads" / "nvdrive"

    @property
    def nvlab(self) -> Path:
        """The power-fail laboratory."""
        return self.root / "faults" / "nvlab"

    def standalone(self, workload: str) -> Path:
        """The executable of a standalone workload."""
        return self.root / "workloads" / "standalone" / workload

    @property
    def probe(self) -> Path:
        return self.root / "faults" / "libpmem-probe.so"

    @property
    def recorder(self) -> Path:
        """The library to preload that records allocations."""
        return self.root / "workloads" / "record" / "libnvrecord.so"

    @property
    def inspector(self) -> Path:
        return self.root / "allocators" / "nvmalloc" / "nvm-inspect"


@dataclass(frozen=True)
class Installation:
    """Everything native that a command's jobs may load."""

    build: Build
    outside: Mapping[str, Path]
    """Adapters of allocators outside the tree, by the allocator's base name."""

    def adapter(self, allocator: Allocator) -> Path:
        """The adapter's file; `EnvironmentMissing` says why there is none."""
        if allocator.outside:
            return self.outside[allocator.base]
        path = self.build.adapters.get(allocator.base)
        if path is not None:
            return path
        reason = self.build.skipped.get(allocator.base, "the build has no adapter of that name")
        packages = " ".join(allocator.file.debian.build)
        what = (
            f"Install its library (Debian: `apt-get install {packages}`)"
            if packages
            else "Build it"
        )
        raise EnvironmentMissing(
            f"The allocator '{allocator.name}' was not built: {reason}. Expected its adapter "
            f"in {self.build.root / 'allocators'}. {what}, then build again with `make build`."
        )

    def lens(self, allocator: Allocator) -> Path | None:
        """The adapter compiled for the power-fail laboratory's lens, if there is one."""
        if allocator.outside:
            path = self.outside[allocator.base]
            lens = path.with_name(f"{path.stem}.lens.so")
            return lens if lens.is_file() else None
        return self.build.lenses.get(allocator.base)

    def built(self, allocator: Allocator) -> str:
        """Of which package its library is, and how the adapter (and nvmalloc) was compiled."""
        recipe = self.build.recipe
        packages = recipe.packages.get(allocator.base, {})
        parts = [f"{name} {version}" for name, version in packages.items()]
        if allocator.program is None and recipe.compiler:
            parts.append(f"{recipe.compiler} {recipe.options}".strip())
        return ", ".join(parts)

    def program(self, allocator: Allocator | None) -> Path:
        """What runs a job of this allocator: nvdrive, or a program of its own."""
        own = allocator.program if allocator is not None else None
        if own is None or allocator is None:
            return self.build.nvdrive
        if self.build.in_image and not allocator.outside:
            # An image keeps the project as a checkout has it: build/ lies beside allocators/.
            return self.build.root.parent / "allocators" / allocator.folder.name / own.name
        return own

    def folders(self) -> tuple[Path, ...]:
        """What jobs must be able to read."""
        inside = () if self.build.in_image else (self.build.root,)
        return (*inside, *sorted({path.parent for path in self.outside.values()}))


def find_build(root: Path) -> Build:
    """The project's build, made or brought up to date if need be."""
    stated = os.environ.get(BUILD_VARIABLE)
    if stated:
        build = read_build(Path(stated).resolve())
        if not build.nvdrive.is_file():
            raise EnvironmentMissing(
                f"{BUILD_VARIABLE} is set to {stated}, where there is no workloads/nvdrive. Expected "
                f"a finished meson build of nvcrucible. Build there, or unset {BUILD_VARIABLE}."
            )
        return build
    folder = root / "build"
    _make(root, folder, ["-Dtests=false"], "the native programs")
    build = read_build(folder)
    if not build.nvdrive.is_file():
        raise EnvironmentMissing(
            f"The build in {shown(folder)} has no workloads/nvdrive. Expected the driver there. "
            f"Delete the folder and build again. {SETUP_HINT}."
        )
    return build


def install(root: Path, build: Build, allocators: Sequence[Allocator]) -> Installation:
    """The build together with the adapters of the allocators outside the tree."""
    outside: dict[str, Path] = {}
    for allocator in allocators:
        if allocator.outside and allocator.base not in outside:
            outside[allocator.base] = _outside_adapter(root, allocator)
    return Installation(build, outside)


def _outside_adapter(root: Path, allocator: Allocator) -> Path:
    prebuilt = allocator.prebuilt
    file = shown(allocator.folder / "allocator.yaml")
    if prebuilt is not None:
        if not prebuilt.is_file():
            raise EnvironmentMissing(
                f"{file} names the prebuilt adapter '{prebuilt.name}', which is not in "
                f"{allocator.folder}. Expected a shared object there. Build it, or name its sources "
                "under 'adapter: sources:' instead."
            )
        return prebuilt.resolve()
    for name in allocator.file.adapter.sources:
        if not (allocator.folder / name).is_file():
            raise BadInput(
                f"{file}, key 'adapter.sources': found '{name}', but there is no such file in "
                f"{allocator.folder}. Correct the name, or put the file there."
            )
    mark = hashlib.sha256(str(allocator.folder).encode()).hexdigest()[:12]
    folder = _outside_root(root) / f"{allocator.base}-{mark}"
    # meson separates the items of an array option by commas.
    arguments = [f"-Dallocator_path=['{_meson_string(allocator.folder)}']"]
    _make(
        root,
        folder,
        [*arguments, "-Donly_outside=true", "-Dtests=false"],
        f"the adapter of '{allocator.base}' ({allocator.folder})",
        theirs=True,
    )
    made = read_build(folder)
    path = made.adapters.get(allocator.base)
    if path is None:
        reason = made.skipped.get(allocator.base, "meson built no adapter of that name")
        raise EnvironmentMissing(
            f"The allocator '{allocator.base}' of {allocator.folder} was not built: {reason}. "
            "Expected all that its allocator.yaml names under 'adapter'. Install the library's "
            "development files, or correct the name."
        )
    return path


def _meson_string(path: Path) -> str:
    text = str(path)
    if "'" in text or "\\" in text:
        raise BadInput(
            f"The path {text} has a quote or a backslash in it, which the build can't take. Move "
            "the allocator's folder."
        )
    return text


def _outside_root(root: Path) -> Path:
    if os.access(root, os.W_OK):
        return root / "build-outside"
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "nvcrucible" / "build-outside"


def read_build(root: Path) -> Build:
    """What a build folder holds; nothing, where there is none."""
    folder = root / "allocators"
    skipped: dict[str, str] = {}
    with contextlib.suppress(OSError, ValueError):
        skipped = json.loads((folder / "skipped.json").read_text(encoding="utf-8"))
    adapters, lenses = split_modules(sorted(folder.glob("*.so")))
    recipe = Recipe()
    with contextlib.suppress(OSError, ValueError):
        recipe = Recipe.model_validate_json((folder / RECIPE).read_text(encoding="utf-8"))
    return Build(root, adapters, lenses, skipped, recipe=recipe)


def split_modules(modules: Iterable[Path]) -> tuple[dict[str, Path], dict[str, Path]]:
    """The shared objects of a build's allocators, by name: what jobs load, and NAME.lens.so,
    which the power-fail laboratory loads."""
    adapters: dict[str, Path] = {}
    lenses: dict[str, Path] = {}
    for path in modules:
        if path.stem.endswith(LENS_SUFFIX):
            lenses[path.stem.removesuffix(LENS_SUFFIX)] = path
        else:
            adapters[path.stem] = path
    return adapters, lenses


def _make(
    root: Path, folder: Path, options: Sequence[str], what: str, *, theirs: bool = False
) -> None:
    """Configures (once) and compiles; waits for another process that does."""
    meson = _tool("meson")
    _tool("ninja")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentMissing(
            f"The build folder {folder} can't be made: {error.strerror}. Make the checkout "
            f"writable, or name a finished build with {BUILD_VARIABLE}."
        ) from error
    known = folder / ".nvcrucible.found"
    found = _discovered(root)
    with _locked(folder / ".nvcrucible.lock"):
        if not (folder / "build.ninja").is_file():
            command = [meson, "setup", *options, str(folder), str(root)]
            _run(command, f"configuring {what}", theirs=False)
        elif not known.is_file() or known.read_text(encoding="utf-8") != found:
            command = [meson, "setup", "--reconfigure", str(folder), str(root)]
            _run(command, f"configuring {what}", theirs=False)
        known.write_text(found, encoding="utf-8")
        _run([meson, "compile", "-C", str(folder)], f"compiling {what}", theirs=theirs)


def _discovered(root: Path) -> str:
    """What meson looks up when it configures, and ninja would not notice: a new folder of an
    allocator, a new workload."""
    patterns = ("allocators/*/allocator.yaml", "workloads/*.c", "workloads/driver/**/*.c")
    return "".join(f"{path}\n" for pattern in patterns for path in sorted(root.glob(pattern)))


def _tool(name: str) -> str:
    beside = Path(sys.executable).parent / name
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which(name)
    if found is None:
        raise EnvironmentMissing(
            f"The program '{name}' was not found, and the native programs have to be built. "
            f"{SETUP_HINT}, or name a finished build with {BUILD_VARIABLE}."
        )
    return found


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(command: Sequence[str], doing: str, *, theirs: bool) -> None:
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    result = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        env={**os.environ, "PATH": search},
    )
    if result.returncode == 0:
        return
    lines = result.stdout.strip().splitlines()
    telling = [line for line in lines if "error" in line.lower()] or lines
    detail = "\n  ".join(telling[:OUTPUT_KEPT])
    failure = BadInput if theirs else EnvironmentMissing
    advice = (
        "Correct the allocator's sources or its allocator.yaml."
        if theirs
        else f"{SETUP_HINT}; a compiler (gcc or clang), meson and ninja must be there."
    )
    raise failure(f"Failed while {doing}: `{' '.join(command)}` said:\n  {detail}\n{advice}")
