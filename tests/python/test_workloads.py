# SPDX-License-Identifier: Apache-2.0
"""The trials, the key-value store and the replay on real allocators, in small; and on the known bad
ones, which must not pass."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from project import REPOSITORY, Project
from suite.build import read_build
from suite.recording import Program, ensure_trace, record
from suite.workloads import discover_workloads

pytestmark = pytest.mark.native

DURABLE = ["nvmalloc", "pmdk"]
ENVIRONMENT = {
    "PMEM_IS_PMEM_FORCE": "1",
    "GLIBC_TUNABLES": "glibc.rtld.optional_static_tls=16384",
}


def drive(
    native: Project, adapter: str, workload: str, *arguments: str, timeout: float = 120
) -> tuple[int, dict[str, Any]]:
    """The driver's exit code and last document; no heap is left behind."""
    heap = native.pm / f"test-workloads-{os.getpid()}"
    folder = (
        "tests/known_bad"
        if (REPOSITORY / "tests" / "known_bad" / adapter).is_dir()
        else "allocators"
    )
    done = subprocess.run(
        [
            native.build / "workloads" / "nvdrive", "bench",
            "--adapter", native.build / folder / f"{adapter}.so",
            "--heap", heap, "--workload", workload,
            "--warmup", "0.02", "--seconds", "0.1", "--latency-seconds", "0.05", *arguments,
        ],
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )  # fmt: skip
    assert not heap.exists()
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


def good(native: Project, adapter: str, workload: str, *arguments: str) -> dict[str, Any]:
    code, document = drive(native, adapter, workload, *arguments)
    assert code == 0, document
    return document


@pytest.mark.parametrize("adapter", DURABLE)
def test_recovery_times_a_killed_heap(native: Project, adapter: str) -> None:
    figures = good(
        native, adapter, "recovery", "--param", "live=20000", "--heap-size", "64M", "--threads", "2"
    )["metrics"]
    assert figures["live_objects"] == 20000
    assert 20000 * 64 <= figures["requested_bytes"] <= 20000 * 256
    assert 0 < figures["open_ms"] <= figures["first_op_ms"] <= figures["rebuilt_ms"]
    assert figures["objects_per_s"] == pytest.approx(20000e3 / figures["rebuilt_ms"], rel=1e-6)


def test_recovery_is_for_what_is_persistent(native: Project) -> None:
    code, document = drive(native, "glibc", "recovery")
    assert code == 3
    assert "is persistent" in document["message"]


@pytest.mark.parametrize("adapter", [*DURABLE, "jemalloc", "mimalloc"])
@pytest.mark.parametrize("mix", [2, 9])
def test_fragmentation_tells_what_is_taken(native: Project, adapter: str, mix: int) -> None:
    document = good(
        native, adapter, "fragmentation", "--param", f"mix={mix}", "--param", "live_mb=8",
        "--param", "turnover=2", "--heap-size", "64M",
    )  # fmt: skip
    figures, series = document["metrics"], document["series"]
    assert figures["failed_allocs"] == 0
    assert figures["footprint_bytes"] > figures["requested_bytes"] > 0
    assert 1 < figures["footprint_ratio"] < 20
    assert figures["fragmentation_ratio"] == figures["footprint_ratio"]
    assert figures["footprint_source"] == ("resident" if adapter == "mimalloc" else "heap")
    assert len(series) > 10
    assert max(point["footprint_bytes"] for point in series) == figures["peak_bytes"]
    assert [point["allocated_bytes"] for point in series] == sorted(
        point["allocated_bytes"] for point in series
    )
    if adapter in DURABLE:
        assert 1 < figures["refill_ratio"] <= 1.1 * figures["footprint_ratio"]
        assert figures["file_bytes"] > figures["requested_bytes"]


def test_the_same_seed_gives_the_same_fragmentation(native: Project) -> None:
    arguments = ("--param", "mix=4", "--param", "live_mb=4", "--heap-size", "64M", "--seed", "5")
    first, second = (good(native, "nvmalloc", "fragmentation", *arguments) for _ in range(2))
    assert first["metrics"]["requested_bytes"] == second["metrics"]["requested_bytes"]
    assert first["metrics"]["footprint_bytes"] == second["metrics"]["footprint_bytes"]


@pytest.mark.parametrize("adapter", [*DURABLE, "glibc"])
@pytest.mark.parametrize(("mix", "index"), [(0, 0), (1, 1), (2, 0), (3, 1), (4, 1), (5, 0)])
def test_kv_serves_every_mix(native: Project, adapter: str, mix: int, index: int) -> None:
    document = good(
        native, adapter, "kv", "--param", f"mix={mix}", "--param", f"index={index}",
        "--param", "records=2000", "--param", "value_bytes=100", "--threads", "2",
    )  # fmt: skip
    assert document["ops"] > 100
    assert document["latency"]["samples"] > 100
    updates = mix in (0, 1, 5)
    assert (document["frees"] > 0) == updates
    assert (document["allocs"] > 0) == (mix != 2)
    # Values, records and pages, and nothing that was freed.
    assert document["requested_bytes"] > 2000 * 100
    if updates:
        assert document["allocs"] == document["frees"]


def test_kv_without_room_is_told(native: Project) -> None:
    code, document = drive(native, "pmdk", "kv", "--heap-size", "64M", "--param", "records=200000")
    assert (code, document["where"]) in [(3, "load"), (3, "create")]
    assert "too small" in document["message"]


