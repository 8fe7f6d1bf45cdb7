# SPDX-License-Identifier: Apache-2.0
"""Whole commands against the fake driver: outputs, files, exit codes."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import time
from pathlib import Path

import jsonschema
import pytest

from project import Project


def assert_one_paragraph(stderr: str) -> str:
    """The error itself: one line that begins with our name."""
    (line,) = [line for line in stderr.splitlines() if line.startswith("nvcrucible: ")]
    assert "Traceback" not in stderr
    return line


def test_a_bench_and_its_document(project: Project) -> None:
    project.allocator("durable")
    project.allocator("plain", kind="volatile", ops=3000)
    result = project.bench("--baseline", "durable", "--survival-cases", "3", "--json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert document == project.run_document()
    schema = json.loads(project.run("schema").stdout)
    jsonschema.validate(document, schema)
    samples = document["samples"]
    accepted = [sample for sample in samples if sample["accepted"] and not sample["observed"]]
    assert len(accepted) == 2 * 2 * 2  # allocators x workloads x repeats
    assert all(sample["metrics"]["ops_per_s"] > 0 for sample in accepted)
    observed = [sample for sample in samples if sample["observed"] and sample["accepted"]]
    assert {sample["allocator"] for sample in observed} == {"durable"}
    assert all("ops_per_s" not in sample["metrics"] for sample in observed)
    assert all(sample["metrics"]["fences_per_op"] == 1.0 for sample in observed)
    assert all(sample["raw"]["ops"] for sample in samples)
    (verdict,) = document["verdicts"]
    assert (verdict["cases"], verdict["passed"], verdict["states"]) == (3, 3, 9)
    assert document["environment"]["calibration"]["flush_fence_ns"] == 200.0
    assert project.leftovers() == []


def costs_of(project: Project, folder: Path) -> list[dict[str, str]]:
    """The rows of a report's cost table."""
    lines = project.run("report", folder, "--csv").stdout.splitlines()
    table = [line for line in lines if line.startswith("costs,") or "eff. fences" in line]
    return list(csv.DictReader(table))


def test_instructions_are_stepped_where_nothing_counts_them(project: Project) -> None:
    project.allocator("durable", step="ok")
    project.allocator("plain", kind="volatile", step="die")
    project.allocator("counted", kind="volatile")
    result = project.bench("--json", "-t", "1,2", "-w", "larson", "--survival-cases", "0")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    jsonschema.validate(document, json.loads(project.run("schema").stdout))
    stepped = {each["allocator"]: each for each in document["samples"] if each["stepped"]}
    assert stepped.keys() == {"durable", "plain"}
    assert stepped["durable"]["threads"] == 1
    assert stepped["durable"]["metrics"] == {
        "instructions_per_op": 200.0,
        "instructions_source": "stepped",
        "instructions_deviation": 1.5,
        "driver_instructions_per_op": 25.0,
    }
    assert "signal 11" in stepped["plain"]["error"]
    (folder,) = project.results.iterdir()
    found = {
        (row["allocator"], row["threads"]): (row["instr."], row["instr. by"])
        for row in costs_of(project, folder)
    }
    assert found["durable", "1"] == ("200", "stepped")
    assert found["durable", "2"] == ("-", "-")
    assert found["plain", "1"] == ("-", "-")
    assert found["counted", "2"] == ("250", "perf")


def test_a_machine_that_refuses_stepping_is_noted_once(project: Project) -> None:
    project.allocator("durable", step="refused")
    result = project.bench("--json", "--survival-cases", "0")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert not any(sample["stepped"] for sample in document["samples"])
    (note,) = document["environment"]["notes"]
    assert "instructions per operation are unknown" in note
    assert result.stderr.count(note) == 1


def test_who_is_too_slow_to_be_stepped_is_noted_and_no_failure(project: Project) -> None:
    project.allocator("slow", step="slow")
    project.allocator("durable", step="ok")
    result = project.bench("--json", "-w", "larson", "--survival-cases", "0")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    stepped = {each["allocator"]: each for each in document["samples"] if each["stepped"]}
    assert "100000 steps were not enough" in stepped["slow"]["error"]
    assert (stepped["slow"]["applicable"], stepped["durable"]["applicable"]) == (False, True)
    (note,) = document["environment"]["notes"]
    assert note == "too slow to be stepped over, not counted: slow larson"
    (folder,) = project.results.iterdir()
    report = project.run("report", folder)
    assert "note: too slow to be stepped over" in report.stdout
    costs = {row["allocator"]: row["instr."] for row in costs_of(project, folder)}
    assert (costs["slow"], costs["durable"]) == ("-", "200")


