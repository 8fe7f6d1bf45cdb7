# SPDX-License-Identifier: Apache-2.0
"""Going on with a bench that was interrupted: the same plan, without what it has already.

A run's `config.options` holds its command line, and `config.seed` fixes the plan, so that the
samples that are missing are those that would have been taken.  A fault campaign that had not
ended for an allocator begins anew for it: its cases follow from the seed, too.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from suite.comparability import FACTS
from suite.errors import BadInput, EnvironmentMissing
from suite.results import Environment, Run

if TYPE_CHECKING:
    from suite.commands.bench import BenchOptions

__all__ = ["drop_unfinished", "options_document", "options_of", "require_same_machine"]

NOT_KEPT = {"resume", "json_output"}
"""What the command line that resumes states itself."""


def options_document(options: BenchOptions) -> dict[str, Any]:
    """The command line, for `config.options`."""
    return {key: _plain(value) for key, value in asdict(options).items() if key not in NOT_KEPT}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.resolve())
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def options_of(run: Run, path: Path, *, json_output: bool) -> BenchOptions:
    """The command line that made this run, with its seed."""
    from suite.commands.bench import BenchOptions

    kept = run.config.get("options")
    names = {field.name for field in fields(BenchOptions)} - NOT_KEPT
    if run.command != "bench" or not isinstance(kept, dict) or set(kept) != names:
        raise BadInput(
            f"--resume {path}: it can't be gone on with. Expected a run of `nvcrucible bench` of this "
            "version, whose config.options holds its command line. Begin a new run."
        )
    paths = {key: None if kept[key] is None else Path(kept[key]) for key in ("pm", "out")}
    known = {**kept, **paths, "seed": run.config.get("seed")}
    known["allocator_paths"] = [Path(each) for each in kept["allocator_paths"]]
    return BenchOptions(**known, resume=path, json_output=json_output)


def require_same_machine(run: Run, now: Environment, path: Path) -> None:
    """Half a run from another machine would be worth nothing."""
    changed = [
        f"{name}: {fact(run.environment)} then, {fact(now)} now"
        for name, fact in FACTS.items()
        if fact(run.environment) != fact(now)
    ]
    if changed:
        raise EnvironmentMissing(
            f"--resume {path}: the conditions have changed since ({'; '.join(changed)}). Expected the "
            "machine and the settings that it began with. Begin a new run."
        )


def drop_unfinished(run: Run) -> None:
    """Forgets the verdicts of campaigns that had not ended."""
    run.verdicts[:] = [
        verdict
        for verdict in run.verdicts
        if verdict.stopped_early
        or verdict.planned is None
        or verdict.cases + verdict.errors >= verdict.planned
    ]
