# SPDX-License-Identifier: Apache-2.0
"""Standalone workloads: their YAML, their plan, whole benches with a program of the tests, and the
real `vmem`."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from project import REPOSITORY, Project
from suite.errors import BadInput
from suite.standalone import Standalone, discover_standalone, select_subjects, standalone_plan

DUEL = """\
schema: 1
kind: standalone
name: duel
summary: two subjects of the tests
operation: a blow
unit: kops/s
subjects:
  old: as it was
  new: as it is
baseline: old
figures:
  cost: {label: cost/blow, digits: 1}
cases:
  single: {threads: [1], parameters: {strength: 3}}
  crowd: {summary: many at a time}
  long: {profiles: [full]}
"""
# What the program does for a subject and case is read from behaviour.json beside it.
PROGRAM = """\
import argparse, json, pathlib, sys, time
assert sys.argv[1] == "bench"
parser = argparse.ArgumentParser()
for name in "case subject threads cpus seed warmup seconds timeout dir work".split():
    parser.add_argument("--" + name, required=True)
parser.add_argument("--param", action="append", default=[])
asked = parser.parse_args(sys.argv[2:])
behaviour = json.loads(pathlib.Path(__file__).with_name("behaviour.json").read_text())
how = behaviour.get(asked.subject + "/" + asked.case, behaviour.get(asked.subject, {}))
assert not list(pathlib.Path(asked.dir).iterdir())
(pathlib.Path(asked.dir) / "heap").write_text("heap")
if "sleep" in how:
    time.sleep(how["sleep"])
if "error" in how:
    print(json.dumps({"type": "error", "where": how["error"], "message": how["message"]}))
    sys.exit(how["exit"])
