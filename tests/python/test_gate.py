# SPDX-License-Identifier: Apache-2.0
"""What gate.py makes of the verdicts; the benches themselves take a quiet machine and half an hour."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import gate
from gate import MISS, Gate, run, verdict


class Scripted(Gate):
    """Benches that take no time, and a `compare` that says what the test wants."""

    def __init__(self, alarm: bool, found: Sequence[bool], *, other: bool = False) -> None:
        super().__init__(Path("/build"), Path("/slow"), Path("/out"), [])
        self.made: list[str] = []
        self.compared: list[tuple[str, str]] = []
        self._alarm, self._found, self._other = alarm, list(found), other

    def bench(self, name: str, *, slow: bool = False) -> Path:
        assert slow == name.startswith("slow")
        self.made.append(name)
        return Path(name)

    def _compared(self, base: Path, new: Path) -> dict[str, Any]:
        self.compared.append((base.name, new.name))
        planted = new.name.startswith("slow")
        worse = self._found.pop(0) if planted else self._alarm
        findings = [
            self._finding("nvmalloc", "larson", 1, worse=worse),
            self._finding("nvmalloc", "larson", 2, worse=False),
            self._finding("nvmalloc", "shbench", 1, worse=planted),
            self._finding("glibc", "larson", 1, worse=planted and self._other),
        ]
        return {"findings": findings, "counts": Counter(each["verdict"] for each in findings)}

    def _finding(
        self, allocator: str, workload: str, threads: int, *, worse: bool
    ) -> dict[str, Any]:
        return {
            "allocator": allocator, "workload": workload, "threads": threads, "metric": "ops_per_s",
            "verdict": "regressed" if worse else "ok", "p": 0.001,
        }  # fmt: skip


def test_no_run_is_in_two_pairs_of_one_claim() -> None:
    scripted = Scripted(alarm=False, found=[True] * 10)
    run(scripted, 10, 10)
    assert len(scripted.made) == len(set(scripted.made)) == 30
    same = [pair for pair in scripted.compared if not pair[1].startswith("slow")]
    planted = [pair for pair in scripted.compared if pair[1].startswith("slow")]
    assert (len(same), len(planted)) == (10, 10)
    for pairs in (same, planted):
        assert len({each for pair in pairs for each in pair}) == 20
    assert Counter(pair.state for pair in scripted.pairs if pair.claim == "same build") == {
        "quiet": 5,
        "loaded": 5,
    }
    assert verdict(scripted.pairs) == 0


@pytest.mark.parametrize(
    ("alarm", "found", "other", "code"),
    [
        (False, [True] * 9 + [False], False, 0),
        (False, [True] * 8 + [False] * 2, False, MISS),
        (True, [True] * 10, False, MISS),
        (False, [True] * 10, True, MISS),  # it was not glibc that was made slower
    ],
)
def test_one_miss_of_ten_is_allowed_and_no_false_alarm(
    alarm: bool, found: list[bool], other: bool, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted = Scripted(alarm, found, other=other)
    run(scripted, 2, len(found))
    assert verdict(scripted.pairs) == code
    output = capsys.readouterr().out
    assert ("MISSED" in output) == (code == MISS)
    assert output.count("larson x1 nvmalloc ops_per_s") == sum(found) + 2 * alarm


def test_a_bench_that_fails_is_no_verdict(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = str(tmp_path / "nowhere")
    arguments = ["gate.py", "--build", nowhere, "--slow", nowhere, "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", [*arguments, "--pairs", "0", "--detect", "1"])
    assert gate.main() == gate.NOT_MADE
    assert "bench" in capsys.readouterr().err
    assert (tmp_path / "out" / "table.json").read_text() == "[]\n"
