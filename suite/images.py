# SPDX-License-Identifier: Apache-2.0
"""The container images: which there are, whether they are current, how they are made.

A target is a stage of the Dockerfile on a Debian base (suite.base_images).  Its
label `nvcrucible.source` is the checksum of every file that went in, so "is it
current?" needs no build.

The network is needed by apt only.  A build uses the host's network, because
the engine's own may have no way to the mirror.  Python packages come from
wheels that are fetched on the host, since pip's configuration (index,
certificates) belongs to the host and has no place in an image.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import time
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import docker
import requests.exceptions
from docker.errors import APIError

from suite import yaml_source
from suite.allocators import AllocatorFile
from suite.base_images import Say, ensure_base, proxy_environment
from suite.engine import connect_engine, inspect_image
from suite.errors import CrucibleError, EnvironmentMissing, RunnerUnavailable
from suite.project import project_root

__all__ = [
    "IMAGE_HOME",
    "SOURCE_LABEL",
    "TARGETS",
    "Target",
    "all_targets",
    "ensure_target",
    "is_current",
    "main",
    "source_checksum",
]

IMAGE_HOME = Path("/opt/nvcrucible")
"""Where an image keeps the project; its build is in `IMAGE_HOME/build`."""
SOURCE_LABEL = "nvcrucible.source"
WHEELS = Path("build/wheels")
IMAGE_PYTHON = "3.11"
"""Python of Debian 12, for which the orchestrator's wheels are fetched."""
BUILD_PATIENCE_S = 900


@dataclass(frozen=True)
class Target:
    """One image that the Dockerfile makes."""

    stage: str
    suite: str
    """Debian's name of the base."""
    sources: tuple[str, ...]
    """Files and folders of the project that the stage is made of."""
    needs_wheels: bool = False
    dockerfile: str = "Dockerfile"
    """Of an allocator's own image: the one in its folder, which has one stage."""

    @property
    def tag(self) -> str:
        return f"nvcrucible-{self.stage}:{self.suite}"

    @property
    def base(self) -> str:
        return f"debian:{self.suite}-slim"


NATIVE_SOURCES = (
    "Dockerfile",
    "LICENSE",
    ".ci/allocator-packages",
    ".ci/packages",
    "meson.build",
    "meson_options.txt",
    "allocators",
    "workloads",
    "faults",
)
PYTHON_SOURCES = (*NATIVE_SOURCES, "pyproject.toml", "README.md", "suite")
TARGETS = {
    "job": Target("job", "bookworm", NATIVE_SOURCES),
    "orchestrator": Target("orchestrator", "bookworm", PYTHON_SOURCES, needs_wheels=True),
    "test": Target(
        "test", "bookworm", (*PYTHON_SOURCES, ".ci", "docs", "tests"), needs_wheels=True
    ),
}


def all_targets(root: Path) -> dict[str, Target]:
    """The images of this project: those above, and one for each allocator whose program wants an
    image of its own, called after its folder."""
    found = dict(TARGETS)
    for path in sorted((root / "allocators").glob("*/Dockerfile")):
        folder = path.parent
        suite = yaml_source.load(folder / "allocator.yaml", AllocatorFile).adapter.image
        if suite is not None:
            inside = f"allocators/{folder.name}"
            found[folder.name] = Target(
                folder.name, suite, ("LICENSE", inside), dockerfile=f"{inside}/Dockerfile"
            )
    return found


IGNORED = ("__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis")


# --- What an image is made of -------------------------------------------------------------


def _source_files(root: Path, target: Target) -> list[Path]:
    """Every file of the target, relative to `root`, in an order that never changes."""
    found: list[Path] = []
    for name in target.sources:
        path = root / name
        if path.is_dir():
            found += [
                file
                for file in path.rglob("*")
                if file.is_file() and not set(IGNORED) & set(file.relative_to(root).parts)
            ]
        elif path.is_file():
            found.append(path)
    return sorted({file.relative_to(root) for file in found})


def source_checksum(root: Path, target: Target) -> str:
    """SHA-256 over name, executable bit and content of all that goes into the image."""
    total = hashlib.sha256()
    for name in _source_files(root, target):
        file = root / name
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        total.update(f"{name}\0{os.access(file, os.X_OK)}\0{content}\n".encode())
    return total.hexdigest()


def _context(root: Path, files: Iterable[Path]) -> io.BytesIO:
    """The build context: owner and times left out, so that layers are found in the cache."""

    def anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        entry.mtime = 0
        entry.mode = 0o755 if entry.mode & 0o100 else 0o644
        return entry

    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in files:
            archive.add(root / name, arcname=str(name), filter=anonymous)
    stream.seek(0)
    return stream


