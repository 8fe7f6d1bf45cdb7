# SPDX-License-Identifier: Apache-2.0
"""Jobs in containers of a Docker engine on this machine, one container a job.

Invariants
----------
1. *A container can do what its job needs and no more*: no network, read-only
   root, no capability, no new privileges, the engine's default seccomp filter,
   CPUs, memory (swap included) and number of processes limited, our own user
   id.  `_host_config` is the only place that says so; a test compares it with what
   the engine reports of a running container.
2. *What must outlive the container lies on the host*: `pm_dir` and `work_dir` are
   bind-mounted under their own paths.  So a path means the same inside and
   outside, and what a job writes down (a replay file) holds on the host too.
3. *No container is left*: every one carries our labels and is removed by `wait`, by
   `close`, or, should this process be killed, by the next `connect`.
4. *Output is read from before the start*: the stream is attached while the
   container is created but not started, so not even a job that dies at once
   loses a line; the engine keeps no log.

The job's program runs under `tini`, never as process 1: the kernel does not let
process 1 of a container end itself by a signal, which is what a fault case does.

Time limits and `kill` end process 1 by SIGKILL; the kernel then ends every process
of the container with it.

CPU time: the engine does not say what a container that has ended used. Its
cgroup does as long as it exists, so that is read every 20 ms, which bounds what
the last reading misses (at half a percent of one CPU), and once more when the output
ends, sometimes just before the cgroup goes.  A job that was over before the
first reading lived for milliseconds: it is charged with all of them.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import math
import os
import secrets
import tarfile
import threading
import time
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, cast

import requests.exceptions
from docker.errors import APIError, NotFound
from docker.types import LogConfig, Mount, Ulimit

from suite.allocators import COMMON_IMAGE
from suite.build import RECIPE, Build, Recipe, split_modules
from suite.engine import connect_engine, inspect_image
from suite.errors import CrucibleError, EnvironmentMissing, RunnerUnavailable
from suite.images import IMAGE_HOME, SOURCE_LABEL, TARGETS, all_targets, source_checksum
from suite.project import project_root
from suite.runners.base import Job, LineSink, Outcome, Runner, RunningJob

if TYPE_CHECKING:
    from collections.abc import Iterator

    import docker

__all__ = ["OWNER_LABEL", "RUN_LABEL", "DockerRunner", "connect"]

RUN_LABEL = "nvcrucible.run"
"""Its value is the same on all containers of one runner."""
OWNER_LABEL = "nvcrucible.owner"
"""The process that must remove the container: "<boot id> <pid> <start time>"."""

TINI = "/usr/bin/tini-static"
PROCESSES = 512
"""Threads count; a job uses a few a CPU."""
STDERR_KEPT = 4096
STDOUT_LIMIT = 64 * 1024 * 1024
"""A job that prints more than this is broken; it is killed."""
SAMPLE_S = 0.02
"""How often the CPU time of a running container is read."""
BRIEF_S = 0.2
ENGINE_PATIENCE_S = 60
"""The engine reports a container's end within this time of its output's end."""


def connect() -> Runner:
    """A runner whose images are there and current; `RunnerUnavailable` says what to do if not."""
    client = connect_engine()
    try:
        runner = DockerRunner(client, project_root())
        _remove_orphans(client)
    except CrucibleError:
        client.close()
        raise
    except (APIError, requests.exceptions.RequestException) as error:
        client.close()
        raise RunnerUnavailable(
            f"The Docker engine answers but refuses what the runner needs: {error}. Use "
            "--runner local, or give this user access to the engine."
        ) from error
    return runner


class DockerRunner:
    """Containers of one engine, all of one image."""

    name = "docker"

    def __init__(self, client: docker.APIClient, root: Path) -> None:
        self._client = client
        self._root = root
        self._image_id = _current_image(client, root, COMMON_IMAGE)
        self._other_images: dict[str, str] = {}
        self._build = _read_build(client, self._image_id)
        self._run = secrets.token_hex(6)
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._running: set[_DockerJob] = set()
        self._cancelled = False
        self._closed = False

    @property
    def run_id(self) -> str:
        """The value of `RUN_LABEL` on this runner's containers."""
        return self._run

    def describe(self) -> dict[str, object]:
        engine = self._client.info()
        return {
            "name": self.name,
            "engine": engine.get("ServerVersion"),
            "storage": engine.get("Driver"),
            "cgroup": f"v{engine.get('CgroupVersion', '1')}, {engine.get('CgroupDriver')}",
            "image": TARGETS["job"].tag,
            "image_id": self._image_id,
            "limits": {
                "cpus": "cpuset",
                "memory": "cgroup, swap included",
                "time": "wall clock",
                "processes": PROCESSES,
            },
            "isolation": "container: network none, read-only root, no capabilities, "
            "no new privileges, default seccomp",
            "run": self._run,
        }

    def build(self) -> Build | None:
        return self._build

    def start(self, job: Job) -> RunningJob:
        with self._lock:
            if self._cancelled:
                raise EnvironmentMissing(
                    f"The job '{job.label}' was not started: the run is ending."
                )
            number = next(self._numbers)
        # Not under the lock: starts of several workers overlap.  A job that cancel_all()
        # did not see yet is caught below.
        running = _DockerJob(self, self._client, self._create_arguments(job, number), job)
        with self._lock:
            self._running.add(running)
            late = self._cancelled
        if late:
            running.kill()
        return running

    def _create_arguments(self, job: Job, number: int) -> dict[str, Any]:
        environment = {"LC_ALL": "C.UTF-8", **job.environment}
        if job.preload:
            environment["LD_PRELOAD"] = ":".join(str(library) for library in job.preload)
        return {
            "image": self._image_of(job),
            "name": f"nvcrucible-{self._run}-{number}",
            "labels": {RUN_LABEL: self._run, OWNER_LABEL: _identity(os.getpid())},
            "entrypoint": [TINI, "--", str(job.program)],
            "command": [str(argument) for argument in job.arguments],
            "environment": environment,
            "working_dir": str(job.work_dir),
            "user": f"{os.getuid()}:{os.getgid()}",
            "network_disabled": True,
            "host_config": self._host_config(job),
        }

    def _image_of(self, job: Job) -> str:
        """Raises `EnvironmentMissing` when an allocator's own image can't be had."""
        if job.image == COMMON_IMAGE:
            return self._image_id
        with self._lock:
            if job.image not in self._other_images:
                try:
                    found = _current_image(self._client, self._root, job.image)
                except RunnerUnavailable as error:
                    raise EnvironmentMissing(str(error)) from error
                self._other_images[job.image] = found
            return self._other_images[job.image]

    def _host_config(self, job: Job) -> dict[str, Any]:
        """Every limit of a job's container (invariant 1)."""
        memory = job.memory_bytes if job.memory_bytes is not None else _machine_memory() * 3 // 4
        cpus = job.cpus or tuple(sorted(os.sched_getaffinity(0)))
        mounts = [_bind(job.pm_dir, read_only=False), _bind(job.work_dir, read_only=False)]
        for folder in (*job.read_only, *job.preload):
            if folder.is_relative_to(self._build.root):
                continue  # the common image has it, and no other has use for it
            mount = _bind(folder, read_only=True)
            if mount not in mounts:
                mounts.append(mount)
        return cast(
            "dict[str, Any]",
            self._client.create_host_config(
                network_mode="none",
                ipc_mode="private",
                shm_size="1m",
                read_only=True,
                cap_drop=["ALL"],
                security_opt=["no-new-privileges:true"],
                cpuset_cpus=",".join(map(str, cpus)),
                mem_limit=memory,
                memswap_limit=memory,
                pids_limit=PROCESSES,
                ulimits=[Ulimit(name="core", soft=0, hard=0)],
                log_config=LogConfig(type="none"),
                mounts=mounts,
            ),
        )

    def forget(self, job: _DockerJob) -> None:
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
        with self._lock:
            if self._closed:
                return
            self._closed = True
        with contextlib.suppress(APIError, requests.exceptions.RequestException):
            _remove_all(self._client, {"label": f"{RUN_LABEL}={self._run}"})
        self._client.close()


