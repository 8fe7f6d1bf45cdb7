# SPDX-License-Identifier: Apache-2.0
"""Power-failure campaigns: what a case does, the real laboratory on a good and a bad allocator."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from made_runs import environment
from project import REPOSITORY, Project
from suite.commands.trace import event_line
from suite.powerfail import CASE_BUDGET_S, HEAPS, _add_states, case_budget, power_parameters
from suite.results import LEGAL_LIMIT, PowerStates, Run, Verdict
from suite.tables import power_grid, survival_cells

KNOWN_BAD = REPOSITORY / "tests" / "known_bad"


def test_a_case_is_a_function_of_seed_allocator_and_number() -> None:
    first = [power_parameters(1, "a", number) for number in range(40)]
    assert first == [power_parameters(1, "a", number) for number in range(40)]
    assert len({case.seed for case in first}) == 40
    assert {case.domain for case in first} == {"adr", "eadr"}
    assert {case.threads for case in first} == {1, 2}
    assert first != [power_parameters(2, "a", number) for number in range(40)]
    assert first != [power_parameters(1, "b", number) for number in range(40)]


def test_cases_without_a_compiled_lens_are_small() -> None:
    for number in range(20):
        case = power_parameters(1, "a", number, compiled=False)
        assert (case.threads, case.generations) == (1, 1)
        assert case.ops <= 20
        assert case.heap_bytes == HEAPS[0]
    assert power_parameters(1, "a", 0, min_heap=1 << 30).heap_bytes == 1 << 30


def test_a_short_budget_reaches_every_allocator() -> None:
    assert case_budget(None, 2, 10) == CASE_BUDGET_S
    assert case_budget(3600, 2, 1) == CASE_BUDGET_S
    for allocators in (1, 5, 12):
        # Two rounds of cases on all workers end within the budget.
        assert 2 * allocators * case_budget(45, 2, allocators) / 2 <= 45


def test_more_states_than_a_number_holds_are_still_counted() -> None:
    """Two histories under eADR with thousands of lines past the caches: JSON has no infinity."""
    verdict = Verdict(allocator="a", fault="powerfail", cases=0, states=0, passed=0, failed=0)
    verdict.power = PowerStates()
    for share in (0.5, math.nan):
        result = {"states_checked": 7, "states_legal": math.inf, "states_covered": math.inf}
        _add_states(verdict, "powerfail", {**result, "share_covered": share}, ())
    assert verdict.power.checked == 14
    assert verdict.power.legal == 2 * LEGAL_LIMIT
    assert verdict.power.covered == LEGAL_LIMIT / 2
    json.dumps(verdict.model_dump(mode="json"), allow_nan=False)
    run = Run(
        schema=1, name="r", command="fault", started=datetime.now(UTC),
        environment=environment(), config={}, verdicts=[verdict],
    )  # fmt: skip
    verdict.cases = verdict.passed = 2
    assert survival_cells(verdict)[2] == "survived"
    verdict.states = 0
    assert survival_cells(verdict)[2] == "not judged", "of no state, nothing can be said"
    (row,) = power_grid(run).rows
    assert "> 1e+300" in row
    assert "25 %" in row


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            {"event": 3, "kind": "mark", "thread": 0, "mark": "begin", "operation": "a0:64"},
            "      3 t0 == begin a0:64",
        ),
        (
            {
                "event": 4, "kind": "store", "thread": 1, "offset": 64, "length": 8,
                "data": "0100", "at": "slab.c:7", "function": "take",
            },
            "      4 t1 store    0x40+8                   slab.c:7 take  0100",
        ),
        (
            {"event": 5, "kind": "fence", "thread": 0, "at": "log.c:9", "function": "end"},
            "      5 t0 fence                             log.c:9 end",
        ),
    ],
)  # fmt: skip
def test_an_event_for_people(event: dict[str, object], line: str) -> None:
    assert event_line(event) == line


def _laboratory(native: Project) -> None:
    if not (native.build / "faults" / "nvlab").is_file():
        pytest.skip("the build has no faults/nvlab: libdw-dev was missing")


@pytest.mark.native
def test_a_good_allocator_passes_and_its_states_are_counted(native: Project) -> None:
    _laboratory(native)
    result = native.run(
        "fault", "-a", "good-minimal", "--allocator-path", KNOWN_BAD / "good-minimal",
        "-f", "powerfail,recovery-crash", "--budget", "4s", "-n", "1", "--seed", "1",
        "--runner", "local", "--out", native.results, "--json",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    verdicts = {each["fault"]: each for each in json.loads(result.stdout)["verdicts"]}
    assert set(verdicts) == {"powerfail", "recovery-crash"}
    power = verdicts["powerfail"]["power"]
    assert power["lens"] == "compiled"
    assert power["legal"] >= power["covered"] > 0
    assert 0 < power["checked"] == verdicts["powerfail"]["states"]
    assert power["distinct"] > 0
    assert power["media_bytes"] >= power["stored_bytes"] > 0
    assert verdicts["recovery-crash"]["states"] > 0


@pytest.mark.native
def test_a_bad_one_is_caught_kept_replayed_and_shown(native: Project) -> None:
    _laboratory(native)
    folder = KNOWN_BAD / "publish-before-mark"
    result = native.run(
        "fault", "-a", "publish-before-mark", "--allocator-path", folder, "-f", "powerfail",
        "--cases", "1", "-n", "1", "--seed", "1", "--runner", "local", "--out", native.results,
        "--json",
    )  # fmt: skip
    assert result.returncode == 4, result.stderr
    (verdict,) = json.loads(result.stdout)["verdicts"]
    assert verdict["by_kind"] == {"overlap": 1}
    (run,) = native.results.iterdir()
    case = run / verdict["failures"][0]["path"]
    told = json.loads((case / "case.json").read_text())
    assert told["operation_count"] == 1
    assert "publish_then_mark" in {site["function"] for site in told["sites"]}

    replay = native.run(
        "replay", case, "--times", "2", "--runner", "local", "--allocator-path", folder, "--json"
    )
    assert replay.returncode == 4, replay.stderr
    assert json.loads(replay.stdout)["same"] == 2

    shown = native.run("trace", case)
    assert shown.returncode == 0, shown.stderr
    assert "publish_then_mark" in shown.stdout
    assert "== begin a" in shown.stdout

    (case / "trace.nvl").write_bytes((case / "trace.nvl").read_bytes()[:100])
    broken = native.run("trace", case)
    assert broken.returncode == 2
    assert "damaged or cut off" in broken.stderr
    (case / "trace.nvl").unlink()
    missing = native.run("replay", case, "--runner", "local", "--allocator-path", folder)
    assert missing.returncode == 2
    assert "lacks trace.nvl" in missing.stderr


@pytest.mark.native
def test_what_is_no_trace_is_refused(native: Project, tmp_path: Path) -> None:
    _laboratory(native)
    file = tmp_path / "notes.txt"
    file.write_text("nothing of the kind")
    result = native.run("trace", file)
    assert result.returncode == 2
    assert "it is no trace" in result.stderr
    assert native.run("trace", tmp_path / "nowhere").returncode == 2


@pytest.mark.native
def test_a_store_is_seen_before_another_thread_flushes_its_line(
    native: Project, tmp_path: Path
) -> None:
    """daisy-bitmap's blocks share lines, and it looks at its own memory between store and flush:
    a turn of the other thread."""
    _laboratory(native)
    adapter = native.build / "allocators" / "daisy-bitmap.lens.so"
    for seed in range(1, 17):
        done = subprocess.run(
            [
                native.build / "faults" / "nvlab", "record", "--adapter", adapter,
                "--work", tmp_path, "--dir", tmp_path, "--trace", tmp_path / "trace.nvl",
                "--threads", "2", "--ops", "40", "--heap-size", "512K", "--seed", str(seed),
            ],
            stdout=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
        last = json.loads(done.stdout.splitlines()[-1])
        assert (done.returncode, last["type"]) == (0, "recorded"), f"seed {seed}: {last}"


@pytest.mark.native
def test_a_store_past_the_caches_is_taken_when_it_has_happened(
    native: Project, tmp_path: Path
) -> None:
    """nvmalloc announces a line of a new thread's log before it loads what it will store: a turn
    of the other thread in between must not pass for the store."""
    _laboratory(native)
    for seed in (1, 2, 3):
        done = subprocess.run(
            [
                native.build / "faults" / "nvlab", "run",
                "--adapter", native.build / "allocators" / "nvmalloc.lens.so",
                "--work", tmp_path, "--dir", native.pm, "--threads", "2", "--ops", "6",
                "--generations", "1", "--states", "16", "--heap-size", "8M", "--seed", str(seed),
            ],
            stdout=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
        last = json.loads(done.stdout.splitlines()[-1])
        assert (done.returncode, last.get("verdict")) == (0, "ok"), f"seed {seed}: {last}"


@pytest.mark.native
def test_the_library_lens_tells_a_flushed_slot_from_one_that_is_not(
    native: Project, tmp_path: Path
) -> None:
    """pmdk's adapter, and the same but for one thing: a plain store clears the slot, and nothing
    flushes it.  Its block is freed, so a slot that is old on media names what is none any more."""
    _laboratory(native)
    if not (native.build / "allocators" / "pmdk.so").is_file():
        pytest.skip("the build has no pmdk: libpmemobj-dev was missing")
    sources = tmp_path / "unflushed"
    shutil.copytree(REPOSITORY / "allocators" / "pmdk", sources)
    code = (sources / "adapter.c").read_text()
    assert code.count("pmemobj_free(oid);") == 1
    (sources / "adapter.c").write_text(
        code.replace(
            "pmemobj_free(oid);", "PMEMoid was = *oid; *oid = OID_NULL; pmemobj_free(&was);"
        )
    )
    bad = tmp_path / "unflushed.so"
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-D_GNU_SOURCE", "-I", REPOSITORY / "allocators",
         *(sources / name for name in ("adapter.c", "pool.c", "format.c")),
         "-lpmemobj", "-lpmem", "-lpthread", "-o", bad],
        check=True,
    )  # fmt: skip
    environment = {
        **native.environment,
        "LD_PRELOAD": str(native.build.resolve() / "faults" / "libpmem-probe.so"),
        "PMEM_IS_PMEM_FORCE": "1",
        "PMEMOBJ_CONF": "sds.at_create=0",
    }
    verdicts = []
    for adapter in (native.build / "allocators" / "pmdk.so", bad):
        done = subprocess.run(
            [
                native.build / "faults" / "nvlab", "run", "--adapter", adapter, "--work", tmp_path,
                "--dir", native.pm, "--script", "a0:64 a1:64 f0 a2:4096", "--faults", "powerfail",
                "--states", "16", "--generations", "1", "--heap-size", "8M", "--seed", "1",
                "--no-shrink", "--no-deep", "--fill-tolerance", "0.02",
            ],
            stdout=subprocess.PIPE, text=True, env=environment, check=False,
        )  # fmt: skip
        verdicts.append(json.loads(done.stdout.splitlines()[-1]))
    good, caught = verdicts
    assert good["verdict"] == "ok", good
    assert good["states_checked"] > 20
    assert caught["verdict"] == "resurrected", caught
    assert "is never flushed" in caught["explanation"]