def test_a_slow_allocator_is_left_out_where_it_would_take_hours(project: Project) -> None:
    for name in ("walker", "quick"):
        folder = project.allocator(name)
    file = folder.parent / "walker" / "allocator.yaml"
    file.write_text(file.read_text() + "slow: true\n")
    workload = project.root / "workloads" / "larson.yaml"
    workload.write_text(workload.read_text() + "budgets:\n  quick: {skip_slow: true}\n")
    common = ("--json", "--survival-cases", "0", "--repeat", "1")
    for stated, rows in (((), {("walker", "threadtest")}), (("-w", "larson,threadtest"), None)):
        result = project.bench(*stated, *common, "--name", "named" if stated else "all")
        assert result.returncode == 0, result.stderr
        document = json.loads(result.stdout)
        found = {(each["allocator"], each["workload"]) for each in document["samples"]}
        walker = {pair for pair in found if pair[0] == "walker"}
        assert walker == (rows or {("walker", "larson"), ("walker", "threadtest")})
        assert len(found - walker) == 2
        notes = [note for note in document["environment"]["notes"] if "too long on larson" in note]
        assert len(notes) == (0 if stated else 1)


def test_the_quick_profile_counts_costs_on_one_number_of_threads(project: Project) -> None:
    project.allocator("durable")
    result = project.run(
        "bench",
        *project.common(),
        "--profile",
        "quick",
        "-t",
        "2,1",
        "--survival-cases",
        "0",
        "--json",
    )
    assert result.returncode == 0, result.stderr
    observed = [each for each in json.loads(result.stdout)["samples"] if each["observed"]]
    assert observed
    assert {each["threads"] for each in observed} == {2}


def test_the_seed_fixes_order_and_seeds(project: Project) -> None:
    for name in ("a", "b", "c"):
        project.allocator(name, kind="volatile")
    orders = []
    for _ in range(2):
        document = json.loads(project.bench("--json", "--noise-limit", "1").stdout)
        orders.append([(s["allocator"], s["workload"], s["seed"]) for s in document["samples"]])
    assert orders[0] == orders[1]
    assert len(orders[0]) == 3 * 2 * 2


def test_the_three_tables(project: Project) -> None:
    project.allocator("durable")
    project.allocator("plain", kind="volatile", ops=3000)
    result = project.bench("--baseline", "durable", "--survival-cases", "2", "-w", "larson")
    assert result.returncode == 0, result.stderr
    for text in (
        "Throughput",
        "Costs of one operation",
        "Survival",
        "best durable",
        "best volatile",
    ):
        assert text in result.stdout
    assert "3.00" in result.stdout  # plain is three times the baseline
    assert "emulated" in result.stdout
    assert "of 5" in result.stderr  # plain progress lines: 2 x 2 samples, 1 observed
    (folder,) = project.results.iterdir()
    again = project.run("report", folder)
    assert again.returncode == 0
    assert again.stdout.replace(str(folder), "") == result.stdout.replace(str(folder), "")


def test_reports_in_other_forms(project: Project) -> None:
    project.allocator("durable")
    project.bench("--survival-cases", "2", "-w", "larson")
    (folder,) = project.results.iterdir()
    markdown = project.run("report", folder, "--markdown").stdout
    titles = [line.split(" (")[0] for line in markdown.splitlines() if line.startswith("### ")]
    assert titles == [
        "### Throughput", "### Costs of one operation", "### Time of one durable operation",
        "### Calibration", "### Survival", "### Allocators",
    ]  # fmt: skip
    assert "| larson | 1 | durable |" in markdown.replace("**", "")
    rows = list(csv.reader(io.StringIO(project.run("report", folder, "--csv").stdout)))
    assert ["throughput", "larson", "1", "durable"] in [row[:4] for row in rows]
    assert json.loads(project.run("report", folder, "--json").stdout) == project.run_document()
    two = project.run("report", folder, "--markdown", "--csv")
    assert two.returncode == 2
    assert "--markdown" in assert_one_paragraph(two.stderr)


@pytest.mark.parametrize("behaviour", ["die", "garbage", "silent", "error"])
def test_a_broken_driver_costs_one_row_only(project: Project, behaviour: str) -> None:
    project.allocator("broken", kind="volatile", bench=behaviour)
    project.allocator("plain", kind="volatile")
    result = project.bench("--survival-cases", "0", "-w", "larson", "--repeat", "1")
    assert result.returncode == 0, result.stderr
    samples = {sample["allocator"]: sample for sample in project.run_document()["samples"]}
    assert samples["plain"]["metrics"]["ops_per_s"] > 0
    assert not samples["broken"]["accepted"]
    error = samples["broken"]["error"]
    expected = {"die": "signal 11", "garbage": "not json", "silent": "nothing", "error": "no space"}
    assert expected[behaviour] in error
    (row,) = [
        line for line in result.stdout.splitlines() if "larson" in line and "│ broken" in line
    ]
    assert error.split()[0] in row


