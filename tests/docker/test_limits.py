# SPDX-License-Identifier: Apache-2.0
"""Every limit of a job's container, as the engine reports it and as the job finds it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import docker
import pytest

from places import MIB, Places
from suite.runners.docker import PROCESSES, RUN_LABEL, DockerRunner

Listing = Callable[[DockerRunner], list[dict[str, str]]]


def last_cpu() -> int:
    return max(os.sched_getaffinity(0))


def test_the_engine_holds_every_limit_of_a_running_container(
    engine: docker.APIClient, runner: DockerRunner, places: Places, containers: Listing
) -> None:
    cpu = last_cpu()
    job = places.shell("echo ready; sleep 60", memory_bytes=96 * MIB, cpus=(cpu,))
    running = runner.start(job)
    ready = threading.Event()
    waiter = threading.Thread(target=running.wait, args=(lambda _line: ready.set(),))
    waiter.start()
    try:
        assert ready.wait(30)
        (listed,) = containers(runner)
        facts = engine.inspect_container(listed["Id"])
    finally:
        running.kill()
        waiter.join()

    assert facts["State"]["Running"]
    host = facts["HostConfig"]
    assert host["NetworkMode"] == "none"
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert host["Privileged"] is False
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["CpusetCpus"] == str(cpu)
    assert host["Memory"] == 96 * MIB
    assert host["MemorySwap"] == 96 * MIB, "swap must not widen the limit"
    assert host["PidsLimit"] == PROCESSES
    assert host["PidMode"] == ""
    assert host["IpcMode"] in ("private", "none")
    assert not host["Devices"]
    assert host["RestartPolicy"]["Name"] in ("", "no")
    assert host["LogConfig"]["Type"] == "none"
    assert facts["Config"]["User"] == f"{os.getuid()}:{os.getgid()}"
    assert facts["Config"]["Labels"][RUN_LABEL] == runner.run_id
    assert facts["Name"].startswith("/nvcrucible-")

    mounts = {mount["Destination"]: mount for mount in facts["Mounts"]}
    assert set(mounts) == {str(places.pm_dir), str(places.work_dir)}
    assert all(mount["Type"] == "bind" and mount["RW"] for mount in mounts.values())
    assert all(mount["Source"] == where for where, mount in mounts.items())


def test_a_job_finds_the_limits_from_inside(runner: DockerRunner, places: Places) -> None:
    cpu = last_cpu()
    lines: list[str] = []
    script = """
        grep -E '^(CapPrm|CapEff|CapBnd|NoNewPrivs|Seccomp|Cpus_allowed_list):' /proc/self/status
        echo "net: $(ls /sys/class/net)"
        touch /x 2>/dev/null && echo 'the root is writable'
        touch "$0/kept" && echo "nvm: $(stat -c %u "$0/kept")"
        echo "me: $(id -u):$(id -g)"
        echo "one: $(cat /proc/1/comm)"
    """
    job = places.job("/bin/sh", "-c", script, places.pm_dir, cpus=(cpu,))
    outcome = runner.start(job).wait(lines.append)

    assert outcome.ok, outcome.explain()
    facts = dict(line.split(":", 1) for line in lines)
    facts = {name: text.strip() for name, text in facts.items()}
    nothing = "0" * 16
    assert facts == {
        "CapPrm": nothing,
        "CapEff": nothing,
        "CapBnd": nothing,
        "NoNewPrivs": "1",
        "Seccomp": "2",
        "Cpus_allowed_list": str(cpu),
        "net": "lo",
        "nvm": str(os.getuid()),
        "me": f"{os.getuid()}:{os.getgid()}",
        "one": "tini-static",
    }
    assert (places.pm_dir / "kept").is_file()


def test_without_a_stated_limit_memory_and_cpus_are_pinned_all_the_same(
    engine: docker.APIClient, runner: DockerRunner, places: Places, containers: Listing
) -> None:
    running = runner.start(places.shell("sleep 60", memory_bytes=None))
    (listed,) = containers(runner)
    host = engine.inspect_container(listed["Id"])["HostConfig"]
    running.kill()
    running.wait()
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < host["Memory"] < machine
    assert host["Memory"] == host["MemorySwap"]
    assert host["CpusetCpus"] == ",".join(map(str, sorted(os.sched_getaffinity(0))))


def test_a_folder_named_read_only_is_mounted_so(
    runner: DockerRunner, places: Places, tmp_path: Path
) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "library").write_text("content")
    lines: list[str] = []
    script = 'cat "$0/library"; echo; touch "$0/new" || echo refused'
    job = places.job("/bin/sh", "-c", script, folder, read_only=(folder,))
    outcome = runner.start(job).wait(lines.append)
    assert outcome.exit_code == 0
    assert lines == ["content", "refused"]
    assert "Read-only file system" in outcome.stderr_tail
    assert not (folder / "new").exists()


@pytest.mark.parametrize("script", ["tail /dev/zero", "tail /dev/zero; exit 0"])
def test_a_kill_for_memory_is_told_even_where_the_exit_code_hides_it(
    runner: DockerRunner, places: Places, script: str
) -> None:
    outcome = runner.start(places.shell(script, memory_bytes=48 * MIB)).wait()
    assert outcome.oom_killed
    assert not outcome.ok
    assert "memory limit" in outcome.explain()


def test_pages_of_a_heap_on_tmpfs_count_against_the_limit(
    runner: DockerRunner, places: Places
) -> None:
    fill = ("if=/dev/zero", f"of={places.pm_dir}/heap", "bs=1M", "count=128", "status=none")
    small = runner.start(places.job("/bin/dd", *fill, memory_bytes=48 * MIB)).wait()
    assert small.oom_killed
    (places.pm_dir / "heap").unlink()
    large = runner.start(places.job("/bin/dd", *fill, memory_bytes=192 * MIB)).wait()
    assert large.ok, large.explain()


def test_fewer_processes_than_a_fork_bomb_wants(runner: DockerRunner, places: Places) -> None:
    script = "i=0; while [ $i -lt 2000 ]; do sleep 60 & i=$((i+1)); done; echo unbounded"
    lines: list[str] = []
    outcome = runner.start(places.shell(script)).wait(lines.append)
    assert lines == []
    assert outcome.exit_code != 0
    assert "fork" in outcome.stderr_tail.lower()
