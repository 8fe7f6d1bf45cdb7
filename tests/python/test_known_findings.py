# SPDX-License-Identifier: Apache-2.0
"""A known failure is shown like any other; only the exit code of `bench` lets it pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from project import REPOSITORY
from suite.allocators import discover
from suite.commands.running import problem_of
from suite.errors import CorrectnessFailure
from suite.results import Run, Verdict
from suite.tables import survival_cells


def verdict(by_kind: dict[str, int], known: list[str]) -> Verdict:
    failed = sum(by_kind.values())
    return Verdict(
        allocator="pmdk", fault="sigkill", cases=10, states=40, passed=10 - failed, failed=failed,
        by_kind=by_kind, known_finding="docs/findings/x" if known else None, known_kinds=known,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("by_kind", "known", "bench", "fault"),
    [
        ({}, ["crash"], False, False),
        ({"crash": 2}, ["crash"], False, True),
        ({"crash": 2, "lost": 1}, ["crash"], True, True),
        ({"crash": 2}, [], True, True),
    ],
)
def test_which_command_answers_for_which_failure(
    by_kind: dict[str, int], known: list[str], bench: bool, fault: bool
) -> None:
    run = Run.model_construct(
        verdicts=[verdict(by_kind, known)], samples=[], interrupted=False, command="bench"
    )
    for every_case_counts, fails in ((False, bench), (True, fault)):
        problem = problem_of(run, Path("results/x"), (), every_case_counts=every_case_counts)
        assert isinstance(problem, CorrectnessFailure) == fails


def test_the_table_names_the_failure_and_the_document() -> None:
    cells = survival_cells(verdict({"crash": 2}, ["crash"]))
    assert "FAILED" in cells
    assert "crash 2" in cells[-1]
    assert "known: docs/findings/x" in cells[-1]


def test_every_known_finding_has_its_document() -> None:
    findings = [
        finding
        for allocator in discover(REPOSITORY).all()
        for finding in allocator.file.known_findings
    ]
    assert findings
    for finding in findings:
        assert (REPOSITORY / finding.document / "README.md").is_file()
