# SPDX-License-Identifier: Apache-2.0
"""Tables on narrow terminals, the README's table, and the history of a metric."""

from __future__ import annotations

import csv
import io
import json
from datetime import timedelta
from pathlib import Path

import pytest
from rich.console import Console

from made_runs import STARTED, Machine, environment, run_of
from project import REPOSITORY, Project
from suite.history import sparkline
from suite.readme import BEGIN, END, readme_table
from suite.report import DETAILED_ROWS, grids
from suite.results import Run, RunFolder, Verdict, load_run
from suite.summary import summarize
from suite.tables import draw


def drawn(run: Run, width: int, *, details: bool | None = None) -> str:
    text = io.StringIO()
    console = Console(file=text, width=width)
    for grid in grids(run, details=details):
        draw(grid, console)
    return text.getvalue()


def survivors() -> list[Verdict]:
    ours = Verdict(allocator="ours", fault="sigkill", cases=500, states=900, passed=500, failed=0)
    known = {"failed": 5, "passed": 495, "by_kind": {"crash": 5}, "known_kinds": ["crash"]}
    theirs = {"allocator": "theirs", "known_finding": "docs/findings/theirs", **known}
    return [ours, ours.model_copy(update=theirs)]


@pytest.mark.parametrize("width", [100, 80, 60])
@pytest.mark.parametrize("details", [True, None])
def test_tables_fit_the_terminal(width: int, details: bool | None) -> None:
    run = Machine(1).run(repeats=3, verdicts=survivors())
    text = drawn(run, width, details=details)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "…" not in text  # nothing is cut
    for name in ("ours", "theirs", "plain", "fast", "shbench", "4.", "survived"):
        assert name in text


def test_a_long_run_is_shown_at_a_glance_first() -> None:
    many = tuple(f"load{number}" for number in range(12))
    run = Machine(1).run(repeats=1, workloads=many)
    assert len(summarize(run).rates) > DETAILED_ROWS
    text = drawn(run, 100)
    assert "at a glance" in text
    assert "95 % interval" not in text
    assert all(f"{name} x2" in " ".join(text.split()) or name in text for name in many)
    assert "95 %" in drawn(run, 120, details=True)


def test_the_best_of_each_kind_is_marked_and_rows_without_figures_stay() -> None:
    run = Machine(1).run(repeats=1, workloads=("larson",))
    for sample in run.samples:
        if sample.allocator == "theirs":
            sample.error, sample.accepted = "it died", False
    rows = {(row.allocator, row.threads): row for row in summarize(run).rates}
    assert rows["ours", 1].best
    assert rows["fast", 1].best
    assert not rows["plain", 1].best
    assert rows["theirs", 1].error == "it died"
    assert "it died" in drawn(run, 160, details=True)


def test_the_readme_s_table(project: Project, tmp_path: Path) -> None:
    run = Machine(1).run(repeats=3, verdicts=survivors())
    folder = tmp_path / "20260102T030400Z-made"
    folder.mkdir()
    RunFolder(folder, run).save()
    readme = tmp_path / "README.md"
    readme.write_text(f"# Title\n\n{BEGIN}\nold\n{END}\n\nrest\n")
    for _ in range(2):  # twice gives the same
        result = project.invoke("report", str(folder), "--readme", str(readme))
        assert result.exit_code == 0, result.output
    text = readme.read_text()
    assert text.startswith(f"# Title\n\n{BEGIN}\n| Mops/s")
    assert text.endswith(f"{END}\n\nrest\n")
    assert "old" not in text
    assert text == f"# Title\n\n{BEGIN}\n{readme_table(run, folder)}{END}\n\nrest\n"
    assert "[495 of 500](docs/findings/theirs/README.md)" in text
    assert "500 of 500" in text
    assert "A CPU" in text
    assert folder.name in text
    ours = next(line for line in text.splitlines() if line.startswith("| ours"))
    median = summarize(run).rates[0]
    assert (median.workload, median.allocator) == ("large", "ours")
    assert f"{(median.median('ops_per_s') or 0) / 1e6:.3g} / " in ours
    readme.write_text("no markers")
    assert project.invoke("report", str(folder), "--readme", str(readme)).exit_code == 2


def test_the_project_s_readme_has_the_markers() -> None:
    text = (REPOSITORY / "README.md").read_text()
    assert text.count(BEGIN) == text.count(END) == 1


def results(tmp_path: Path) -> Path:
    """Four runs, of which the first is from elsewhere."""
    machine = Machine(2)
    for number in range(4):
        slow = {"ours": 0.25 * number}
        changes = {"started": STARTED + timedelta(hours=number)}
        if number == 0:
            changes["environment"] = environment(cpu_model="Another")  # type: ignore[assignment]
        folder = tmp_path / f"2026010{number + 1}T000000Z-bench"
        folder.mkdir()
        RunFolder(folder, machine.run(slow=slow, repeats=3, **changes)).save()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    return tmp_path


def test_history(project: Project, tmp_path: Path) -> None:
    parent = str(results(tmp_path))
    arguments = ("history", "ops_per_s", "--results", parent)
    found = project.invoke(*arguments, "-a", "ours", "-w", "larson", "-t", "1", "--json")
    assert found.exit_code == 0, found.output
    document = json.loads(found.stdout)
    assert len(document["runs"]) == 3
    assert document["left_out"] == 1
    (series,) = document["series"]
    medians = [value["median"] for value in series["values"]]
    assert medians == sorted(medians, reverse=True)  # slower each time
    assert "left out: 1 runs under other conditions" in found.stderr
    assert "not JSON" in found.stderr
    table = project.invoke(*arguments, "-a", "ours", "-w", "larson", "-t", "1").stdout
    assert "█" in table
    assert "▁" in table
    rows = list(csv.reader(io.StringIO(project.invoke(*arguments, "--csv").stdout)))
    assert len(rows) == 1 + 40
    assert project.invoke(*arguments, "--last", "1").exit_code == 0
    assert project.invoke("history", "ops_per_sec", "--results", parent).exit_code == 2
    assert project.invoke(*arguments, "-a", "nobody").exit_code == 2
    assert project.invoke("history", "rebuilt_ms", "--results", parent).exit_code == 2
    assert project.invoke("history", "ops_per_s", "--results", parent + "/x").exit_code == 2


def test_sparklines() -> None:
    assert sparkline([1.0, None, 8.0, 4.5]) == "▁ █▅"
    assert sparkline([2.0, 2.0]) == "▄▄"
    assert sparkline([None]) == ""


def test_a_saved_run_reads_back_as_it_was(tmp_path: Path) -> None:
    run = Machine(1).run(repeats=2, verdicts=survivors())
    run.samples[0].raw = {"text": '\n "samples": []', "latency": {"counts": [[1, 2], [3, 4]]}}
    folder = RunFolder(tmp_path, run)
    folder.save()
    text = (tmp_path / "run.json").read_text()
    assert json.loads(text) == run.document()
    assert load_run(tmp_path).document() == run.document()
    assert sum(line.startswith("  {") for line in text.splitlines()) >= len(run.samples)
    empty = RunFolder(tmp_path, run_of([]))
    empty.save()
    assert load_run(tmp_path).samples == []


def test_saving_never_takes_more_than_its_share(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, Machine(1).run(repeats=1))
    folder.save()
    written = (tmp_path / "run.json").stat().st_mtime_ns
    for _ in range(20):
        folder.save(soon=True)
    assert (tmp_path / "run.json").stat().st_mtime_ns == written
