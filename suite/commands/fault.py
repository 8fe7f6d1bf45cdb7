# SPDX-License-Identifier: Apache-2.0
"""`nvcrucible fault`: kills allocators at work, recovers them, holds them to the contract."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from suite.allocators import discover
from suite.campaign import Campaign, CampaignSettings, require_persistent
from suite.case_parameters import FAULT, largest_heap
from suite.cases import CaseStore
from suite.commands.options import (
    positive,
    results_parent,
    seconds,
    seed_or_fresh,
    split_names,
)
from suite.commands.running import recorded, verdict_of_run
from suite.errors import BadInput, nearest
from suite.powerfail import POWER_FAULTS, PowerCampaign, PowerSettings, largest_power_heap
from suite.progress import make_progress
from suite.project import project_root
from suite.session import open_session

__all__ = ["FAULTS", "FaultOptions", "fault"]

FAULTS = {
    FAULT: "the process dies at a random instant, or at the Nth persistence event",
    **POWER_FAULTS,
}
DEFAULT_CASES = 100
DEFAULT_POWER_CASES = 10
"""A power-failure case tries thousands of states."""
POWER = "power"


@dataclass(frozen=True)
class FaultOptions:
    """The command line, as typed."""

    allocators: Sequence[str] | None
    faults: Sequence[str] | None
    cases: int | None
    budget: str | None
    workers: int | None
    max_failures: int
    recovery_timeout: str
    runner: str
    pm: Path | None
    seed: int | None
    out: Path | None
    name: str
    allocator_paths: Sequence[Path]
    json_output: bool


def fault(options: FaultOptions) -> int:
    """Runs the campaign; returns the exit code."""
    root = project_root()
    names = split_names(options.allocators)
    selected = discover(root, options.allocator_paths).select(names)
    allocators = require_persistent(selected, named=names is not None)
    faults = _faults(options)
    settings = _settings(options)
    with open_session(
        root,
        allocators,
        runner_name=options.runner,
        pm=options.pm,
        required=names is not None,
        space_bytes=settings.workers * max(2 * largest_heap(), 3 * largest_power_heap()),
        space_for=f"a campaign of {settings.workers} workers",
    ) as session:
        config = {
            "allocators": [allocator.name for allocator in allocators],
            "allocator_paths": [str(path) for path in options.allocator_paths],
            "faults": faults,
            **vars(settings),
        }
        parent = results_parent(root, options.out)
        with recorded("fault", options.name, parent, session, config) as record:
            store = CaseStore(record.path, settings.recovery_timeout_s)

            def save() -> None:
                record.save(soon=True)

            with make_progress(json_output=options.json_output) as progress:
                shares = _shares(settings, faults)
                if FAULT in shares:
                    Campaign(session.driver, shares[FAULT], store, record.run.verdicts, save).run(
                        session.allocators, session.min_heaps, progress
                    )
                power = _power_settings(options, settings, faults, shares)
                if power is not None:
                    PowerCampaign(session.driver, power, store, record.run.verdicts, save).run(
                        session.allocators, session.min_heaps, progress
                    )
    return verdict_of_run(record, json_output=options.json_output, every_case_counts=True)


def _faults(options: FaultOptions) -> list[str]:
    names = split_names(options.faults) or [FAULT]
    for name in names:
        if name not in FAULTS:
            raise BadInput(
                f"There is no fault called '{name}' in this version{nearest(name, FAULTS)} Known: "
                f"{', '.join(FAULTS)}."
            )
    return list(dict.fromkeys(names))


def _shares(settings: CampaignSettings, faults: Sequence[str]) -> dict[str, CampaignSettings]:
    """A budget is halved between kills and power failures; a number of cases is each one's own."""
    power = any(name in POWER_FAULTS for name in faults)
    if FAULT not in faults:
        return {POWER: settings}
    if not power:
        return {FAULT: settings}
    half = settings
    if settings.budget_s is not None:
        half = replace(settings, budget_s=settings.budget_s / 2)
    return {FAULT: half, POWER: half}


def _power_settings(
    options: FaultOptions,
    settings: CampaignSettings,
    faults: Sequence[str],
    shares: dict[str, CampaignSettings],
) -> PowerSettings | None:
    share = shares.get(POWER)
    if share is None:
        return None
    stated = options.cases is not None or options.budget is not None
    return PowerSettings(
        seed=settings.seed,
        workers=settings.workers,
        cases=share.cases if stated else DEFAULT_POWER_CASES,
        budget_s=share.budget_s,
        faults=tuple(name for name in POWER_FAULTS if name in faults),
        max_failures=settings.max_failures,
        recovery_timeout_s=settings.recovery_timeout_s,
    )


def _settings(options: FaultOptions) -> CampaignSettings:
    if options.cases is not None and options.budget is not None:
        raise BadInput(
            "--cases and --budget were both stated. Expected one of them: how many cases of each "
            "allocator, or for how long altogether."
        )
    if options.cases is not None:
        positive(options.cases, "--cases")
    workers = len(os.sched_getaffinity(0)) if options.workers is None else options.workers
    positive(workers, "-n")
    positive(options.max_failures, "--max-failures", 0)
    budget = None if options.budget is None else seconds(options.budget, "--budget")
    cases = options.cases if options.cases is not None or budget is not None else DEFAULT_CASES
    return CampaignSettings(
        seed=seed_or_fresh(options.seed),
        workers=workers,
        cases=cases,
        budget_s=budget,
        recovery_timeout_s=seconds(options.recovery_timeout, "--recovery-timeout"),
        max_failures=options.max_failures,
    )
