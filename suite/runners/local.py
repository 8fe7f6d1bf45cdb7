# SPDX-License-Identifier: Apache-2.0
"""Jobs as processes of this machine.

Invariants
----------
1. Every job leads a session, hence a process group, of its own: what it forks
   is in the group, and one `killpg` of a group that we started ends it all.
2. The group's leader is reaped only by `wait`, under the job's lock; so while
   the lock is held and `_reaped` is false, the group id can't have been reused
   and a kill can't hit a stranger.
3. When `wait` returns or raises, no process of the group is left.

Limits: CPUs by affinity (set on our own thread before the fork, so that the
job never runs a cycle elsewhere), private memory by RLIMIT_DATA (RLIMIT_AS
would count the address space that volatile allocators merely reserve), no core
dumps.  Pages of a heap on tmpfs are not limited here: that takes a cgroup.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import IO

from suite.build import Build
from suite.errors import EnvironmentMissing
from suite.runners.base import Job, LineSink, Outcome, Runner, RunningJob

__all__ = ["LocalRunner"]

STDERR_KEPT = 4096
STDOUT_LIMIT = 64 * 1024 * 1024
"""A job that prints more than this is broken; it is killed."""
READ_SIZE = 64 * 1024
GROUP_END_S = 10.0
"""Longest wait for killed processes to be gone (one may be stuck in the kernel)."""
PAUSE_BEFORE_LOOKING = 0.01


class _LocalJob:
    def __init__(self, owner: LocalRunner, job: Job) -> None:
        self._owner = owner
        self._job = job
        self._lock = threading.Lock()
        self._reaped = False
        self._cancelled = False
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by wait
        self._oom_before = _oom_kills()
        self._started = time.monotonic()
        try:
            self._process = _spawn(job, self._stderr)
        except OSError as error:
            self._stderr.close()
            raise EnvironmentMissing(
                f"The program {job.program} can't be started: {error.strerror}. It is part of the "
                "native build. Run `make build` (or delete the build folder and run it again)."
            ) from error

    def kill(self) -> None:
        with self._lock:
            self._cancelled = True
            self._kill_group()

    def _kill_group(self) -> None:
        """Caller holds the lock."""
        if not self._reaped:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def wait(self, on_line: LineSink | None = None) -> Outcome:
        timed_out = False
        try:
            timed_out = self._stream(on_line)
        finally:
            status, usage = self._reap()
            stderr = self._take_stderr()
            self._owner.forget(self)
        died_of = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
        oom = (
            code != 0 and not timed_out and not self._cancelled and _oom_kills() > self._oom_before
        )
        return Outcome(
            exit_code=code,
            signal=died_of,
            timed_out=timed_out,
            oom_killed=oom,
            cancelled=self._cancelled,
            stderr_tail=stderr,
            wall_s=time.monotonic() - self._started,
            cpu_s=usage.ru_utime + usage.ru_stime,
        )

    def _stream(self, on_line: LineSink | None) -> bool:
        """Passes lines on until the leader has ended; True when its time ran out first."""
        deadline = self._started + self._job.timeout_s
        assert self._process.stdout is not None  # noqa: S101 - Popen was given PIPE
        out = self._process.stdout.fileno()
        os.set_blocking(out, False)
        leader = os.pidfd_open(self._process.pid)
        lines = _LineSplitter(on_line)
        try:
            waiting = [out, leader]
            while True:
                left = deadline - time.monotonic()
                if left <= 0:
                    return True
                ready, _, _ = select.select(waiting, [], [], left)
                if out in ready and not lines.feed(_read(out)):
                    waiting.remove(out)
                if lines.total > STDOUT_LIMIT:
                    return False
                if leader in ready:
                    while lines.total <= STDOUT_LIMIT and lines.feed(_read(out)):
                        pass
                    lines.finish()
                    return False
        finally:
            os.close(leader)

    def _reap(self) -> tuple[int, resource.struct_rusage]:
        with self._lock:
            # The leader may have left processes behind: it is still a zombie, so its group id is ours.
            self._kill_group()
            _, status, usage = os.wait4(self._process.pid, 0)
            self._reaped = True
        _await_end_of_group(self._process.pid)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        if self._process.stdout is not None:
            self._process.stdout.close()
        return status, usage

    def _take_stderr(self) -> str:
        with self._stderr as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - STDERR_KEPT))
            return stream.read().decode("utf-8", "replace").strip()


def _await_end_of_group(group: int) -> None:
    """Returns when no process of a killed group lives.

    SIGKILL takes effect some time after killpg has returned, and only then may
    the job's folders be removed.  Zombies that nobody has reaped yet don't count.
    """
    deadline = time.monotonic() + GROUP_END_S
    pause = 0.0002
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except (ProcessLookupError, PermissionError):
            return
        if pause > PAUSE_BEFORE_LOOKING and not _lives(group):
            return
        time.sleep(pause)
        pause = min(2 * pause, 0.05)


def _lives(group: int) -> bool:
    """Whether /proc shows a process of the group that is no zombie."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            state, _parent, its_group = stat.read_text().rsplit(")", 1)[1].split()[:3]
            if int(its_group) == group and state not in "ZX":
                return True
    return False


