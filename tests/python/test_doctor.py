# SPDX-License-Identifier: Apache-2.0
"""The doctor's grades, and what it reads of other machines than this one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import suite.doctor
from project import Project
from suite.doctor import Check, examine, overall
from suite.noise import Neighbours
from suite.topology import clock_source, cpu_quota, numa_distance, numa_node_of


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_overall_grade_is_the_worst_that_counts() -> None:
    good, fair = Check("a", "good", ""), Check("b", "fair", "", "do this")
    poor, apart = Check("c", "poor", "", "do that"), Check("d", "missing", "", "", counts=False)
    assert overall([good]).grade == "good"
    assert overall([good, fair, apart]).grade == "fair"
    worst = overall([poor, good, fair, Check("e", "poor", "")])
    assert (worst.grade, worst.advice) == ("poor", "See: c, e.")


def test_every_line_that_is_not_good_says_what_to_change(project: Project) -> None:
    checks = examine(project.root, project.pm)
    names = {check.name for check in checks}
    assert {
        "NVM directory", "MAP_SYNC", "flush instruction", "instruction counts", "neighbours",
        "CPU quota", "clock source", "CPU governor", "turbo", "SMT", "NUMA",
        "transparent huge pages",
    } <= names  # fmt: skip
    assert [check.name for check in checks if check.grade != "good" and not check.advice] == []


@pytest.mark.parametrize(
    ("busy", "stolen", "grade", "advice"),
    [
        (0.01, 0.0, "good", ""),
        (0.05, 0.0, "fair", "top"),
        (0.60, 0.0, "poor", "top"),
        (0.60, 0.5, "poor", "steal"),
    ],
)
def test_neighbours_are_graded(
    monkeypatch: pytest.MonkeyPatch, busy: float, stolen: float, grade: str, advice: str
) -> None:
    monkeypatch.setattr(suite.doctor, "watch_neighbours", lambda _seconds: Neighbours(busy, stolen))
    (check,) = [each for each in examine(Path("/"), None) if each.name == "neighbours"]
    assert check.grade == grade
    assert advice in check.advice


def test_json_has_every_line_and_the_overall_grade(project: Project) -> None:
    result = project.run("doctor", "--json", "--pm", project.pm)
    document = json.loads(result.stdout)
    grades = {check["grade"] for check in document["checks"] if check["counts"]}
    assert document["overall"]["grade"] in grades
    table = project.run("doctor", "--pm", project.pm).stdout
    assert "overall" in table


def test_the_clock_source_is_read(tmp_path: Path) -> None:
    assert clock_source(tmp_path) is None
    write(tmp_path / "sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet\n")
    assert clock_source(tmp_path) == "hpet"


def test_a_quota_of_any_parent_counts_in_both_cgroup_versions(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None
    write(tmp_path / "proc/self/cgroup", "0::/a/b\n")
    write(tmp_path / "sys/fs/cgroup/a/b/cpu.max", "max 100000\n")
    assert cpu_quota(tmp_path) is None
    write(tmp_path / "sys/fs/cgroup/a/cpu.max", "150000 100000\n")
    assert cpu_quota(tmp_path) == 1.5
    write(tmp_path / "proc/self/cgroup", "4:cpu,cpuacct:/host/path\n3:memory:/x\n")
    write(tmp_path / "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000\n")
    write(tmp_path / "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n")
    assert cpu_quota(tmp_path) == 0.5
    write(tmp_path / "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n")
    assert cpu_quota(tmp_path) is None


def test_the_nvm_s_node_and_its_distance_from_our_cpus(tmp_path: Path) -> None:
    device = tmp_path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    assert numa_node_of(tmp_path, tmp_path) is None
    write(tmp_path / f"sys/dev/block/{number}/device/numa_node", "1\n")
    assert numa_node_of(tmp_path, tmp_path) == 1
    write(tmp_path / f"sys/dev/block/{number}/device/numa_node", "-1\n")
    assert numa_node_of(tmp_path, tmp_path) is None

    nodes = tmp_path / "sys/devices/system/node"
    write(nodes / "node0/cpu0/online", "1")
    write(nodes / "node1/cpu1/online", "1")
    write(nodes / "node1/distance", "21 10\n")
    assert numa_distance(1, [0], tmp_path) == [21]
    assert numa_distance(1, [1], tmp_path) == [10]
    assert numa_distance(1, [0, 1], tmp_path) == [10, 21]
