# SPDX-License-Identifier: Apache-2.0
"""A heap outlives `docker kill`: churn in one container, kill it, verify in another."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import docker
import pytest

from places import MIB, Places, environment_of
from suite.runners.base import Outcome
from suite.runners.docker import DockerRunner

Listing = Callable[[DockerRunner], list[dict[str, str]]]

PERSISTENT = ("nvmalloc", "pmdk")
SEED = "7"
PREFIX = "{"


class Churn:
    """`nvdrive churn` in a container, until somebody kills it."""

    def __init__(self, runner: DockerRunner, places: Places, allocator: str, *more: str) -> None:
        build = runner.build()
        assert build is not None
        self.ready = threading.Event()
        self.lines: list[str] = []
        job = places.job(
            build.nvdrive, "churn", "--adapter", build.adapters[allocator],
            "--heap", places.pm_dir / "heap", "--journal", places.work_dir / "journal",
            "--heap-size", "64M", "--slots", "512", "--threads", "1", "--seed", SEED, *more,
            memory_bytes=512 * MIB, preload=(build.probe,), environment=environment_of(allocator),
        )  # fmt: skip
        self._running = runner.start(job)
        self._outcome: Outcome | None = None
        self._waiter = threading.Thread(target=self._wait)
        self._waiter.start()

    def _wait(self) -> None:
        self._outcome = self._running.wait(self._take)

    def _take(self, line: str) -> None:
        self.lines.append(line)
        if '"ready"' in line:
            self.ready.set()

    def outcome(self) -> Outcome:
        self._waiter.join()
        assert self._outcome is not None
        return self._outcome


def verify(runner: DockerRunner, places: Places, allocator: str) -> dict[str, object]:
    """What a new container's `nvdrive verify` says of the heap."""
    build = runner.build()
    assert build is not None
    lines: list[str] = []
    job = places.job(
        build.nvdrive, "verify", "--adapter", build.adapters[allocator],
        "--heap", places.pm_dir / "heap", "--journal", places.work_dir / "journal",
        "--seed", SEED, memory_bytes=512 * MIB, environment=environment_of(allocator),
    )  # fmt: skip
    outcome = runner.start(job).wait(lines.append)
    documents = [json.loads(line) for line in lines if line.startswith(PREFIX)]
    assert documents, (outcome.explain(), outcome.stderr_tail)
    verdict: dict[str, object] = documents[-1]
    assert verdict["type"] == "verdict", verdict
    return verdict


@pytest.mark.parametrize("allocator", PERSISTENT)
def test_a_heap_outlives_docker_kill(
    engine: docker.APIClient,
    runner: DockerRunner,
    places: Places,
    containers: Listing,
    allocator: str,
) -> None:
    for round_number in range(3):
        churn = Churn(runner, places, allocator)
        assert churn.ready.wait(30), churn.outcome()
        threading.Event().wait(0.15)  # let it work
        (container,) = containers(runner)
        engine.kill(container["Id"], signal="SIGKILL")
        outcome = churn.outcome()
        assert outcome.signal == 9, outcome.explain()
        assert not outcome.cancelled, "it was not the runner that ended it"
        assert not outcome.oom_killed

        heap = places.pm_dir / "heap"
        assert heap.stat().st_size == 64 * MIB
        assert heap.stat().st_uid == os.getuid()
        verdict = verify(runner, places, allocator)
        assert verdict["verdict"] == "ok", (round_number, verdict)
        assert int(str(verdict["live_blocks"])) > 0, "the kill came before any work"


@pytest.mark.parametrize("allocator", PERSISTENT)
def test_a_self_inflicted_kill_at_an_event_is_survived(
    runner: DockerRunner, places: Places, allocator: str
) -> None:
    churn = Churn(runner, places, allocator, "--kill-at-event", "333")
    outcome = churn.outcome()
    assert (outcome.exit_code, outcome.signal) == (None, 9), (outcome.stderr_tail, churn.lines)
    assert not outcome.cancelled
    assert json.loads(churn.lines[-1])["type"] == "ready", "it was killed at work"
    assert verify(runner, places, allocator)["verdict"] == "ok"


def test_an_adapter_from_outside_the_image_is_mounted(
    runner: DockerRunner, places: Places, tmp_path: Path
) -> None:
    """What `--allocator-path` gives: an adapter that this machine built."""
    stated = os.environ.get("NVCRUCIBLE_BUILD", "build")
    built = Path(stated) / "allocators" / "glibc.so"
    if not built.is_file():
        pytest.skip(f"no native build at {stated} (`make build`)")
    folder = tmp_path / "mine"
    folder.mkdir()
    adapter = folder / "mine.so"
    adapter.write_bytes(built.read_bytes())
    build = runner.build()
    assert build is not None
    lines: list[str] = []
    job = places.job(build.nvdrive, "info", "--adapter", adapter, read_only=(folder,))
    outcome = runner.start(job).wait(lines.append)
    assert outcome.ok, (outcome.explain(), outcome.stderr_tail, lines)
    assert json.loads(lines[-1])["adapter"]["name"] == "glibc"