class _LineSplitter:
    """Cuts a byte stream into lines; bytes that are no UTF-8 are replaced, never fatal."""

    def __init__(self, on_line: LineSink | None) -> None:
        self._on_line = on_line
        self._rest = b""
        self.total = 0

    def feed(self, chunk: bytes | None) -> bool:
        """False when there is nothing more to read now."""
        if not chunk:
            return False
        self.total += len(chunk)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._emit(line)
        return True

    def finish(self) -> None:
        if self._rest:
            self._emit(self._rest)
            self._rest = b""

    def _emit(self, line: bytes) -> None:
        if self._on_line is not None:
            self._on_line(line.decode("utf-8", "replace"))


def _read(descriptor: int) -> bytes | None:
    """What is there: b"" at the end of the stream, None when nothing waits."""
    try:
        return os.read(descriptor, READ_SIZE)
    except BlockingIOError:
        return None


def _spawn(job: Job, stderr: IO[bytes]) -> subprocess.Popen[bytes]:
    command = [str(job.program), *map(str, job.arguments)]
    # setpriv (util-linux) makes the kernel kill the job should we be killed ourselves.
    setpriv = shutil.which("setpriv")
    if setpriv is not None:
        if not os.access(job.program, os.X_OK):
            raise FileNotFoundError(2, "no such program, or not executable", str(job.program))
        command = [setpriv, "--pdeathsig", "KILL", "--", *command]
    before = os.sched_getaffinity(0)
    wanted = set(job.cpus) & before
    if wanted:
        os.sched_setaffinity(0, wanted)
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=_environment(job),
            cwd=job.work_dir,
            start_new_session=True,
        )
    finally:
        if wanted:
            os.sched_setaffinity(0, before)
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(process.pid, resource.RLIMIT_CORE, (0, 0))
        if job.memory_bytes is not None:
            resource.prlimit(
                process.pid, resource.RLIMIT_DATA, (job.memory_bytes, job.memory_bytes)
            )
    return process


def _environment(job: Job) -> dict[str, str]:
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}
    for name in ("LD_LIBRARY_PATH", "ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS"):
        if name in os.environ:
            environment[name] = os.environ[name]
    environment.update(job.environment)
    if job.preload:
        environment["LD_PRELOAD"] = ":".join(str(library) for library in job.preload)
    return environment


def _oom_kills() -> int:
    """How often this kernel has killed for want of memory since it booted."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


class LocalRunner:
    """Subprocesses on this machine; needs nothing, so it always works."""

    name = "local"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[_LocalJob] = set()
        self._cancelled = False

    def describe(self) -> dict[str, object]:
        return {
            "name": self.name,
            "limits": {"cpus": "affinity", "memory": "RLIMIT_DATA", "time": "wall clock"},
            "isolation": "process group",
        }

    def build(self) -> Build | None:
        return None

    def start(self, job: Job) -> RunningJob:
        with self._lock:
            if self._cancelled:
                raise EnvironmentMissing(
                    f"The job '{job.label}' was not started: the run is ending."
                )
            running = _LocalJob(self, job)
            self._running.add(running)
        return running

    def forget(self, job: _LocalJob) -> None:
        with self._lock:
            self._running.discard(job)

    def cancel_all(self) -> None:
        with self._lock:
            self._cancelled = True
            running = list(self._running)
        for job in running:
            job.kill()

    def close(self) -> None:
        self.cancel_all()


def _is_a_runner(runner: LocalRunner) -> Runner:
    """Held by the type checker: LocalRunner meets the protocol."""
    return runner