class _DockerJob:
    def __init__(
        self, owner: DockerRunner, client: docker.APIClient, arguments: dict[str, Any], job: Job
    ) -> None:
        self._owner = owner
        self._client = client
        self._job = job
        self._lock = threading.Lock()
        self._cancelled = False
        self._timed_out = False
        self._removed = False
        self._id = ""
        try:
            created = cast("dict[str, Any]", client.create_container(**arguments))
            self._id = created["Id"]
            self._frames: Iterator[tuple[bytes | None, bytes | None]] = client.attach(
                self._id, stdout=True, stderr=True, stream=True, demux=True
            )
            self._started = time.monotonic()
            client.start(self._id)
            self._meter = _CpuMeter(self._inspect()["State"]["Pid"])
        except (APIError, requests.exceptions.RequestException) as error:
            self._remove()
            raise EnvironmentMissing(
                f"The engine can't start a container for the job '{job.label}': {_said(error)}. "
                "Try `make images`; --runner local does without containers."
            ) from error
        except BaseException:
            self._remove()
            raise

    def kill(self) -> None:
        with self._lock:
            self._cancelled = True
            self._kill()

    def _kill(self) -> None:
        """Caller holds the lock.  A container that has ended already is no error."""
        if not self._removed:
            with contextlib.suppress(APIError, requests.exceptions.RequestException):
                self._client.kill(self._id, signal="SIGKILL")

    def wait(self, on_line: LineSink | None = None) -> Outcome:
        ended = threading.Event()
        watch = threading.Thread(target=self._watch, args=(ended,), daemon=True)
        watch.start()
        try:
            stderr = self._stream(on_line)
            self._meter.sample()
            state = self._final_state()
            wall = time.monotonic() - self._started
        finally:
            ended.set()
            watch.join()
            self._remove()
            self._owner.forget(self)
        # 128 + n is how tini reports a signal, and the engine one that hit process 1 itself.
        code = int(state["ExitCode"])
        died_of = code - 128 if code > 128 else None
        return Outcome(
            exit_code=code if died_of is None else None,
            signal=died_of,
            timed_out=self._timed_out,
            oom_killed=bool(state.get("OOMKilled")),
            cancelled=self._cancelled,
            stderr_tail=stderr.decode("utf-8", "replace").strip(),
            wall_s=wall,
            cpu_s=self._meter.seconds if self._meter.seconds is not None else _brief_life(state),
        )

    def _watch(self, ended: threading.Event) -> None:
        """Keeps the time limit, and the meter's last reading young."""
        deadline = self._started + self._job.timeout_s
        while not ended.wait(min(SAMPLE_S, max(0.0, deadline - time.monotonic()))):
            self._meter.sample()
            if time.monotonic() >= deadline:
                with self._lock:
                    self._timed_out = True
                    self._kill()
                return

    def _stream(self, on_line: LineSink | None) -> bytes:
        """Passes lines on until the output ends; returns the tail of standard error."""
        rest = stderr = b""
        total = 0
        for out, err in self._frames:
            if err:
                stderr = (stderr + err)[-STDERR_KEPT:]
            if not out:
                continue
            total += len(out)
            if total > STDOUT_LIMIT:
                with self._lock:
                    self._kill()
                break
            *lines, rest = (rest + out).split(b"\n")
            if on_line is not None:
                for line in lines:
                    on_line(line.decode("utf-8", "replace"))
        if rest and on_line is not None:
            on_line(rest.decode("utf-8", "replace"))
        return stderr

    def _final_state(self) -> dict[str, Any]:
        """The container's state after its end; its output may end a moment earlier."""
        try:
            self._client.wait(self._id, timeout=self._patience())
            return cast("dict[str, Any]", self._inspect()["State"])
        except (APIError, requests.exceptions.RequestException) as error:
            raise EnvironmentMissing(
                f"The engine lost the container of the job '{self._job.label}': {_said(error)}. "
                "Something else removed it, or the engine was restarted."
            ) from error

    def _patience(self) -> int:
        """A job may close its output and work on; its time limit still holds then."""
        left = self._started + self._job.timeout_s - time.monotonic()
        return ENGINE_PATIENCE_S + max(0, math.ceil(left))

    def _inspect(self) -> dict[str, Any]:
        return cast(
            "dict[str, Any]",
            self._client.inspect_container(self._id),
        )

    def _remove(self) -> None:
        with self._lock:
            if self._removed or not self._id:
                return
            self._removed = True
        _remove(self._client, self._id)


