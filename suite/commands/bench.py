# SPDX-License-Identifier: Apache-2.0
"""`nvcrucible bench`: throughput and costs of every allocator on every workload, then survival."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from suite.allocators import Allocator, discover
from suite.bench import Bench, BenchSettings
from suite.campaign import Campaign, CampaignSettings
from suite.case_parameters import largest_heap
from suite.cases import CaseStore
from suite.commands.options import (
    positive,
    results_parent,
    seconds,
    seed_or_fresh,
    split_names,
    thread_counts,
)
from suite.commands.running import recorded, verdict_of_run
from suite.errors import BadInput, nearest
from suite.plan import Profile, bench_plan, profile_named, stepping_plan
from suite.progress import make_progress
from suite.project import project_root
from suite.results import Run, RunFolder
from suite.session import Session, open_session
from suite.workloads import Workload, discover_workloads, select_workloads

__all__ = ["BenchOptions", "bench"]

DEFAULT_BASELINE = "pmdk"


@dataclass(frozen=True)
class BenchOptions:
    """The command line, as typed."""

    allocators: Sequence[str] | None
    workloads: Sequence[str] | None
    threads: str
    repeat: int | None
    profile: str
    window: str | None
    survival_cases: int | None
    baseline: str | None
    noise_limit: float
    recovery_timeout: str
    job_timeout: str | None
    runner: str
    pm: Path | None
    seed: int | None
    out: Path | None
    name: str
    allocator_paths: Sequence[Path]
    workers: int | None
    json_output: bool


@dataclass(frozen=True)
class _Wanted:
    """The command line, checked."""

    allocators: list[Allocator]
    named: bool
    workloads: list[Workload]
    threads: list[int]
    repeat: int
    profile: Profile
    seconds: float
    survival_cases: int
    baseline: str
    seed: int
    workers: int
    recovery_timeout_s: float
    job_timeout_s: float | None


def bench(options: BenchOptions) -> int:
    """Runs the bench; returns the exit code."""
    root = project_root()
    wanted = _check(root, options)
    heap = max(workload.heap_bytes for workload in wanted.workloads)
    survival = 2 * wanted.workers * largest_heap() if wanted.survival_cases else 0
    with open_session(
        root,
        wanted.allocators,
        runner_name=options.runner,
        pm=options.pm,
        required=wanted.named,
        space_bytes=max(heap, survival),
        space_for="this bench",
    ) as session:
        parent = results_parent(root, options.out)
        incorrect: list[str] = []
        with recorded("bench", options.name, parent, session, _config(options, wanted)) as record:
            _measure(session, options, wanted, record, incorrect)
    return verdict_of_run(
        record, json_output=options.json_output, baseline=wanted.baseline, incorrect=incorrect
    )


def _check(root: Path, options: BenchOptions) -> _Wanted:
    registry = discover(root, options.allocator_paths)
    names = split_names(options.allocators)
    allocators = registry.select(names)
    workloads = select_workloads(discover_workloads(root), split_names(options.workloads))
    if not workloads:
        raise BadInput(
            f"{root / 'workloads'} has no <name>.yaml. Expected the project's workloads there."
        )
    profile = profile_named(options.profile)
    repeat = profile.repeat if options.repeat is None else options.repeat
    positive(repeat, "--repeat")
    cases = profile.survival_cases if options.survival_cases is None else options.survival_cases
    positive(cases, "--survival-cases", 0)
    positive(options.noise_limit, "--noise-limit", 0)
    workers = options.workers if options.workers is not None else _usable_cpus()
    positive(workers, "-n")
    baseline = options.baseline or DEFAULT_BASELINE
    if options.baseline and options.baseline not in registry.names():
        raise BadInput(
            f"--baseline {baseline}: there is no allocator called '{baseline}'"
            f"{nearest(baseline, registry.names())} Known here: {', '.join(registry.names())}."
        )
    return _Wanted(
        allocators=allocators,
        named=names is not None,
        workloads=workloads,
        threads=thread_counts(options.threads),
        repeat=repeat,
        profile=profile,
        seconds=profile.seconds if options.window is None else seconds(options.window, "--seconds"),
        survival_cases=cases,
        baseline=baseline,
        seed=seed_or_fresh(options.seed),
        workers=workers,
        recovery_timeout_s=seconds(options.recovery_timeout, "--recovery-timeout"),
        job_timeout_s=None
        if options.job_timeout is None
        else seconds(options.job_timeout, "--job-timeout"),
    )


def _usable_cpus() -> int:
    return len(os.sched_getaffinity(0))


def _config(options: BenchOptions, wanted: _Wanted) -> dict[str, object]:
    return {
        "allocators": [allocator.name for allocator in wanted.allocators],
        "allocator_paths": [str(path) for path in options.allocator_paths],
        "workloads": {
            workload.name: {
                "heap_bytes": workload.heap_bytes,
                "parameters": workload.parameter_values(options.profile),
            }
            for workload in wanted.workloads
        },
        "threads": wanted.threads,
        "repeat": wanted.repeat,
        "profile": options.profile,
        "warmup_s": wanted.profile.warmup_s,
        "seconds": wanted.seconds,
        "latency_s": wanted.profile.latency_s,
        "steps": wanted.profile.steps,
        "survival_cases": wanted.survival_cases,
        "recovery_timeout_s": wanted.recovery_timeout_s,
        "baseline": wanted.baseline,
        "noise_limit": options.noise_limit,
        "workers": wanted.workers,
        "seed": wanted.seed,
    }


def _measure(
    session: Session,
    options: BenchOptions,
    wanted: _Wanted,
    record: RunFolder,
    incorrect: list[str],
) -> None:
    """Samples, then the campaign; what the driver finds wrong on the way goes to `incorrect`."""
    run: Run = record.run

    def save() -> None:
        record.save(soon=True)

    settings = BenchSettings(
        profile=options.profile,
        warmup_s=wanted.profile.warmup_s,
        seconds=wanted.seconds,
        latency_s=wanted.profile.latency_s,
        noise_limit=options.noise_limit,
        cpus=tuple(run.environment.usable_cpus),
        steps=wanted.profile.steps,
        stated_timeout_s=wanted.job_timeout_s,
    )
    taker = Bench(session.driver, settings, run.samples, incorrect, save)
    taker.calibrate_noise()
    plan = bench_plan(
        session.allocators, wanted.workloads, wanted.threads, wanted.repeat, wanted.seed
    )
    with make_progress(json_output=options.json_output) as progress:
        taker.run(plan, progress)
        uncounted = stepping_plan(plan, run.samples)
        refusal = taker.count_instructions(uncounted, progress)
        if refusal is not None:
            run.environment.notes.append(refusal)
            progress.note(refusal)
        judged = [allocator for allocator in session.allocators if allocator.persistent]
        if wanted.survival_cases and judged:
            campaign = CampaignSettings(
                seed=wanted.seed,
                workers=wanted.workers,
                cases=wanted.survival_cases,
                budget_s=None,
                recovery_timeout_s=wanted.recovery_timeout_s,
                max_failures=10,
            )
            store = CaseStore(record.path, wanted.recovery_timeout_s)
            Campaign(session.driver, campaign, store, run.verdicts, save).run(
                judged, session.min_heaps, progress
            )
