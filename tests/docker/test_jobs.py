# SPDX-License-Identifier: Apache-2.0
"""A job's life in a container: its output, its end in every way, and that nothing is left."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable

import docker
import pytest

from places import Places, environment_of
from suite.errors import EnvironmentMissing
from suite.images import TARGETS
from suite.runners.docker import OWNER_LABEL, DockerRunner, connect

Listing = Callable[[DockerRunner], list[dict[str, str]]]


def test_lines_come_while_the_job_runs(runner: DockerRunner, places: Places) -> None:
    came: list[tuple[str, float]] = []
    began = time.monotonic()
    outcome = runner.start(places.shell("echo one; sleep 1; echo two; printf three")).wait(
        lambda line: came.append((line, time.monotonic() - began))
    )
    assert outcome.ok, outcome.explain()
    assert [line for line, _ in came] == ["one", "two", "three"]
    assert came[1][1] - came[0][1] > 0.8
    assert outcome.wall_s > 1


def test_no_line_of_a_job_that_ends_at_once_is_lost(runner: DockerRunner, places: Places) -> None:
    for _ in range(5):
        lines: list[str] = []
        outcome = runner.start(places.shell("seq 2000; echo why >&2; exit 3")).wait(lines.append)
        assert lines == [str(number) for number in range(1, 2001)]
        assert (outcome.exit_code, outcome.signal, outcome.stderr_tail) == (3, None, "why")


def test_a_program_can_end_itself_by_a_signal(runner: DockerRunner, places: Places) -> None:
    """As process 1 of its container it could not; fault cases rely on it."""
    outcome = runner.start(places.shell("kill -KILL $$; echo alive")).wait()
    assert (outcome.exit_code, outcome.signal) == (None, 9)
    assert not outcome.cancelled
    assert not outcome.oom_killed


def test_the_time_limit_ends_a_job(
    runner: DockerRunner, places: Places, containers: Listing
) -> None:
    outcome = runner.start(places.shell("sleep 60", timeout_s=1)).wait()
    assert outcome.timed_out
    assert not outcome.cancelled
    assert 0.9 < outcome.wall_s < 10
    assert containers(runner) == []


def test_the_time_limit_holds_for_a_job_that_closed_its_output(
    runner: DockerRunner, places: Places
) -> None:
    outcome = runner.start(places.shell("exec >&- 2>&-; sleep 60", timeout_s=1)).wait()
    assert outcome.timed_out
    assert outcome.wall_s < 10


def test_kill_ends_every_process_of_a_job(
    runner: DockerRunner, places: Places, containers: Listing
) -> None:
    running = runner.start(places.shell("sleep 61 & sleep 62 & echo up; wait"))
    outcome = running.wait(lambda _line: running.kill())
    assert outcome.cancelled
    assert containers(runner) == []
    running.kill()  # a second one is no error


def test_cpu_time_is_that_of_the_job(runner: DockerRunner, places: Places) -> None:
    """Held against what the shell says of itself, so that a busy machine changes nothing."""
    lines: list[str] = []
    outcome = runner.start(
        places.shell("i=0; while [ $i -lt 1000000 ]; do i=$((i+1)); done; times")
    ).wait(lines.append)
    parts = [part.rstrip("s").split("m") for part in lines[0].split()]
    said = sum(60 * int(minutes) + float(seconds) for minutes, seconds in parts)
    assert said > 0.3
    assert outcome.cpu_s is not None
    assert said - 0.06 < outcome.cpu_s < said + 0.25, "starting a container takes CPU time too"


def test_cpu_time_of_a_job_that_does_nothing(runner: DockerRunner, places: Places) -> None:
    for script in ("true", "sleep 0.5"):
        outcome = runner.start(places.shell(script)).wait()
        assert outcome.cpu_s is not None
        assert outcome.cpu_s < 0.25


def test_the_environment_of_the_caller_is_not_inherited(
    runner: DockerRunner, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NVC_SECRET", "no business of a job")
    lines: list[str] = []
    runner.start(places.job("/usr/bin/env")).wait(lines.append)
    assert "LC_ALL=C.UTF-8" in lines
    assert not [line for line in lines if "SECRET" in line]


def test_a_program_that_is_not_there(runner: DockerRunner, places: Places) -> None:
    outcome = runner.start(places.job("/none")).wait()
    assert outcome.exit_code == 127
    assert "/none" in outcome.stderr_tail


def test_a_directory_that_is_not_there(
    runner: DockerRunner, places: Places, containers: Listing
) -> None:
    places.pm_dir.rmdir()
    with pytest.raises(EnvironmentMissing, match="nvm"):
        runner.start(places.shell("true"))
    places.pm_dir.mkdir()
    assert containers(runner) == []


def test_jobs_of_several_threads_keep_apart(runner: DockerRunner, places: Places) -> None:
    seen: dict[int, list[str]] = {}

    def work(number: int) -> None:
        lines: list[str] = []
        for _ in range(3):
            runner.start(places.shell(f"seq {number} 7 2000")).wait(lines.append)
        seen[number] = lines

    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert seen == {
        number: [str(value) for value in range(number, 2001, 7)] * 3 for number in range(4)
    }


def test_cancel_all_ends_what_runs_and_refuses_the_rest(
    runner: DockerRunner, places: Places, containers: Listing
) -> None:
    running = [runner.start(places.shell("sleep 60")) for _ in range(2)]
    runner.cancel_all()
    outcomes = [job.wait() for job in running]
    assert [outcome.cancelled for outcome in outcomes] == [True, True]
    with pytest.raises(EnvironmentMissing):
        runner.start(places.shell("true"))
    assert containers(runner) == []


def test_an_interrupt_while_waiting_leaves_no_container(
    runner: DockerRunner, places: Places, containers: Listing
) -> None:
    def interrupt(_line: str) -> None:
        raise KeyboardInterrupt

    running = runner.start(places.shell("echo go; sleep 60"))
    with pytest.raises(KeyboardInterrupt):
        running.wait(interrupt)
    assert containers(runner) == []


def test_close_removes_what_nobody_waited_for(
    runner: DockerRunner, places: Places, engine: docker.APIClient, containers: Listing
) -> None:
    runner.start(places.shell("sleep 60"))
    assert len(containers(runner)) == 1
    runner.close()
    runner.close()
    assert containers(runner) == []


def test_containers_of_a_dead_orchestrator_are_removed_and_others_are_not(
    job_image: str, engine: docker.APIClient
) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()

    def left_by(owner: str) -> str:
        created = engine.create_container(
            job_image, labels={OWNER_LABEL: owner, "nvcrucible.test": "orphan"}
        )
        return str(created["Id"])

    boot = open("/proc/sys/kernel/random/boot_id").read().strip()  # noqa: SIM115, PTH123
    start = open(f"/proc/{os.getpid()}/stat").read().split(")")[-1].split()[19]  # noqa: SIM115, PTH123
    orphan = left_by(f"{boot} {dead.pid} 1")
    reused = left_by(f"{boot} {os.getpid()} 1")
    ours = left_by(f"{boot} {os.getpid()} {start}")
    try:
        connect().close()
        found = engine.containers(all=True, filters={"label": "nvcrucible.test=orphan"})
        left = {container["Id"] for container in found}
        assert orphan not in left
        assert reused not in left, "the process id was given to another process since"
        assert ours in left
    finally:
        engine.remove_container(ours, force=True)


def test_describe_names_engine_image_and_limits(runner: DockerRunner) -> None:
    facts = runner.describe()
    assert facts["name"] == "docker"
    assert facts["engine"]
    assert facts["image"] == TARGETS["job"].tag
    assert str(facts["image_id"]).startswith("sha256:")
    assert "network none" in str(facts["isolation"])


def test_the_build_is_that_of_the_image(runner: DockerRunner, places: Places) -> None:
    build = runner.build()
    assert build is not None
    assert build.in_image
    assert {"nvmalloc", "pmdk", "jemalloc", "mimalloc", "tcmalloc", "glibc"} <= set(build.adapters)
    for name, adapter in build.adapters.items():
        lines: list[str] = []
        arguments = ("info", "--adapter", adapter)
        job = places.job(build.nvdrive, *arguments, environment=environment_of(name))
        outcome = runner.start(job).wait(lines.append)
        assert outcome.ok, (name, outcome.explain(), outcome.stderr_tail, lines)
        assert f'"name":"{name}"' in lines[-1]