class _CpuMeter:
    """User + system seconds of a container's cgroup, as last read."""

    def __init__(self, pid: int) -> None:
        self.seconds: float | None = None
        self._file = _cpu_file(pid)
        self.sample()

    def sample(self) -> None:
        if self._file is None:
            return
        with contextlib.suppress(OSError, ValueError, IndexError):
            text = self._file.read_text()
            if self._file.name == "cpu.stat":  # cgroup v2: "usage_usec 123" comes first
                self.seconds = int(text.split()[1]) / 1e6
            else:
                self.seconds = int(text) / 1e9


def _cpu_file(pid: int) -> Path | None:
    """Where the kernel accounts the CPU time of process `pid`'s cgroup; None if not to be seen."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        relative = path.lstrip("/")
        if "cpuacct" in controllers.split(","):
            candidates = [Path("/sys/fs/cgroup/cpuacct", relative, "cpuacct.usage")]
            candidates += [Path("/sys/fs/cgroup", controllers, relative, "cpuacct.usage")]
        elif not controllers:
            candidates = [Path("/sys/fs/cgroup", relative, "cpu.stat")]
        else:
            continue
        for candidate in candidates:
            # The root's file would count the whole machine.
            if relative and candidate.is_file():
                return candidate
    return None


def _brief_life(state: dict[str, Any]) -> float | None:
    """How long a container lived, where that was too short to use CPU time worth a doubt."""
    try:
        # Nanoseconds are more than fromisoformat() takes; 26 characters end at the microsecond.
        begin, end = (
            datetime.fromisoformat(state[key].rstrip("Z")[:26])
            for key in ("StartedAt", "FinishedAt")
        )
    except (KeyError, ValueError):
        return None
    life = (end - begin).total_seconds()
    return life if 0 <= life < BRIEF_S else None


# --- The image ----------------------------------------------------------------------------


def _current_image(client: docker.APIClient, root: Path, name: str) -> str:
    target = all_targets(root).get(name)
    if target is None:
        raise RunnerUnavailable(
            f"There is no image '{name}', which an allocator asks for. Expected a Dockerfile in its "
            f"folder under {root / 'allocators'}. Add one, or use --runner local."
        )
    image = inspect_image(client, target.tag)
    if image is None:
        raise RunnerUnavailable(
            f"The engine has no image {target.tag}. Run `make images` (or `make bench`, which makes "
            "it first), or use --runner local."
        )
    labels = image.get("Config", {}).get("Labels") or {}
    if labels.get(SOURCE_LABEL) != source_checksum(root, target):
        raise RunnerUnavailable(
            f"The image {target.tag} was made of other sources than those in {root}. Run "
            "`make images` to make it anew, or use --runner local."
        )
    return cast("str", image["Id"])


def _read_build(client: docker.APIClient, image: str) -> Build:
    """What the image's build holds, read from a container that is never started."""
    created = client.create_container(image, labels={OWNER_LABEL: _identity(os.getpid())})
    folder = IMAGE_HOME / "build" / "allocators"
    try:
        chunks, _ = client.get_archive(created["Id"], str(folder))
        # Read to its end first: the engine can't remove a container that it still reads from.
        archive = b"".join(chunks)
    finally:
        _remove(client, created["Id"])
    with tarfile.open(fileobj=io.BytesIO(archive)) as listing:
        return _build_of(listing, folder)