def test_a_hang_is_ended_and_not_tried_again(project: Project) -> None:
    project.allocator("stuck", kind="volatile", bench="hang")
    project.allocator("plain", kind="volatile")
    result = project.bench(
        "--survival-cases", "0", "-w", "larson", "--repeat", "2", "--job-timeout", "2s"
    )
    assert result.returncode == 0, result.stderr
    errors = [
        s.get("error") for s in project.run_document()["samples"] if s["allocator"] == "stuck"
    ]
    assert "did not end within its time limit" in errors[0]
    assert "left out" in errors[1]
    assert project.leftovers() == []


def test_nothing_measured(project: Project) -> None:
    project.allocator("broken", kind="volatile", bench="die")
    result = project.bench("--survival-cases", "0", "--repeat", "1")
    assert result.returncode == 3
    assert "Nothing was measured: the driver was killed by signal 11" in assert_one_paragraph(
        result.stderr
    )


def test_a_wrong_answer_in_a_bench_is_a_correctness_failure(project: Project) -> None:
    project.allocator("twice", kind="volatile", bench="incorrect")
    project.allocator("plain", kind="volatile")
    result = project.bench("--survival-cases", "0", "--repeat", "1", "-w", "larson")
    assert result.returncode == 4
    assert "handed out twice" in result.stderr


def test_a_missing_library(project: Project) -> None:
    project.allocator("absent", kind="volatile", info="error")
    project.allocator("plain", kind="volatile")
    by_name = project.bench("-a", "absent,plain", "--survival-cases", "0")
    assert by_name.returncode == 3
    message = assert_one_paragraph(by_name.stderr)
    assert "'absent' can't be loaded" in message
    assert not project.results.exists()
    everything = project.bench("--survival-cases", "0", "-w", "larson")
    assert everything.returncode == 0
    assert "left out: The allocator 'absent'" in everything.stdout


def test_an_adapter_that_was_not_built(project: Project) -> None:
    project.allocator("unbuilt")
    (project.build / "allocators" / "unbuilt.so").unlink()
    reasons = {"unbuilt": "pkg-config does not know libunbuilt"}
    (project.build / "allocators" / "skipped.json").write_text(json.dumps(reasons))
    result = project.bench("-a", "unbuilt")
    assert result.returncode == 3
    assert "pkg-config does not know libunbuilt" in assert_one_paragraph(result.stderr)


def test_a_campaign_that_survives(project: Project) -> None:
    project.allocator("one")
    project.allocator("two")
    result = project.fault("--cases", "6", "-n", "2")
    assert result.returncode == 0, result.stderr
    verdicts = project.run_document()["verdicts"]
    assert [(v["allocator"], v["cases"], v["passed"]) for v in verdicts] == [
        ("one", 6, 6),
        ("two", 6, 6),
    ]
    assert result.stdout.count("survived") == 2
    assert project.leftovers() == []


def test_a_failing_case_is_kept_and_replays(project: Project) -> None:
    project.allocator("bad", history="lost", one_in=2)
    result = project.fault("--cases", "30", "-n", "2", "--json")
    assert result.returncode == 4, result.stderr
    (verdict,) = json.loads(result.stdout)["verdicts"]
    assert verdict["failed"] == verdict["by_kind"]["lost"] >= 6
    assert verdict["passed"] + verdict["failed"] == verdict["cases"]
    (folder,) = project.results.iterdir()
    cases = sorted((folder / verdict["cases_dir"]).iterdir())
    assert len(cases) == 5  # of a kind, no more are kept
    assert all((case / "heap.before.gz").stat().st_size < 10_000 for case in cases)
    replayed = project.run(
        "replay", cases[0], "--times", "3", "--pm", project.pm, "--runner", "local"
    )
    assert replayed.returncode == 4
    assert "'lost' as recorded in 3 of 3 replays" in replayed.stdout
    document = json.loads(
        project.run("replay", cases[0], "--json", "--pm", project.pm, "--runner", "local").stdout
    )
    assert (document["expected"], document["by_kind"]) == ("lost", {"lost": 1})
    assert project.leftovers() == []


def test_who_failed_at_work_is_set_to_work_again(project: Project) -> None:
    """The heap that it left may be sound: `verify` would show nothing."""
    project.allocator("bad", history="crash", one_in=2, at_work=1)
    result = project.fault("--cases", "4", "-n", "2", "--json")
    assert result.returncode == 4, result.stderr
    (folder,) = project.results.iterdir()
    case = min((folder / "cases").iterdir())
    document = json.loads((case / "case.json").read_text())
    assert document["arguments"][0] == "history"
    assert document["stderr"] == f"fake: seed {document['seed']} is crash"
    arguments = ("replay", case, "--pm", project.pm, "--runner", "local")
    replayed = project.run(*arguments, "--times", "2")
    assert replayed.returncode == 4, replayed.stderr
    assert "'crash' as recorded in 2 of 2 replays" in replayed.stdout
    project.allocator("bad2")  # the same library, in which it does not happen again
    target = project.build / "allocators" / "bad.so"
    target.write_text((project.build / "allocators" / "bad2.so").read_text())
    replayed = project.run(*arguments)
    assert replayed.returncode == 0, replayed.stderr
    assert "0 of 1 replays; the allocator failed at work" in replayed.stdout
    assert project.leftovers() == []