ops = how.get("ops", 1000)
print(json.dumps({
    "type": "result", "workload": "duel", "case": how.get("answers", asked.case),
    "subject": asked.subject, "threads": int(asked.threads), "seconds": 0.001,
    "ops": ops, "ops_per_s": 1000.0 * ops, "peak_bytes": how.get("peak"),
    "figures": how.get("figures", {"cost": 2.5}), "asked": vars(asked),
}))
"""


def duel(project: Project, **behaviour: Any) -> None:
    """Adds the workload with a program that behaves so."""
    (project.root / "workloads" / "duel.yaml").write_text(DUEL)
    folder = project.build / "workloads" / "standalone"
    folder.mkdir()
    (folder / "behaviour.json").write_text(json.dumps(behaviour))
    (folder / "duel").write_text(f"#!{sys.executable}\n{PROGRAM}")
    (folder / "duel").chmod(0o755)


def bench(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    return project.run("bench", *project.common(), "--profile", "quick", "-w", "duel", *arguments)


def load(text: str) -> Standalone:
    import yaml

    return Standalone.model_validate(yaml.safe_load(text))


# ---- the file ----


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("baseline: old", "baseline: older", "'baseline' to be one of the subjects"),
        ("operation: a blow\n", "", "key 'operation'"),
        ("threads: [1]", "threads: [0]", "cases.single.threads"),
        ("digits: 1", "digit: 1", "figures.cost.digit"),
        ("profiles: [full]", "profiles: [fast]", "cases.long.profiles"),
        ("unit: kops/s", "unit: furlongs", "key 'unit'"),
        ("name: duel", "name: dual", "key 'name'"),
        ("kind: standalone", "kind: alone", "duel.yaml"),
    ],
)
def test_errors_name_file_and_key(project: Project, old: str, new: str, message: str) -> None:
    duel(project)
    (project.root / "workloads" / "duel.yaml").write_text(DUEL.replace(old, new))
    result = project.invoke("list", "workloads")
    assert result.exit_code == 2
    assert "duel.yaml" in result.stderr
    assert message in result.stderr


def test_it_is_listed(project: Project) -> None:
    duel(project)
    text = project.invoke("list", "workloads").stdout
    row = next(line for line in text.splitlines() if "duel" in line)
    assert "standalone" in row
    assert "old, new" in text.replace("\n", " ")
    document = json.loads(project.invoke("list", "workloads", "--json").stdout)
    shown = next(each for each in document["workloads"] if each["name"] == "duel")
    assert shown["kind"] == "standalone"
    assert list(shown["subjects"]) == ["old", "new"]


def test_subjects_are_chosen_by_name() -> None:
    workload = load(DUEL)
    assert select_subjects(workload, None) == ["old", "new"]
    assert select_subjects(workload, ["jemalloc", "new"]) == ["new"]
    with pytest.raises(BadInput, match=r"-a nev: .*did you mean 'new'.*Its subjects: old, new"):
        select_subjects(workload, ["nev"])


@given(seed=st.integers(0, 2**63 - 1), repeats=st.integers(1, 4))
def test_every_sample_is_planned_once(seed: int, repeats: int) -> None:
    workload = load(DUEL)
    chosen = [(workload, ["old", "new"])]
    plan = standalone_plan(chosen, [1, 2], repeats, seed, "default")
    counts = Counter((cell.case_name, cell.subject, cell.threads) for cell in plan)
    assert counts == {
        (case, subject, threads): repeats
        for case, threads in (("single", 1), ("crowd", 1), ("crowd", 2))
        for subject in ("old", "new")
    }
    # Subjects of a cell follow each other, and get the same seed, which is no other cell's.
    for pair in zip(plan[::2], plan[1::2], strict=True):
        assert len({(cell.case_name, cell.threads, cell.repeat, cell.seed) for cell in pair}) == 1
    assert len({cell.seed for cell in plan}) == len(plan) // 2
    assert [cell.repeat for cell in plan] == sorted(cell.repeat for cell in plan)
    assert plan == standalone_plan(chosen, [1, 2], repeats, seed, "default")
    assert any(c.case_name == "long" for c in standalone_plan(chosen, [1], 1, seed, "full"))


# ---- a bench ----


def test_a_bench_and_its_document(project: Project) -> None:
    duel(project, new={"ops": 4000, "figures": {"cost": 1.25}, "peak": 3_000_000})
    result = bench(project, "-t", "1,2", "--json", "--repeat", "2")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert document == project.run_document()
    assert document["config"]["workloads"]["duel"]["cases"] == {
        "single": {"strength": 3},
        "crowd": {},
    }
    assert document["verdicts"] == []
    assert document["config"]["allocators"] == []
    accepted = [sample for sample in document["samples"] if sample["accepted"]]
    assert len(accepted) == 2 * 3 * 2  # subjects x cells x repeats
    for sample in accepted:
        new = sample["allocator"] == "new"
        assert sample["metrics"]["ops_per_s"] == (4e6 if new else 1e6)
        assert sample["metrics"]["figures"] == {"cost": 1.25 if new else 2.5}
        asked = sample["raw"]["asked"]
        assert int(asked["threads"]) == sample["threads"]
        assert int(asked["seed"]) == sample["seed"]
        assert len(asked["cpus"].split(",")) <= sample["threads"]
        assert asked["param"] == (["strength=3"] if sample["case"] == "single" else [])
        assert sample["noise"] is not None
    assert project.leftovers() == []


def test_the_tables(project: Project) -> None:
    duel(
        project, new={"ops": 4000}, **{"old/crowd": {"error": "alloc", "message": "no", "exit": 3}}
    )
    result = bench(project, "-t", "1")
    assert result.returncode == 0, result.stderr
    assert "Workload duel (an operation is a blow)" in result.stdout
    assert "alloc: no" in result.stdout
    (folder,) = project.results.iterdir()
    tables = project.run("report", folder, "--csv").stdout.split("\n\n")
    table = next(text for text in tables if text.startswith("table,case,"))
    rows = list(csv.DictReader(io.StringIO(table)))
    found = {(row["case"], row["subject"]): row for row in rows}
    assert list(found) == [("single", "old"), ("single", "new"), ("crowd", "old"), ("crowd", "new")]
    assert found["single", "new"]["kops/s"] == "4000"
    assert found["single", "new"]["x old"] == "4.00"
    assert found["single", "new"]["cost/blow"] == "2.5"
    assert found["crowd", "old"]["kops/s"] == "-"
    markdown = project.run("report", folder, "--markdown", "--baseline", "new").stdout
    assert "### Workload duel" in markdown
    assert "| x new |" in markdown
    assert "0.25" in markdown


def test_subjects_on_the_command_line(project: Project) -> None:
    duel(project)
    assert bench(project, "-t", "1", "-a", "new").returncode == 0
    assert {sample["allocator"] for sample in project.run_document()["samples"]} == {"new"}
    result = bench(project, "-a", "newer")
    assert result.returncode == 2
    assert "newer" in result.stderr
    assert "old, new" in result.stderr


def test_it_runs_when_it_is_named_only(project: Project) -> None:
    duel(project)
    project.allocator("durable")
    assert project.bench("--survival-cases", "0", "-w", "all").returncode == 0
    assert all("case" not in sample for sample in project.run_document()["samples"])
    both = project.run(
        "bench", *project.common(), "--profile", "quick", "-t", "1", "--survival-cases", "0",
        "-w", "duel,larson", "-a", "durable,old", "--name", "both",
    )  # fmt: skip
    assert both.returncode == 0, both.stderr
    (file,) = project.results.glob("*-both/run.json")
    samples = json.loads(file.read_text())["samples"]
    assert {(s["workload"], s["allocator"]) for s in samples} == {
        ("duel", "old"),
        ("larson", "durable"),
    }
    assert "Throughput" in both.stdout
    assert "Workload duel" in both.stdout


def test_what_is_missing_is_said_once(project: Project) -> None:
    duel(project, new={"error": "missing", "message": "libnew is not installed", "exit": 3})
    result = bench(project, "-t", "1", "--repeat", "3")
    assert result.returncode == 0, result.stderr
    document = project.run_document()
    missing = [sample for sample in document["samples"] if sample["allocator"] == "new"]
    assert Counter(sample["case"] for sample in missing) == {"single": 1, "crowd": 1}
    assert all("libnew is not installed" in sample["error"] for sample in missing)
    assert len(document["environment"]["skipped"]) == 2
    assert result.stdout.count("left out: new in duel/single") == 1


def test_a_wrong_answer_is_a_correctness_failure(project: Project) -> None:
    duel(project, new={"error": "output", "message": "differs from the reference", "exit": 4})
    result = bench(project, "-t", "1", "--repeat", "1")
    assert result.returncode == 4
    assert "differs from the reference" in result.stderr


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ({"answers": "other"}, "case is 'other', and 'single' was asked for"),
        ({"figures": {"price": 1}}, "figures that the workload's file does not name"),
        ({"ops": 0}, "ops is 0"),
    ],
)
def test_an_answer_to_another_question_is_an_error(
    project: Project, behaviour: dict[str, Any], message: str
) -> None:
    duel(project, **{"new/single": behaviour})
    bench(project, "-t", "1", "--repeat", "1")
    samples = project.run_document()["samples"]
    wrong = [s for s in samples if (s["allocator"], s["case"]) == ("new", "single")]
    assert [message in sample["error"] for sample in wrong] == [True]
    assert not wrong[0]["accepted"]
    assert sum(sample["accepted"] for sample in samples) == 3


def test_a_hang_is_killed_and_not_tried_again(project: Project) -> None:
    duel(project, **{"new/single": {"sleep": 600}})
    result = bench(project, "-t", "1", "--repeat", "3", "--job-timeout", "0.2s")
    assert result.returncode == 0, result.stderr
    hung = [
        sample["error"]
        for sample in project.run_document()["samples"]
        if (sample["allocator"], sample["case"]) == ("new", "single")
    ]
    assert "time limit" in hung[0]
    assert hung[1:] == ["left out: an earlier sample like it hung"] * 2


def test_without_its_program(project: Project) -> None:
    duel(project)
    (project.build / "workloads" / "standalone" / "duel").unlink()
    result = bench(project, "-t", "1")
    assert result.returncode == 3
    assert "The program of the workload 'duel' is not there" in result.stderr


# ---- the real ones ----


def test_the_projects_files_are_good() -> None:
    known = discover_standalone(REPOSITORY)
    assert "vmem" in known
    segments = [
        case.parameters["segments"]
        for name, case in known["vmem"].cases.items()
        if name.startswith("segments-")
    ]
    assert segments == [10, 100, 1000, 10_000, 100_000, 1_000_000]


@pytest.mark.native
def test_vmem_program(native_build: Path) -> None:
    """Its answers, and what it says to bad arguments."""
    program = native_build / "workloads" / "standalone" / "vmem"

    def ask(*arguments: str) -> tuple[int, dict[str, Any]]:
        result = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
        return result.returncode, json.loads(result.stdout.splitlines()[-1])

    common = ("bench", "--seconds", "0.02", "--warmup", "0", "--seed", "3", "--subject", "vmem")
    code, answer = ask(*common, "--case", "s", "--param", "segments=1000")
    assert code == 0
    assert answer["ops"] > 1000
    assert set(answer["figures"]) == {"cpu_ns_per_op", "scattered_ns_per_op", "searched_per_op"}
    code, answer = ask(*common, "--case", "c", "--threads", "2", "--param", "largest=8")
    assert code == 0
    assert answer["threads"] == 2
    for bad in (
        ("--case", "s"),
        ("--case", "s", "--param", "segments=10", "--param", "largest=2"),
        ("--case", "s", "--param", "segments=10", "--threads", "2"),
        ("--case", "s", "--param", "segment=10"),
        ("--case", "s", "--param", "segments=10", "--cpus", "x"),
        ("--case", "s", "--param", "segments=10", "more"),
    ):
        code, answer = ask(*common, *bad)
        assert (code, answer["type"]) == (2, "error"), bad


@pytest.mark.native
@pytest.mark.parametrize("subject", ["vmem", "vmem-cached"])
def test_vmem_is_constant_time(native_build: Path, subject: str) -> None:
    """Neither the free segments examined grow with the number of segments, nor does the time,
    with what is touched in the caches: CPU time, and allowing for a loaded machine."""
    program = native_build / "workloads" / "standalone" / "vmem"
    best: dict[int, float] = {}
    for segments in (10, 1_000_000) * 2:
        command = [program, "bench", "--case", "segments", "--subject", subject, "--seed", "3"]
        command += ["--warmup", "0.01", "--seconds", "0.05", "--param", f"segments={segments}"]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        figures = json.loads(output)["figures"]
        assert figures["searched_per_op"] < 0.01
        best[segments] = min(best.get(segments, 1e9), figures["cpu_ns_per_op"])
    assert best[1_000_000] < 3 * best[10]


@pytest.mark.native
def test_a_bench_of_vmem(native: Project) -> None:
    """Two threads, both subjects; quantum caches save CPU time whatever else runs."""
    result = native.run(
        "bench", *native.common(), "-w", "vmem", "-t", "2", "--profile", "quick",
        "--repeat", "2", "--seconds", "50ms", "--json",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    best: dict[tuple[str, str], float] = {}
    for sample in json.loads(result.stdout)["samples"]:
        key = (sample["allocator"], sample["case"])
        cost = sample["metrics"]["figures"]["cpu_ns_per_op"]
        best[key] = min(best.get(key, 1e9), cost)
    assert set(best) == {
        (subject, case)
        for subject in ("vmem", "vmem-cached")
        for case in ("small-sizes", "mixed-sizes")
    }
    assert best["vmem-cached", "small-sizes"] < 0.8 * best["vmem", "small-sizes"]


def test_the_contracts_example_is_the_files(tmp_path: Path) -> None:
    """The YAML in the documentation is a good file."""
    text = (REPOSITORY / "docs" / "standalone-workloads.md").read_text()
    block = text.split("```yaml\n", 1)[1].split("```", 1)[0]
    (tmp_path / "workloads").mkdir()
    (tmp_path / "workloads" / "vmem.yaml").write_text(textwrap.dedent(block))
    (workload,) = discover_standalone(tmp_path).values()
    assert workload.cases["segments-10"].threads == [1]