def _build_of(listing: tarfile.TarFile, folder: Path) -> Build:
    modules: list[Path] = []
    skipped: dict[str, str] = {}
    recipe = Recipe()
    for entry in listing.getmembers():
        path = PurePosixPath(entry.name)
        if len(path.parts) != 2:  # an adapter lies in build/allocators itself
            continue
        if path.suffix == ".so":
            modules.append(folder / path.name)
        elif path.name == "skipped.json":
            content = listing.extractfile(entry)
            skipped = json.load(content) if content is not None else {}
        elif path.name == RECIPE:
            content = listing.extractfile(entry)
            recipe = Recipe.model_validate_json(content.read()) if content is not None else recipe
    adapters, lenses = split_modules(modules)
    return Build(IMAGE_HOME / "build", adapters, lenses, skipped, in_image=True, recipe=recipe)


# --- Containers ---------------------------------------------------------------------------


def _bind(path: Path, *, read_only: bool) -> Mount:
    absolute = str(path.absolute())
    return Mount(
        target=absolute, source=absolute, type="bind", read_only=read_only, propagation="rprivate"
    )


def _remove(client: docker.APIClient, container: str) -> None:
    with contextlib.suppress(NotFound, requests.exceptions.RequestException):
        try:
            client.remove_container(container, force=True, v=True)
        except APIError as error:
            if error.status_code != 409:  # 409: its removal is already in progress
                raise


def _remove_all(client: docker.APIClient, filters: dict[str, str]) -> None:
    for container in client.containers(all=True, filters=filters):
        _remove(client, container["Id"])


def _remove_orphans(client: docker.APIClient) -> None:
    """Removes the containers of orchestrators of this machine that were killed."""
    for container in client.containers(all=True, filters={"label": OWNER_LABEL}):
        owner = container["Labels"][OWNER_LABEL].split(" ")
        if len(owner) == 3 and owner[1].isdigit() and _identity(int(owner[1])) != " ".join(owner):
            _remove(client, container["Id"])


def _identity(pid: int) -> str:
    """Names a process for as long as the machine runs and beyond: ids are reused, this is not."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    try:
        # The name, field 2, may hold anything; the fields behind its last bracket may not.
        start = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        start = "gone"
    return f"{boot} {pid} {start}"


def _machine_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _said(error: Exception) -> str:
    return str(getattr(error, "explanation", None) or error).strip().rstrip(".")


def _is_a_runner(runner: DockerRunner) -> Runner:
    """Held by the type checker: DockerRunner meets the protocol."""
    return runner
