# SPDX-License-Identifier: Apache-2.0
"""Power-failure campaigns: what a case does, the real laboratory on a good and a bad allocator."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from project import REPOSITORY, Project
from suite.commands.trace import event_line
from suite.powerfail import HEAPS, power_parameters

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