def test_the_cases_do_not_depend_on_the_workers(project: Project) -> None:
    project.allocator("bad", history="lost", one_in=2)
    seeds = []
    for workers in ("1", "3"):
        result = project.fault("--cases", "12", "-n", workers, "--json", "--max-failures", "0")
        (verdict,) = json.loads(result.stdout)["verdicts"]
        seeds.append(sorted(case["seed"] for case in verdict["failures"]))
    assert seeds[0] == seeds[1]
    assert seeds[0]


def test_a_hopeless_allocator_is_given_up(project: Project) -> None:
    project.allocator("bad", history="leak")
    project.allocator("good")
    result = project.fault("--cases", "40", "-n", "2", "--max-failures", "3", "--json")
    verdicts = {v["allocator"]: v for v in json.loads(result.stdout)["verdicts"]}
    assert 3 <= verdicts["bad"]["failed"] <= 5
    assert verdicts["bad"]["stopped_early"]
    assert verdicts["good"]["passed"] == 40


def test_a_budget_ends_a_campaign(project: Project) -> None:
    project.allocator("good")
    began = time.monotonic()
    result = project.fault("--budget", "2s", "-n", "1", "--json")
    assert result.returncode == 0, result.stderr
    assert time.monotonic() - began < 30
    assert json.loads(result.stdout)["verdicts"][0]["cases"] > 0


@pytest.mark.parametrize("behaviour", ["die", "garbage"])
def test_a_driver_without_verdicts(project: Project, behaviour: str) -> None:
    project.allocator("good")
    project.allocator("mute", history=behaviour)
    result = project.fault("--cases", "3")
    assert result.returncode == 3
    verdicts = {v["allocator"]: v for v in project.run_document()["verdicts"]}
    assert (verdicts["mute"]["cases"], verdicts["mute"]["errors"]) == (0, 3)
    assert verdicts["good"]["passed"] == 3
    assert "mute (3)" in assert_one_paragraph(result.stderr)


def test_an_allocator_from_outside_the_tree(project: Project, tmp_path: Path) -> None:
    folder = project.allocator("guest", outside=tmp_path / "outside", history="overlap")
    result = project.fault("--allocator-path", folder, "-a", "guest", "--cases", "1", "--json")
    assert result.returncode == 4, result.stderr
    (case,) = project.results.glob("*/cases/*")
    replayed = project.run("replay", case, "--pm", project.pm, "--runner", "local")
    assert replayed.returncode == 4
    assert "overlap" in replayed.stdout


def wait_for(condition: object, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def descendants(pid: int) -> list[int]:
    """All live processes under `pid`."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if fields[0] != "Z":
            parents[int(stat.parent.name)] = int(fields[1])
    found = [pid]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found[1:]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["bench", "fault"])
def test_interrupted_in_the_middle(project: Project, command: str, number: signal.Signals) -> None:
    project.allocator("good")
    project.allocator("stuck", bench="hang", history="hang")
    arguments = [command, *project.common(), "--json"]
    arguments += ["-t", "1"] if command == "bench" else ["-n", "2"]
    # As a script's background job starts: with SIGINT ignored. Being told by hand still counts.
    process = subprocess.Popen(
        ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *project.command(*arguments)],
        env=project.environment,
        cwd=project.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    # The stuck driver sleeps, and so does its child: at least three processes (two with setpriv's exec).
    wait_for(lambda: sum(1 for pid in descendants(process.pid) if _sleeps(pid)) >= 2)
    children = descendants(process.pid)
    process.send_signal(number)
    time.sleep(0.02)
    process.send_signal(number)  # the impatient second one changes nothing
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130, stderr
    document = json.loads(stdout)
    assert document["interrupted"]
    assert document == project.run_document()
    assert "Interrupted. Every job has been ended" in stderr
    wait_for(lambda: not any(map(alive, children)), 5)
    assert project.leftovers() == []


def _sleeps(pid: int) -> bool:
    try:
        return (
            b"nvdrive" in Path(f"/proc/{pid}/cmdline").read_bytes()
            or b"time.sleep" in Path(f"/proc/{pid}/cmdline").read_bytes()
        )
    except OSError:
        return False
