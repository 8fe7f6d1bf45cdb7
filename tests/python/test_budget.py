# SPDX-License-Identifier: Apache-2.0
"""A bench ends in time, and goes on after it was interrupted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import suite.budget
from project import Project
from suite.allocators import Allocator, AllocatorFile
from suite.budget import Timetable, forecast
from suite.plan import PROFILES, bench_plan
from suite.statistics import least_samples
from suite.variants import variants_of
from suite.workloads import Workload


def allocators(durable: int, volatile: int) -> list[Allocator]:
    made = []
    for number in range(durable + volatile):
        kind = "persistent" if number < durable else "volatile"
        file = AllocatorFile.model_validate(
            {"schema": 1, "name": f"a{number}", "kind": kind, "adapter": {"sources": ["a.c"]}}
        )
        persistent = kind == "persistent"
        made.append(
            Allocator(f"a{number}", "a", file, Path("/none"), False, "", persistent, "none", "")
        )
    return made


def workloads(count: int) -> list[Any]:
    made = [
        Workload.model_validate({"schema": 1, "name": f"w{number}", "heap": "1M"})
        for number in range(count)
    ]
    return variants_of(made, "default")


@pytest.mark.parametrize(("name", "minutes"), [("quick", 3), ("default", 25)])
def test_all_allocators_on_all_workloads_end_in_time(name: str, minutes: float) -> None:
    """14 allocators, 15 workloads, 1 and 2 threads, on 2 CPUs and without hardware counters."""
    profile = PROFILES[name]
    plan = bench_plan(allocators(9, 5), workloads(15), [1, 2], profile.repeat, 1)
    outlook = forecast(
        plan, profile, profile.seconds, survivors=9, cases=profile.survival_cases, workers=2,
        stepped=True,
    )  # fmt: skip
    assert profile.budget_s is not None
    assert profile.budget_s < 60 * minutes
    # What is left after the fixed parts is enough for as many rounds as a comparison needs.
    left = profile.budget_s - outlook.survival_s
    assert outlook.round_s < left
    if name == "default":
        cells = len([cell for cell in plan if cell.repeat == 1])
        each = (outlook.rounds_s - outlook.round_s) / (outlook.rounds - 1)
        assert (left - outlook.stepping_s) / each >= least_samples(cells, 0.05)
    assert "min" in outlook.line(profile.budget_s)


def test_a_timetable(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(suite.budget.time, "monotonic", lambda: now)
    timetable = Timetable(60.0, survival_s=20.0)
    timetable.round_took(15.0)
    timetable.round_took(12.0)
    assert timetable.another_round()
    now = 126.0
    assert not timetable.another_round()  # 14 s are left, and the longest one took 15
    assert timetable.another_sample()
    now = 141.0
    assert not timetable.another_sample()
    now = 100.0
    reserving = Timetable(60.0, survival_s=20.0, stepping_s=30.0)
    reserving.round_took(12.0)
    assert not reserving.another_round()  # 10 s are left for rounds
    now = 135.0
    assert reserving.another_sample()  # of the time set aside for it
    now = 141.0
    assert not reserving.another_sample()
    free = Timetable(None, 1e9)
    free.round_took(1e9)
    assert free.another_round()


def test_a_short_budget_means_fewer_rounds_of_all(project: Project) -> None:
    project.allocator("one", kind="volatile")
    project.allocator("two", kind="volatile", step="ok")
    result = project.bench("--profile", "full", "--budget", "1ms", "--survival-cases", "0")
    assert result.returncode == 0, result.stderr
    document = project.run_document()
    samples = document["samples"]
    assert {(s["allocator"], s["workload"], s["repeat"]) for s in samples} == {
        (allocator, workload, 0)
        for allocator in ("one", "two")
        for workload in ("larson", "threadtest")
    }
    notes = document["environment"]["notes"]
    assert "time allowed 1 of 20 rounds of samples" in notes
    assert any("instruction counts of 0 of 2" in note for note in notes)
    assert "fewer rounds, to end within" in result.stderr


def strip(sample: dict[str, Any]) -> tuple[Any, ...]:
    keys = ("allocator", "workload", "threads", "repeat", "observed", "stepped", "seed")
    return tuple(sample[key] for key in keys)


def test_an_interrupted_bench_goes_on(project: Project) -> None:
    project.allocator("durable", step="ok")
    project.allocator("plain", kind="volatile")
    first = project.bench("--survival-cases", "2", "--noise-limit", "1")
    assert first.returncode == 0, first.stderr
    whole = project.run_document()
    (folder,) = project.results.iterdir()
    # As it is after Ctrl-C in the middle: some samples, an unfinished campaign.
    cut = json.loads(json.dumps(whole))
    cut["samples"] = cut["samples"][:4]
    cut["verdicts"][0] |= {"cases": 1, "passed": 1}
    cut["interrupted"] = True
    (folder / "run.json").write_text(json.dumps(cut))
    again = project.run("bench", "--resume", folder)
    assert again.returncode == 0, again.stderr
    resumed = project.run_document()
    assert not resumed["interrupted"]
    assert resumed["samples"][:4] == cut["samples"]
    assert list(map(strip, resumed["samples"])) == list(map(strip, whole["samples"]))
    starts = [sample["started_s"] for sample in resumed["samples"]]
    assert starts == sorted(starts)
    assert [(v["allocator"], v["cases"]) for v in resumed["verdicts"]] == [("durable", 2)]
    assert any("gone on with after 4 samples" in note for note in resumed["environment"]["notes"])
    once_more = project.run("bench", "--resume", folder, "--json")
    assert once_more.returncode == 0
    assert json.loads(once_more.stdout)["samples"] == resumed["samples"]
    assert project.leftovers() == []


def test_what_can_t_be_gone_on_with(project: Project) -> None:
    project.allocator("durable")
    project.bench("--survival-cases", "0", "-w", "larson")
    (folder,) = project.results.iterdir()
    document = json.loads((folder / "run.json").read_text())
    document["environment"]["cpu_model"] = "Another"
    (folder / "run.json").write_text(json.dumps(document))
    foreign = project.run("bench", "--resume", folder)
    assert foreign.returncode == 3
    assert "Another then" in foreign.stderr
    del document["config"]["options"]
    (folder / "run.json").write_text(json.dumps(document))
    assert project.run("bench", "--resume", folder).returncode == 2
    assert project.run("bench", "--resume", folder / "none").returncode == 2
