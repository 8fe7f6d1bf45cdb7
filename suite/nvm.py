# SPDX-License-Identifier: Apache-2.0
"""The NVM directory: which one is used, what it offers, and our private place in it.

Order: the directory that the user states; a DAX mount under /mnt/pmem*; tmpfs
(/dev/shm), which is labelled emulated.  A heap file never lies in that
directory itself but in a fresh folder of ours (mode 0700), which is removed
with all it holds when the command ends, however it ends.  A lock in the folder
tells a later run that its owner died (kill -9) before it could remove it.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from suite.errors import EnvironmentMissing
from suite.results import NvmDirectory

__all__ = ["Scratch", "find_nvm", "mounts", "scratch"]

PREFIX = "nvcrucible-"
LOCK_NAME = ".lock"
MAP_SHARED_VALIDATE = 0x03
MAP_SYNC = 0x80000
PAGE = 4096
MIB = 1 << 20


def mounts(table: Path = Path("/proc/self/mounts")) -> list[tuple[Path, str, set[str]]]:
    """(mount point, file system, options) of every mount, in mount order."""
    found = []
    with contextlib.suppress(OSError):
        for line in table.read_text().splitlines():
            fields = line.split(" ")
            point = fields[1].encode().decode("unicode_escape")
            found.append((Path(point), fields[2], set(fields[3].split(","))))
    return found


def _mount_of(path: Path) -> tuple[str, set[str]]:
    best: tuple[int, str, set[str]] = (-1, "unknown", set())
    for point, fstype, options in mounts():
        # The last mount on a point hides the ones before it, hence >=.
        if path.is_relative_to(point) and len(point.parts) >= best[0]:
            best = (len(point.parts), fstype, options)
    return best[1], best[2]


def _has_dax(options: set[str]) -> bool:
    return bool(options & {"dax", "dax=always", "dax=inode"})


def find_nvm(stated: Path | None) -> NvmDirectory:
    """The directory for heaps; `EnvironmentMissing` when it can't be used."""
    if stated is not None:
        return _examine(stated, "stated")
    for point, _fstype, options in mounts():
        if point.match("/mnt/pmem*") and _has_dax(options) and os.access(point, os.W_OK):
            return _examine(point, "dax-mount")
    shm = Path("/dev/shm")  # noqa: S108 - the documented fallback; our folder in it is private
    if not shm.is_dir():
        raise EnvironmentMissing(
            "No NVM directory was found: no DAX mount under /mnt/pmem*, and no /dev/shm to emulate "
            "one. Mount a tmpfs, or name a directory with --pm DIR."
        )
    return _examine(shm, "tmpfs")


def _examine(path: Path, how: str) -> NvmDirectory:
    if not path.exists():
        raise EnvironmentMissing(
            f"The NVM directory {path} does not exist. Expected a writable directory on a DAX mount "
            "or a tmpfs. Mount or create it, or name another with --pm DIR."
        )
    if not path.is_dir():
        raise EnvironmentMissing(
            f"The NVM directory {path} is a file. Expected a directory; heaps are made as files in "
            "it. Name the directory that the NVM is mounted on with --pm DIR."
        )
    resolved = path.resolve()
    fstype, options = _mount_of(resolved)
    try:
        with tempfile.TemporaryFile(dir=resolved) as probe:
            map_sync = _map_sync_holds(probe.fileno())
    except OSError as error:
        raise EnvironmentMissing(
            f"The NVM directory {path} ({fstype}) can't be written: {error.strerror}. Expected a "
            "directory in which we may create files. Remount it read-write or change its owner, or "
            "name another with --pm DIR."
        ) from error
    dax = _has_dax(options) or map_sync
    return NvmDirectory.model_validate(
        {
            "path": str(resolved),
            "how": how,
            "fstype": fstype,
            "dax": dax,
            "map_sync": map_sync,
            "emulated": not map_sync,
            "free_bytes": shutil.disk_usage(resolved).free,
        }
    )


def _map_sync_holds(descriptor: int) -> bool:
    """Whether the kernel grants MAP_SYNC, which it does on DAX mappings only."""
    try:
        os.posix_fallocate(descriptor, 0, PAGE)
        mmap.mmap(descriptor, PAGE, flags=MAP_SHARED_VALIDATE | MAP_SYNC).close()
    except OSError:
        return False
    return True


def require_space(nvm: NvmDirectory, needed: int, what: str) -> None:
    """Refuses a directory that can't hold the heaps that will exist at one time."""
    if nvm.free_bytes < needed:
        raise EnvironmentMissing(
            f"The NVM directory {nvm.path} ({nvm.fstype}) has {nvm.free_bytes // MIB} MiB free; "
            f"{what} needs {-(-needed // MIB)} MiB. Free some space or enlarge the mount (for a "
            "tmpfs: `mount -o remount,size=...`), use fewer workers with -n, or name another "
            "directory with --pm DIR."
        )


class Scratch:
    """A pair of private folders, on the NVM and off it, for the jobs of one command."""

    def __init__(self, pm: Path, work: Path) -> None:
        self.pm = pm
        self.work = work
        self._next = 0

    @contextlib.contextmanager
    def job(self, number: int) -> Iterator[tuple[Path, Path]]:
        """Fresh folders for one job: (on the NVM, off it); removed afterwards."""
        name = f"job-{number:06d}"
        folders = self.pm / name, self.work / name
        try:
            for folder in folders:
                folder.mkdir(mode=0o700)
            yield folders
        finally:
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def scratch(nvm: NvmDirectory) -> Iterator[Scratch]:
    """Private folders that are gone when the block ends, also on an error or Ctrl-C."""
    parents = [Path(nvm.path), Path(tempfile.gettempdir())]
    for parent in parents:
        _sweep(parent)
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(_private_folder(parent)) for parent in parents]
        yield Scratch(made[0], made[1])


@contextlib.contextmanager
def _private_folder(parent: Path) -> Iterator[Path]:
    try:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    except OSError as error:
        raise EnvironmentMissing(
            f"A private folder can't be made in {parent}: {error.strerror}. Make room there, or "
            "name another NVM directory with --pm DIR (for the journals: TMPDIR)."
        ) from error
    try:
        with (folder / LOCK_NAME).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(parent: Path) -> None:
    """Removes our folders whose owner died: their lock is free."""
    for folder in parent.glob(PREFIX + "*"):
        with contextlib.suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            with (folder / LOCK_NAME).open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
