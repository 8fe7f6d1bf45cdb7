# SPDX-License-Identifier: Apache-2.0
"""One registry of metrics: models, tables and the page in docs/ agree with it."""

from __future__ import annotations

import re

import pytest

from made_runs import DURABLE, Machine, run_of
from project import REPOSITORY, Project
from suite import metrics_page
from suite.metrics import DERIVED, METRICS, figures_of, kind_of, metric_named, present
from suite.report import grids
from suite.results import Metrics, Sample

NOT_FIGURES = {"instructions_source", "figures"}
WORDS = {"workload", "threads", "allocator", "kind", "best", "remarks", "fault", "result", "what"}
WORDS |= {"consistency", "version", "case", "subject"}


def test_every_figure_of_a_sample_is_in_the_registry_and_the_other_way_round() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    assert set(names) == set(Metrics.model_fields) - NOT_FIGURES
    assert len({metric.heading for metric in METRICS}) == len(METRICS)


def test_the_page_in_docs_is_fresh() -> None:
    stale = "docs/metrics.md is stale: run `make metrics-page`"
    assert (REPOSITORY / "docs" / "metrics.md").read_text() == metrics_page.page(), stale


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_each_metric_is_defined_with_unit_direction_and_source(metric: object) -> None:
    page = metrics_page.page()
    found = metric_named(metric.name)  # type: ignore[attr-defined]
    entry = page.partition(f"\n### `{found.name}`\n")[2].partition("\n##")[0]
    assert found.definition in entry
    assert found.unit in entry
    assert f"source: {found.source}" in entry
    assert found.judged or found.unjudged in entry
    assert found.judged or found.unjudged


def full_run() -> object:
    """A run with every metric in it."""
    values = {metric.name: 1.5 for metric in METRICS}
    sample = Sample(
        allocator="ours", workload="larson", threads=1, repeat=0,
        metrics=Metrics.model_validate({**values, "instructions_source": "perf"}),
    )  # fmt: skip
    trial = sample.model_copy(update={"workload": "recovery", "raw": {"metrics": {}}})
    run = Machine(1).run(repeats=1)
    run.samples += [sample, trial]
    return run_of(run.samples, environment=run.environment, config=run.config)


def test_every_column_of_every_table_is_defined_on_the_page() -> None:
    page = metrics_page.page()
    headings = {metric.heading for metric in METRICS}
    headings |= {each.heading for columns in DERIVED.values() for each in columns}
    for grid in grids(full_run(), details=True):  # type: ignore[arg-type]
        for column in grid.columns:
            if grid.pages or column in WORDS or re.fullmatch(r"x[0-9]+", column):
                continue  # a workload's name; a number of threads
            known = "x BASELINE" if column.startswith("x ") and column[2:] in DURABLE else column
            assert known in headings, f"{column} of the table {grid.title}"
            assert known in page


def test_trials_have_their_own_figures() -> None:
    result = {"type": "result", "ops": None, "metrics": {"rebuilt_ms": 3.5, "unheard_of": 1}}
    assert kind_of(result, observed=False, stepped=False) == "trial"
    assert figures_of(result, "trial") == {"rebuilt_ms": 3.5, "recovery_ms": 3.5}
    windows = {"ops": 10, "ops_per_s": 5.0, "footprint_ratio": 1.25}
    figures = figures_of(windows, kind_of(windows, observed=False, stepped=False))
    assert figures["footprint_ratio"] == 1.25
    assert "rebuilt_ms" not in figures


def test_shown_in_the_unit_of_the_heading() -> None:
    assert metric_named("ops_per_s").shown(4_561_000.0) == "4.56"
    assert metric_named("ops_per_s").shown(234_567_000.0) == "235"
    assert metric_named("max_ns").shown(12_345.0) == "12"
    assert metric_named("reflush_ratio").shown(0.256) == "26"
    assert metric_named("ops_per_s").shown(None) == "-"
    names = [metric.name for metric in present(["p99_ns", "ops_per_s", "nonsense"])]
    assert names == ["ops_per_s", "p99_ns"]


def test_the_list(project: Project) -> None:
    result = project.invoke("list", "metrics", "--json")
    assert result.exit_code == 0
    assert '"ops_per_s"' in result.stdout
    assert "fences_per_op" in project.invoke("list", "metrics").stdout