@pytest.mark.parametrize("adapter", [*DURABLE, "good-minimal"])
@pytest.mark.parametrize("index", [0, 1])
def test_kv_survives_kills(native: Project, adapter: str, index: int) -> None:
    figures = good(
        native, adapter, "kv-recovery", "--param", f"index={index}", "--param", "records=2000",
        "--param", "rounds=8", "--threads", "2", "--heap-size", "64M", "--seed", "3",
    )["metrics"]  # fmt: skip
    assert figures["reopenings"] >= 3
    assert figures["operations"] > 500
    assert 0 < figures["live_objects"] <= 4000
    assert 0 < figures["open_ms"] < figures["first_op_ms"]


@pytest.mark.parametrize(
    ("adapter", "code"),
    [
        ("rolls-back-acknowledged", 4),
        ("stale-handed-out-twice", 4),
        ("scribbles-at-recovery", 4),
        ("crashes-at-work", 3),
        ("refuses-frees", 3),
    ],
)
def test_kv_recovery_finds_what_is_bad(native: Project, adapter: str, code: int) -> None:
    # So many records that there are still inserts, which show a loss best, in the last rounds.
    found, document = drive(
        native, adapter, "kv-recovery", "--param", "records=20000", "--param", "rounds=100",
        "--heap-size", "128M",
    )  # fmt: skip
    assert found == code, document
    assert document["type"] == "error"
    assert adapter in document["message"]


@pytest.mark.parametrize("adapter", ["stale-handed-out-twice", "scribbles-at-recovery"])
def test_recovery_looks_at_the_objects(native: Project, adapter: str) -> None:
    code, document = drive(
        native, adapter, "recovery", "--param", "live=3000", "--heap-size", "32M"
    )
    assert (code, document["where"]) == (4, "sweep")


# ---- recording ----

THREADS = """
import threading
def work(n):
    keep = []
    for i in range(300):
        keep.append("x" * (600 + (i * n) % 900))
        if len(keep) > 20:
            keep.pop(i % 20)
for n in (3, 5):
    threads = [threading.Thread(target=work, args=(n + t,)) for t in range(2)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
print("done")
"""


def test_a_program_is_recorded_and_replayed(native: Project, tmp_path: Path) -> None:
    out = tmp_path / "threads.nvtrace"
    command = [sys.executable, "-S", "-c", THREADS]
    result = native.run("record", "-o", out, "--json", "--", *command)
    assert result.returncode == 0, result.stderr
    assert "done" in result.stderr  # the program's own output makes way for the document
    facts = json.loads(result.stdout)
    assert facts["exit_code"] == 0
    assert facts["threads"] >= 5
    assert facts["operations"] > 2000
    assert facts["dropped"] < 10
    described = subprocess.run(
        [native.build / "workloads" / "nvdrive", "trace", out],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(described.stdout)["operations"] == facts["operations"]
    for adapter in ("nvmalloc", "glibc"):
        for threads in ("1", "3"):
            document = good(native, adapter, "replay", "--input", str(out), "--threads", threads)
            assert document["allocs"] == document["frees"] > 0
            passes = document["allocs"] / (facts["allocations"] + facts["reallocations"])
            assert passes == int(passes) >= 1


def test_a_program_that_fails_is_recorded(native: Project, tmp_path: Path) -> None:
    out = tmp_path / "false.nvtrace"
    result = native.run("record", "-o", out, "--", sys.executable, "-c", "raise SystemExit(3)")
    assert result.returncode == 0
    assert "exit code 3" in result.stderr
    assert out.is_file()
    missing = native.run("record", "-o", out, "--", "/no/such/program")
    assert missing.returncode == 2
    assert "can't be run" in missing.stderr


def test_traces_are_recorded_once(native: Project, tmp_path: Path) -> None:
    """A bench records the programs of replay.yaml when it first wants them."""
    build = read_build(native.build)
    recording = discover_workloads(REPOSITORY)["replay"].recordings["cpython"]
    root = tmp_path / "root"
    root.mkdir()
    (root / "workloads").symlink_to(REPOSITORY / "workloads")
    trace = ensure_trace(root, build, "cpython", recording)
    made = trace.stat().st_mtime_ns
    assert ensure_trace(root, build, "cpython", recording).stat().st_mtime_ns == made
    os.utime(trace, (0, 0))  # older than the programs
    assert ensure_trace(root, build, "cpython", recording).stat().st_mtime_ns > made
    document = good(native, "jemalloc", "replay", "--input", str(trace))
    assert document["ops"] >= 1_000_000


def test_only_the_program_itself_is_recorded(native: Project, tmp_path: Path) -> None:
    """Not what it forks or starts; but what a script turns into by exec is."""
    build = read_build(native.build)
    busy = "x = [bytes(700) for _ in range(9000)]"
    script = "\n".join(
        [
            "import os, subprocess",
            "if os.fork() == 0:",
            f"    {busy}",
            "    os._exit(0)",
            "os.wait()",
            "subprocess.run(['true'])",
        ]
    )
    python = Program([sys.executable, "-S", "-c", script], {}, quiet=True)
    turning = ["sh", "-c", f'exec "$0" -S -c "{busy}"', sys.executable]
    shell = Program(turning, {}, quiet=True)
    alone = record(build, python, tmp_path / "fork.nvtrace").facts["operations"]
    turned = record(build, shell, tmp_path / "exec.nvtrace").facts["operations"]
    assert alone + 9000 < turned
