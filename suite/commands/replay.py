# SPDX-License-Identifier: Apache-2.0
"""`nvcrucible replay`: recovers a failing case's heap again and shows the verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from suite.allocators import Allocator, discover
from suite.cases import CaseFile, load_case, replay_case
from suite.commands.options import positive
from suite.errors import CorrectnessFailure, Interrupted, NothingMeasured
from suite.output import print_json, print_text
from suite.powerfail import replay_power_case
from suite.project import project_root
from suite.session import Session, open_session

__all__ = ["ReplayOptions", "replay"]

HEAP_SPACE = 64 << 20


@dataclass(frozen=True)
class ReplayOptions:
    """The command line, as typed."""

    case: Path
    times: int
    runner: str
    pm: Path | None
    allocator_paths: Sequence[Path]
    json_output: bool


def replay(options: ReplayOptions) -> int:
    """Replays the case; 4 when it still fails, 0 when every time was ok."""
    positive(options.times, "--times")
    folder, case = load_case(options.case)
    root = project_root()
    allocator = _allocator(root, case, options.allocator_paths)
    with open_session(
        root,
        [allocator],
        runner_name=options.runner,
        pm=options.pm,
        required=True,
        space_bytes=HEAP_SPACE,
        space_for="a replay",
    ) as session:
        try:
            verdicts = _replay(session, folder, case, allocator, options)
        except KeyboardInterrupt:
            raise Interrupted(
                "Interrupted. Every job has been ended; the case is unchanged."
            ) from None
    return _tell(case, verdicts, options)


def _allocator(root: Path, case: CaseFile, paths: Sequence[Path]) -> Allocator:
    """The case's allocator, with the options that it had then."""
    outside = list(paths)
    if case.allocator_path is not None and not outside:
        outside = [Path(case.allocator_path)]
    allocator = discover(root, outside).select([case.allocator])[0]
    return replace(allocator, options=case.options)


def _replay(
    session: Session, folder: Path, case: CaseFile, allocator: Allocator, options: ReplayOptions
) -> list[dict[str, object]]:
    verdicts: list[dict[str, object]] = []
    for number in range(1, options.times + 1):
        if case.traced:
            answer = replay_power_case(session.driver, folder, allocator, case.timeout_s)
        else:
            answer = replay_case(session.driver, folder, case, allocator)
        if answer.result is None:
            raise NothingMeasured(
                f"The replay of {folder} gave no verdict: {answer.error}. Expected the verdict "
                f"'{case.verdict}' or 'ok'. Build again, and check that the allocator's version is "
                "the one that failed."
            )
        verdicts.append(answer.result)
        if not options.json_output:
            kind = answer.result.get("verdict")
            detail = answer.result.get("explanation") or answer.result.get("detail") or ""
            print_text(f"{number} of {options.times}: {kind}{': ' if detail else ''}{detail}\n")
    return verdicts


def _why_not(case: CaseFile) -> str:
    if case.runs_again:
        return (
            "; the allocator failed at work, which depends on how its threads met: more --times, "
            "or the campaign with its seed"
        )
    return "; it does not fail any more"


def _tell(case: CaseFile, verdicts: list[dict[str, object]], options: ReplayOptions) -> int:
    kinds = Counter(str(verdict.get("verdict")) for verdict in verdicts)
    failing = sum(count for kind, count in kinds.items() if kind != "ok")
    same = kinds.get(case.verdict, 0)
    code = CorrectnessFailure.exit_code if failing else 0
    if options.json_output:
        print_json(
            {
                "case": str(options.case),
                "allocator": case.allocator,
                "fault": case.fault,
                "seed": case.seed,
                "expected": case.verdict,
                "times": len(verdicts),
                "same": same,
                "by_kind": dict(kinds),
                "verdicts": verdicts,
            }
        )
        return code
    print_text(
        f"{case.allocator}, {case.fault}, seed {case.seed}: '{case.verdict}' as recorded in {same} of "
        f"{len(verdicts)} replays" + ("" if failing else _why_not(case)) + "\n"
    )
    return code
