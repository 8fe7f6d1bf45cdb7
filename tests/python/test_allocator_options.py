# SPDX-License-Identifier: Apache-2.0
"""Options of an allocator's rows: others in campaigns, another kind in the bench, unsupported ones."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from project import REPOSITORY, Project
from suite.allocators import discover
from suite.errors import BadInput

IN_BENCH = "mode=gc,slots=dram"
IN_CAMPAIGNS = "mode=gc,slots=heap"
VARIANTS = """\
options: {mode: log}
variants:
  - name: mine-gc
    stands_as: volatile
    consistency: gc
    options: {mode: gc, slots: dram}
    fault_options: {slots: heap}
"""


def add(project: Project, text: str = VARIANTS, **behaviour: Any) -> Path:
    folder = project.allocator("mine", **behaviour)
    with (folder / "allocator.yaml").open("a") as file:
        file.write(text)
    return folder


def test_a_variant_may_be_judged_with_other_options(project: Project) -> None:
    add(project)
    base, variant = discover(project.root).all()
    assert (base.options, base.fault_options, base.stands_as) == (
        "mode=log",
        "mode=log",
        "persistent",
    )
    assert (variant.options, variant.fault_options) == (IN_BENCH, IN_CAMPAIGNS)
    assert (variant.persistent, variant.judged, variant.stands_as) == (True, True, "volatile")


def test_a_variant_inherits_what_its_file_says(project: Project) -> None:
    add(
        project,
        "options: {a: 1, b: 2}\nfault_options: {b: 3}\nstands_as: volatile\n"
        "variants: [{name: mine-too, options: {a: 4}, fault_options: {a: 5}}]\n",
    )
    base, variant = discover(project.root).all()
    assert (base.fault_options, variant.fault_options) == ("a=1,b=3", "a=5,b=3")
    assert (base.stands_as, variant.stands_as) == ("volatile", "volatile")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fault_options: {slots: heap}\n", "'options' have .none., not 'slots'"),
        (
            "options: {slots: dram}\nvariants: [{name: x, fault_options: {slot: heap}}]\n",
            "'x': 'fault_options' with keys that its 'options' have .slots., not 'slot'",
        ),
        (
            "options: {a: 1}\nvariants: [{name: x, kind: volatile, fault_options: {a: 2}}]\n",
            "'x': 'fault_options' only where campaigns judge",
        ),
        ("options: {a: 1}\nfault_options: {a: [1]}\n", "fault_options"),
        ("options: {a: 1}\nfault_options: {a: 'b,c=d'}\n", "fault_options.a"),
        ("stands_as: durable\n", "stands_as"),
        (
            "variants: [{name: x, kind: volatile, stands_as: persistent}]\n",
            "'x': 'stands_as: persistent' only beside 'kind: persistent'",
        ),
    ],
)
def test_options_that_make_no_sense(project: Project, text: str, expected: str) -> None:
    folder = add(project, text)
    with pytest.raises(BadInput, match=expected) as caught:
        discover(project.root)
    assert str(folder / "allocator.yaml") in str(caught.value)


def test_the_bench_measures_with_the_one_and_campaigns_judge_with_the_other(
    project: Project,
) -> None:
    wants = {"bench": IN_BENCH, "fill": IN_CAMPAIGNS, "history": IN_CAMPAIGNS}
    add(project, wants=wants)
    done = project.bench("-a", "mine-gc", "-w", "larson", "--survival-cases", "2")
    assert done.returncode == 0, done.stderr
    document = project.run_document()
    assert document["samples"]
    assert not any(sample.get("error") for sample in document["samples"])
    (verdict,) = document["verdicts"]
    assert (verdict["cases"], verdict["passed"], verdict["errors"]) == (2, 2, 0)
    facts = document["environment"]["allocators"]["mine-gc"]
    assert (facts["options"], facts["fault_options"]) == (IN_BENCH, IN_CAMPAIGNS)
    # It stands with the volatile ones, and is persistent all the same.
    assert (facts["kind"], facts["stands_as"]) == ("persistent", "volatile")
    assert "│ volatile │ mine-gc" in done.stdout


def test_a_failure_is_replayed_with_the_campaign_s_options(project: Project) -> None:
    wants = {"fill": IN_CAMPAIGNS, "history": IN_CAMPAIGNS, "verify": IN_CAMPAIGNS}
    add(project, history="lost", wants=wants)
    done = project.fault("-a", "mine-gc", "-f", "sigkill", "--cases", "1")
    assert done.returncode == 4, done.stderr
    assert "│ durable │ mine-gc" in done.stdout
    assert IN_CAMPAIGNS in done.stdout  # and not the bench's
    (case,) = project.results.glob("*/cases/*")
    assert json.loads((case / "case.json").read_text())["options"] == IN_CAMPAIGNS
    replayed = project.run("replay", str(case), "--runner", "local", "--pm", str(project.pm))
    assert replayed.returncode == 4, replayed.stderr
    assert "'lost' as recorded" in replayed.stdout + replayed.stderr


def test_what_stands_as_volatile_runs_no_workload_that_needs_persistence(project: Project) -> None:
    path = project.root / "workloads" / "larson.yaml"
    path.write_text(path.read_text() + "needs: [crash-safe]\n")
    add(project)
    done = project.bench("-a", "mine,mine-gc", "-w", "larson", "--survival-cases", "0")
    assert done.returncode == 0, done.stderr
    assert {sample["allocator"] for sample in project.run_document()["samples"]} == {"mine"}


def test_what_the_machine_does_not_support_is_told_in_the_tables(project: Project) -> None:
    project.allocator("plain")
    add(project, "options: {protect: 'yes'}\n", info="unsupported")
    done = project.bench("-a", "plain,mine", "-w", "larson", "--survival-cases", "1")
    assert done.returncode == 0, done.stderr
    document = project.run_document()
    assert {sample["allocator"] for sample in document["samples"]} == {"plain"}
    assert document["environment"]["unsupported"]["mine"]["reason"] == "this machine has no widgets"
    assert "not supported" in done.stdout
    assert "not supported here: this machine has no widgets" in done.stdout
    assert [verdict["allocator"] for verdict in document["verdicts"]] == ["plain"]


def test_nothing_but_what_the_machine_does_not_support(project: Project) -> None:
    add(project, "options: {protect: 'yes'}\n", info="unsupported")
    done = project.bench("-a", "mine", "-w", "larson")
    assert done.returncode == 3
    assert "not supported here: this machine has no widgets" in done.stderr


def test_nvmalloc_s_rows() -> None:
    rows = {each.name: each for each in discover(REPOSITORY).all() if each.base == "nvmalloc"}
    assert list(rows) == [
        "nvmalloc", "nvmalloc-strict", "nvmalloc-gc", "nvmalloc-gc-slot", "nvmalloc-protect",
    ]  # fmt: skip
    assert all(each.judged for each in rows.values())
    assert {name for name, each in rows.items() if each.stands_as == "volatile"} == {"nvmalloc-gc"}
    # Campaigns see what survives: every pointer in the heap.
    assert not any("slots=dram" in each.fault_options for each in rows.values())
    assert "slots=dram" in rows["nvmalloc-gc"].options


@pytest.mark.native
def test_the_real_driver_tells_whether_there_are_protection_keys(native: Project) -> None:
    """As the processor says; with `mprotect` in their place everybody has them."""
    command: list[str | Path] = [
        native.build / "workloads" / "nvdrive", "info",
        "--adapter", native.build / "allocators" / "nvmalloc.so", "--options",
    ]  # fmt: skip

    def answer(options: str, **environment: str) -> dict[str, Any]:
        done = subprocess.run(
            [*command, options],
            capture_output=True,
            check=False,
            env={**os.environ, **environment},
        )
        document: dict[str, Any] = json.loads(done.stdout)
        assert done.returncode == (0 if document["type"] == "info" else 3)
        return document

    assert answer("mode=owned")["type"] == "info"
    assert answer("protect=yes", NVM_PROTECT_BACKEND="mprotect")["type"] == "info"
    document = answer("protect=yes")
    if " ospke" in Path("/proc/cpuinfo").read_text():
        assert document["type"] == "info"
    else:
        assert document["where"] == "unsupported"
        assert "no protection keys" in document["message"]


@pytest.mark.native
def test_a_real_campaign_of_every_row(native: Project) -> None:
    """nvmalloc's heaps grow while they are killed; GC pointers are judged in the heap."""
    result = native.run(
        "fault", "-a", "nvmalloc,nvmalloc-strict,nvmalloc-gc,nvmalloc-gc-slot,nvmalloc-protect",
        "-f", "sigkill", "--cases", "4", "--runner", "local", "--out", native.results,
        "--seed", "3", "--json",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    judged = {each["allocator"]: each["passed"] for each in document["verdicts"]}
    unsupported = set(document["environment"].get("unsupported", {}))
    assert unsupported <= {"nvmalloc-protect"}
    assert set(judged) | unsupported == {
        "nvmalloc", "nvmalloc-strict", "nvmalloc-gc", "nvmalloc-gc-slot", "nvmalloc-protect",
    }  # fmt: skip
    assert set(judged.values()) == {4}
