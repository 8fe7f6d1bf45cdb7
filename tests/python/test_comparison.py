# SPDX-License-Identifier: Apache-2.0
"""`compare`: no false alarm where nothing changed, and an alarm where something did."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from made_runs import Machine, environment, run_of
from project import Project
from suite.comparability import obstacles
from suite.comparison import Comparison, Finding, compare
from suite.results import Metrics, Run, RunFolder, Sample, Verdict

PAIRS = 10


def regressed(found: Comparison) -> list[Finding]:
    return found.with_verdict("regressed")


@pytest.mark.parametrize("seed", range(PAIRS))
def test_no_false_alarm_in_ten_pairs_half_of_them_loaded(seed: int) -> None:
    machine = Machine(seed)
    base = machine.run()
    machine.load = 0.8 if seed % 2 else 0.0
    new = machine.run()
    found = compare(base, new, fail_on=0.05)
    assert regressed(found) == []
    assert len(found.findings) == 40 + 20 + 20  # rates; fences; instructions
    if machine.load:
        noisy = [f for f in found.with_verdict("inconclusive") if "disturbed" in f.reason]
        assert len(noisy) >= 20
    # Counted figures don't care.
    assert all(f.verdict == "ok" for f in found.findings if f.metric != "ops_per_s")


def test_a_planted_slowdown_is_found_where_it_is_and_nowhere_else() -> None:
    by_time = 0
    for seed in range(PAIRS):
        machine = Machine(100 + seed)
        base, new = machine.run(), machine.run(slow={"ours": 0.1})
        worse = regressed(compare(base, new, fail_on=0.05))
        assert {finding.allocator for finding in worse} <= {"ours"}
        by_time += len(worse) >= 5  # of ten cells
    assert by_time >= 9


def test_a_counted_slowdown_is_found_even_amid_noise() -> None:
    machine = Machine(5, load=1.0)
    base, new = machine.run(), machine.run(slow={"plain": 0.2})
    found = compare(base, new, fail_on=0.05)
    worse = regressed(found)
    assert {(f.allocator, f.metric) for f in worse} == {("plain", "instructions_per_op")}
    assert len(worse) == 10
    assert found.power.tests == 0


def test_all_pairs_together_would_raise_a_false_alarm_without_the_correction() -> None:
    """The allowance for what runs differ by as wholes is what keeps the promise above."""
    machine = Machine(3, between=0.06)
    base, new = machine.run(), machine.run()
    found = compare(base, new, fail_on=0.05)
    assert regressed(found) == []
    beyond = [f for f in found.findings if f.factor and f.factor.low > 1.05]
    assert beyond
    assert any("as wholes" in finding.reason for finding in beyond)


def test_the_machine_s_pace_is_taken_out() -> None:
    slow, fast = Machine(8, drift=0.0), Machine(8, drift=0.0)
    base, new = fast.run(), slow.run()
    for sample in new.samples:
        if sample.metrics.ops_per_s and sample.pace_ns:
            sample.metrics.ops_per_s /= 1.15
            sample.pace_ns *= 1.15
    # No sample says how much of the pace an allocator feels, unless the pace varied within a run.
    for run in (base, new):
        for number, sample in enumerate(run.samples):
            if sample.metrics.ops_per_s and sample.pace_ns:
                step = 1.04 if number % 2 else 1 / 1.04
                sample.metrics.ops_per_s /= step
                sample.pace_ns *= step
    found = compare(base, new, fail_on=0.05)
    rates = [f.factor.median for f in found.findings if f.metric == "ops_per_s" and f.factor]
    assert max(abs(rate - 1) for rate in rates) < 0.05
    for sample in new.samples:
        sample.pace_ns = None
    raw = compare(base, new, fail_on=0.05)
    rates = [f.factor.median for f in raw.findings if f.metric == "ops_per_s" and f.factor]
    assert min(rates) > 1.1


def one(metric: str, values: list[float], **changes: object) -> Run:
    samples = [
        Sample.model_validate(
            {
                "allocator": "ours", "workload": "larson", "threads": 1, "repeat": i,
                "metrics": {metric: value}, **changes,
            }
        )
        for i, value in enumerate(values)
    ]  # fmt: skip
    return run_of(samples)


def verdict_on(metric: str, base: list[float], new: list[float], **changes: object) -> Finding:
    found = compare(one(metric, base, **changes), one(metric, new, **changes), fail_on=0.05)
    (finding,) = found.findings
    return finding


def test_each_metric_has_a_direction() -> None:
    low, high = [10.0, 10.1, 9.9, 10.05, 9.95], [12.0, 12.1, 11.9, 12.05, 11.95]
    assert verdict_on("ops_per_s", high, low).verdict == "regressed"
    assert verdict_on("ops_per_s", low, high).verdict == "ok"
    trial = {"raw": {"metrics": {}}}
    assert verdict_on("rebuilt_ms", low, high, **trial).verdict == "regressed"
    assert verdict_on("rebuilt_ms", high, low, **trial).verdict == "ok"
    assert verdict_on("fences_per_op", [1.0], [2.0], observed=True).verdict == "regressed"
    assert verdict_on("fences_per_op", [2.0], [1.0], observed=True).verdict == "ok"


def test_small_differences_don_t_count() -> None:
    assert verdict_on("fences_per_op", [0.01], [0.05], observed=True).verdict == "ok"
    assert verdict_on("fences_per_op", [0.0], [0.02], observed=True).verdict == "ok"
    assert verdict_on("fences_per_op", [0.0], [0.5], observed=True).verdict == "regressed"
    assert verdict_on("fences_per_op", [1.0], [1.06], observed=True).verdict == "inconclusive"


def test_too_few_samples_are_never_regressed_by_their_time() -> None:
    finding = verdict_on("ops_per_s", [10.0, 10.1], [5.0, 5.1])
    assert (finding.verdict, finding.counts) == ("inconclusive", (2, 2))
    three = verdict_on("ops_per_s", [10.0, 10.1, 9.9], [5.0, 5.1, 4.9])
    assert three.verdict == "regressed"  # one test alone: three a side are 1 in 20
    many = Machine(1).run(repeats=3), Machine(2).run(slow={"ours": 1.0}, repeats=3)
    found = compare(*many, fail_on=0.05)
    assert regressed(found) == []
    assert found.power.samples_needed > 3
    assert found.power.short == found.power.tests == 40


def test_stepped_and_counted_instructions_are_two_things() -> None:
    def instructions(source: str, value: float) -> Run:
        metrics = Metrics(instructions_per_op=value, instructions_source=source)  # type: ignore[arg-type]
        sample = Sample(allocator="ours", workload="larson", threads=1, repeat=0, metrics=metrics)
        return run_of([sample])

    found = compare(instructions("perf", 100), instructions("stepped", 200), fail_on=0.05)
    assert found.findings == []


def test_a_cell_that_fails_now_has_regressed() -> None:
    base, new = one("ops_per_s", [1.0, 1.0, 1.0]), one("ops_per_s", [1.0])
    new.samples[0].error, new.samples[0].accepted = "the driver was killed by signal 11", False
    (finding,) = compare(base, new, fail_on=0.05).findings
    assert (finding.metric, finding.verdict) == ("runs", "regressed")
    assert "signal 11" in finding.reason
    (back,) = compare(new, base, fail_on=0.05).findings
    assert back.verdict == "ok"


def test_faults_that_were_survived_before() -> None:
    good = Verdict(allocator="ours", fault="sigkill", cases=100, states=300, passed=100, failed=0)
    bad = good.model_copy(update={"passed": 99, "failed": 1, "by_kind": {"lost": 1}})
    base, new = run_of([], verdicts=[good]), run_of([], verdicts=[bad])
    (finding,) = compare(base, new, fail_on=0.05).findings
    assert (finding.metric, finding.verdict) == ("survival", "regressed")
    assert compare(new, new, fail_on=0.05).findings[0].verdict == "ok"
    known = bad.model_copy(update={"known_kinds": ["lost"]})
    assert compare(base, run_of([], verdicts=[known]), fail_on=0.05).findings[0].verdict == "ok"


def test_what_differs_between_environments() -> None:
    base = run_of([])
    assert obstacles(base, run_of([])) == []
    for changes in (
        {"cpu_model": "Another"}, {"cpus": 4}, {"kernel": "7"}, {"governor": "powersave"},
        {"runner": {"name": "docker"}}, {"memory_bytes": 8_000_000_000},
    ):  # fmt: skip
        (found,) = obstacles(base, run_of([], environment=environment(**changes)))
        assert str(next(iter(changes.values()))) in found or "docker" in found or "GB" in found
    assert obstacles(base, run_of([], environment=environment(hostname="other"))) == []
    (windows,) = obstacles(base, run_of([], config={"seconds": 1.0}))
    assert "seconds" in windows


def saved(run: Run, folder: Path) -> Path:
    folder.mkdir(parents=True)
    RunFolder(folder, run).save()
    return folder


def test_the_command(project: Project, tmp_path: Path) -> None:
    machine = Machine(4)
    base = saved(machine.run(), tmp_path / "base")
    same = saved(machine.run(), tmp_path / "same")
    worse = saved(machine.run(slow={"ours": 0.3}), tmp_path / "worse")
    ok = project.invoke("compare", str(base), str(same))
    assert ok.exit_code == 0, ok.output
    bad = project.invoke("compare", str(base), str(worse), "--json")
    assert bad.exit_code == 1
    document = json.loads(bad.stdout)
    assert document["regressed"]
    assert document["counts"]["regressed"] >= 8
    names = {f["allocator"] for f in document["findings"] if f["verdict"] == "regressed"}
    assert names == {"ours"}
    assert "regressed by more than 5 %: ours" in bad.stderr
    assert project.invoke("compare", str(base), str(worse), "-a", "theirs").exit_code == 0
    assert project.invoke("compare", str(base), str(worse), "--fail-on", "60%").exit_code == 0
    markdown = project.invoke("compare", str(base), str(worse), "--markdown")
    assert "| regressed | " in markdown.stdout
    assert markdown.exit_code == 1


def test_the_command_refuses(project: Project, tmp_path: Path) -> None:
    machine = Machine(4)
    base = saved(machine.run(), tmp_path / "base")
    foreign = machine.run(environment=environment(cpu_model="Another"))
    other = saved(foreign, tmp_path / "other")
    refused = project.invoke("compare", str(base), str(other))
    assert refused.exit_code == 3
    assert "--force" in refused.stderr
    assert "Another" in refused.stderr
    assert project.invoke("compare", str(base), str(other), "--force").exit_code == 0
    empty = saved(run_of([]), tmp_path / "empty")
    assert project.invoke("compare", str(base), str(empty)).exit_code == 3
    for arguments in (
        ("--fail-on", "x"), ("--fail-on", "0"), ("-a", "nobody"), ("--json", "--markdown"),
    ):  # fmt: skip
        assert project.invoke("compare", str(base), str(base), *arguments).exit_code == 2
    assert project.invoke("compare", str(base), str(tmp_path / "none")).exit_code == 2


def test_other_parameters_leave_a_workload_out(project: Project, tmp_path: Path) -> None:
    machine = Machine(4)
    base, new = machine.run(), machine.run()
    new.config["workloads"] = {**new.config["workloads"], "larson": {"parameters": {"size": 1}}}
    found = project.invoke(
        "compare", str(saved(base, tmp_path / "a")), str(saved(new, tmp_path / "b")), "--json"
    )
    document = json.loads(found.stdout)
    assert "larson" not in {finding["workload"] for finding in document["findings"]}
    assert any("left out: larson" in note for note in document["notes"])