def is_current(client: docker.APIClient, root: Path, target: Target) -> bool:
    """Whether the engine has this image, made of exactly the present sources."""
    return _label(client, target) == source_checksum(root, target)


def _label(client: docker.APIClient, target: Target) -> str | None:
    image = inspect_image(client, target.tag)
    labels = (image or {}).get("Config", {}).get("Labels") or {}
    return cast("str | None", labels.get(SOURCE_LABEL))


# --- The targets --------------------------------------------------------------------------


def ensure_target(client: docker.APIClient, root: Path, target: Target, say: Say) -> bool:
    """After this the engine has a current image of the target; True if it had to be built."""
    checksum = source_checksum(root, target)
    if _label(client, target) == checksum:
        return False
    ensure_base(client, target.suite, say)
    files = _source_files(root, target)
    if target.needs_wheels:
        _fetch_wheels(root, say)
        files += sorted(file.relative_to(root) for file in (root / WHEELS).glob("*.whl"))
    say(f"building {target.tag}")
    before = inspect_image(client, target.tag)
    _build(client, _context(root, files), target, checksum)
    if before is not None:
        # Its layers stay as long as another image or the build cache uses them.  A container that
        # still runs of it keeps it, and so does another name for it.
        with contextlib.suppress(APIError):
            client.remove_image(before["Id"], noprune=True)
    return True


def _build(client: docker.APIClient, context: io.BytesIO, target: Target, checksum: str) -> None:
    environment = proxy_environment()
    arguments = {"BASE": target.base}
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        if name in environment:
            arguments[name] = environment[name]
    transcript: list[str] = []
    try:
        for event in client.build(
            fileobj=context,
            custom_context=True,
            dockerfile=target.dockerfile,
            target=target.stage if target.dockerfile == "Dockerfile" else "",
            tag=target.tag,
            labels={SOURCE_LABEL: checksum},
            buildargs=arguments,
            network_mode="host",
            rm=True,
            forcerm=True,
            decode=True,
            timeout=BUILD_PATIENCE_S,
        ):
            transcript.append(str(event.get("stream") or event.get("error") or ""))
            if "error" in event:
                tail = "\n".join("".join(transcript).strip().splitlines()[-20:])
                raise EnvironmentMissing(f"The image {target.tag} could not be built:\n{tail}")
    except (APIError, requests.exceptions.RequestException) as error:
        raise EnvironmentMissing(
            f"The engine refused to build the image {target.tag}: {error}"
        ) from error


def _fetch_wheels(root: Path, say: Say) -> None:
    """Fills build/wheels with what pyproject.toml asks for, for the image's Python."""
    project = tomllib.loads((root / "pyproject.toml").read_text())
    wanted = [
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["dev"],
    ]
    folder = root / WHEELS
    stamp = folder / "stamp"
    key = f"{IMAGE_PYTHON} {platform.machine()} {' '.join(wanted)}"
    if stamp.is_file() and stamp.read_text() == key:
        return
    say("fetching the orchestrator's Python packages")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    platforms = [
        f"--platform={tag}_{platform.machine()}"
        for tag in ("manylinux2014", *(f"manylinux_2_{minor}" for minor in range(17, 37)))
    ]
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
        "--only-binary=:all:", f"--python-version={IMAGE_PYTHON}", "--implementation=cp",
        *platforms, "--dest", str(folder), *wanted,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        tail = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise EnvironmentMissing(
            f"pip could not fetch the Python packages of the orchestrator's image. Check that this "
            f"machine reaches its package index. It said:\n{tail}"
        )
    stamp.write_text(key)


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m suite.images [TARGET...]`, what `make images` runs."""
    parser = argparse.ArgumentParser(
        prog="python -m suite.images", description="Makes the container images of nvcrucible."
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of: {', '.join(TARGETS)}")
    parser.add_argument(
        "--if-engine", action="store_true", help="succeed and do nothing where no engine answers"
    )
    options = parser.parse_args(arguments)
    targets = all_targets(project_root())
    unknown = [name for name in options.targets if name not in targets]
    if unknown:
        parser.error(f"there is no target '{unknown[0]}'; choose of: {', '.join(targets)}")

    def say(line: str) -> None:
        sys.stderr.write(f"images: {line}\n")

    try:
        client = connect_engine()
    except RunnerUnavailable as error:
        say(str(error))
        return 0 if options.if_engine else error.exit_code
    try:
        for name in options.targets or targets:
            target = targets[name]
            started = time.monotonic()
            built = ensure_target(client, project_root(), target, say)
            took = f" ({time.monotonic() - started:.0f} s)" if built else ""
            say(f"{target.tag} is {'built' if built else 'current'}{took}")
    except CrucibleError as error:
        say(str(error))
        return error.exit_code
    finally:
        client.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
