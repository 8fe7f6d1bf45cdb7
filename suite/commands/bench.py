# SPDX-License-Identifier: Apache-2.0
"""`nvcrucible bench`: throughput and costs of every allocator on every workload, then survival."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from suite.allocators import Allocator, Registry, discover
from suite.bench import Bench, BenchSettings
from suite.budget import Timetable, forecast
from suite.build import Build, find_build
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
from suite.commands.running import recorded, reopened, verdict_of_run
from suite.device_model import DeviceModel, find_model
from suite.errors import BadInput, CrucibleError, nearest
from suite.plan import Profile, bench_plan, profile_named, stepping_plan
from suite.progress import ProgressView, make_progress
from suite.project import project_root
from suite.recording import ensure_trace
from suite.results import Run, RunFolder, load_run
from suite.resumption import (
    drop_unfinished,
    options_document,
    options_of,
    require_same_machine,
)
from suite.session import Session, open_session
from suite.standalone import (
    Standalone,
    discover_standalone,
    select_subjects,
    standalone_plan,
)
from suite.standalone_bench import StandaloneBench
from suite.variants import DEFAULT_THREADS, Variant, parse_overrides, variants_of
from suite.workloads import Workload, discover_workloads, select_workloads

__all__ = ["BenchOptions", "bench"]

DEFAULT_BASELINE = "pmdk"


@dataclass(frozen=True)
class BenchOptions:
    """The command line, as typed."""

    allocators: Sequence[str] | None
    workloads: Sequence[str] | None
    parameters: Sequence[str]
    threads: str | None
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
    budget: str | None
    resume: Path | None
    pm_model: str
    json_output: bool


@dataclass(frozen=True)
class _Wanted:
    """The command line, checked."""

    allocators: list[Allocator]
    named: bool
    workloads: list[Variant]
    workloads_named: bool
    standalone: list[tuple[Standalone, list[str]]]
    """With their subjects."""
    stated_threads: list[int] | None
    repeat: int
    profile: Profile
    seconds: float
    survival_cases: int
    baseline: str
    seed: int
    workers: int
    recovery_timeout_s: float
    job_timeout_s: float | None
    budget_s: float | None
    device: DeviceModel | None


def bench(options: BenchOptions) -> int:
    """Runs the bench, or goes on with one; returns the exit code."""
    root = project_root()
    began: Run | None = None
    if options.resume is not None:
        began = load_run(options.resume)
        options = options_of(began, options.resume, json_output=options.json_output)
    wanted = _check(root, options)
    heaps = [workload.heap_bytes for workload in wanted.workloads]
    heap = max(heaps + [workload.heap_bytes for workload, _ in wanted.standalone])
    survival = 2 * wanted.workers * largest_heap() if wanted.survival_cases else 0
    with open_session(
        root,
        wanted.allocators,
        runner_name=options.runner,
        pm=options.pm,
        required=wanted.named,
        space_bytes=max(heap, survival),
        space_for="this bench",
        calibrate_threads=max([2, *(wanted.stated_threads or [])]),
    ) as session:
        incorrect: list[str] = []
        if began is not None and options.resume is not None:
            require_same_machine(began, session.environment, options.resume)
            drop_unfinished(began)
            recording = reopened(options.resume, began, session)
        else:
            parent = results_parent(root, options.out)
            recording = recorded("bench", options.name, parent, session, _config(options, wanted))
        with recording as record:
            _measure(session, options, wanted, record, incorrect)
    return verdict_of_run(
        record, json_output=options.json_output, baseline=wanted.baseline, incorrect=incorrect
    )


def _check(root: Path, options: BenchOptions) -> _Wanted:
    registry = discover(root, options.allocator_paths)
    names = split_names(options.allocators)
    workloads, standalone = _workloads(root, split_names(options.workloads), names)
    subjects = {name for workload, _ in standalone for name in workload.subjects}
    allocators = _allocators(registry, names, subjects, used=bool(workloads))
    if not workloads and not standalone:
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
    if options.baseline and options.baseline not in {*registry.names(), *subjects}:
        raise BadInput(
            f"--baseline {baseline}: there is no allocator called '{baseline}'"
            f"{nearest(baseline, registry.names())} Known here: {', '.join(registry.names())}."
        )
    return _Wanted(
        allocators=allocators,
        named=names is not None,
        workloads=_variants(options, workloads),
        workloads_named=split_names(options.workloads) is not None,
        standalone=standalone,
        stated_threads=None if options.threads is None else thread_counts(options.threads),
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
        budget_s=_budget(options, profile),
        device=find_model(options.pm_model),
    )


def _budget(options: BenchOptions, profile: Profile) -> float | None:
    """A stated number of repeats is kept, however long it takes."""
    if options.budget is not None:
        return seconds(options.budget, "--budget")
    return profile.budget_s if options.repeat is None else None


def _workloads(
    root: Path, wanted: list[str] | None, names: list[str] | None
) -> tuple[list[Workload], list[tuple[Standalone, list[str]]]]:
    """The workloads of adapters, and the standalone ones with their subjects.  The latter
    compare something else, and are run only when they are named."""
    known, own = discover_workloads(root), discover_standalone(root)
    if wanted is None:
        return select_workloads(known, None), []
    unknown = [name for name in wanted if name not in known and name not in own]
    if unknown:
        raise BadInput(
            f"There is no workload called '{unknown[0]}'{nearest(unknown[0], [*known, *own])} Known "
            f"here: {', '.join(sorted([*known, *own]))}."
        )
    adapters = [name for name in dict.fromkeys(wanted) if name in known]
    return (
        select_workloads(known, adapters) if adapters else [],
        [
            (own[name], select_subjects(own[name], names))
            for name in dict.fromkeys(wanted)
            if name in own
        ],
    )


def _allocators(
    registry: Registry, names: list[str] | None, subjects: set[str], *, used: bool
) -> list[Allocator]:
    """Those named; a name may mean a subject of a standalone workload instead.  None if no
    workload drives an adapter."""
    if names is None:
        return registry.select(None) if used else []
    known = registry.names()
    chosen = registry.select(
        [name for name in names if name in known or name not in subjects] or None
    )
    if used and not any(name in known for name in names):
        raise BadInput(
            f"-a {','.join(names)}: none of them is an allocator, and a workload was named that "
            f"needs one. Known here: {', '.join(known)}."
        )
    return chosen if used else []


def _variants(options: BenchOptions, workloads: Sequence[Workload]) -> list[Variant]:
    """The rows to measure.  What the command line states goes before a workload's budget."""
    found = variants_of(
        workloads,
        options.profile,
        parse_overrides(options.parameters),
        named=split_names(options.workloads) is not None,
    )
    stated: dict[str, None] = {}
    if options.repeat is not None:
        stated["repeat"] = None
    if options.window is not None:
        stated["seconds"] = None
    return [replace(variant, budget=variant.budget.model_copy(update=stated)) for variant in found]


def _usable_cpus() -> int:
    return len(os.sched_getaffinity(0))


def _config(options: BenchOptions, wanted: _Wanted) -> dict[str, object]:
    return {
        "allocators": [allocator.name for allocator in wanted.allocators],
        "allocator_paths": [str(path) for path in options.allocator_paths],
        "workloads": {workload.name: workload.document() for workload in wanted.workloads}
        | {
            workload.name: workload.document(options.profile)
            | {"subjects": {name: workload.subjects[name] for name in subjects}}
            for workload, subjects in wanted.standalone
        },
        "threads": wanted.stated_threads or list(DEFAULT_THREADS),
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
        "budget_s": wanted.budget_s,
        "pm_model": None if wanted.device is None else wanted.device.document(),
        "options": options_document(options),
    }


def _too_slow(allocator: Allocator, workload: Variant) -> bool:
    return allocator.file.slow and workload.budget.skip_slow


def _slow_left_out(session: Session, workloads: Sequence[Variant]) -> str | None:
    families = dict.fromkeys(each.family for each in workloads if each.budget.skip_slow)
    names = [each.name for each in session.allocators if each.file.slow]
    if not families or not names:
        return None
    return (
        f"{', '.join(names)} would take too long on {', '.join(families)} and is left out there; "
        "-w with a workload's name runs it all the same"
    )


def _left_out(session: Session, workloads: Sequence[Variant]) -> list[str]:
    """Which allocators can't run which workloads; that one which is not
    crash-safe can't be recovered goes without saying."""
    found: dict[tuple[str, str], list[str]] = {}
    for workload in {each.family: each for each in workloads}.values():
        for allocator in session.allocators:
            need = session.lacking(allocator, workload)
            if need is not None and need not in ("persistent", "crash-safe"):
                found.setdefault((workload.family, need), []).append(allocator.name)
    return [
        f"{family} is not for {', '.join(names)}, whose adapters have not the capability '{need}'"
        for (family, need), names in found.items()
    ]


def _not_modelled(session: Session, wanted: _Wanted, device: DeviceModel) -> str | None:
    """Whom and what the device model can't slow, and the run therefore leaves out."""
    names = sorted(
        allocator.name
        for allocator in session.allocators
        if wanted.workloads
        and not any(session.modelled(allocator, workload) for workload in wanted.workloads)
    )
    names += [workload.name for workload in wanted.workloads if workload.is_trial]
    names += [f"{workload.name} (standalone, run without it)" for workload, _ in wanted.standalone]
    if not names:
        return None
    return f"device model {device.name}: nobody can tell when these would wait: {', '.join(names)}"


def _traces(session: Session, options: BenchOptions, wanted: _Wanted, run: Run) -> dict[str, Path]:
    """The traces that workloads read, by name; they are recorded now where there are none yet.  A
    workload whose trace can't be had is left out, unless it was named."""
    found: dict[str, Path] = {}
    missing: dict[str, str] = {}
    build: Build | None = None
    for workload in wanted.workloads:
        name = workload.trace
        if name is None or name in found or name in missing:
            continue
        recording = workload.workload.recordings.get(name)
        if recording is None:
            found[name] = Path(name).absolute()
            continue
        try:
            if build is None:
                own = session.driver.installation.build
                build = find_build(project_root()) if own.in_image else own
            found[name] = ensure_trace(project_root(), build, name, recording)
        except CrucibleError as error:
            if split_names(options.workloads) is not None:
                raise
            missing[name] = str(error)
    for name, reason in missing.items():
        _note(run, f"trace '{name}' left out: {reason}")
    wanted.workloads[:] = [each for each in wanted.workloads if each.trace not in missing]
    return found


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

    traces = _traces(session, options, wanted, run)
    settings = BenchSettings(
        traces=traces,
        profile=options.profile,
        warmup_s=wanted.profile.warmup_s,
        seconds=wanted.seconds,
        latency_s=wanted.profile.latency_s,
        noise_limit=options.noise_limit,
        cpus=tuple(run.environment.usable_cpus),
        steps=wanted.profile.steps,
        stated_timeout_s=wanted.job_timeout_s,
        device=None if wanted.device is None else wanted.device.argument,
    )
    taker = Bench(session.driver, settings, run.samples, incorrect, save)
    plan = bench_plan(
        session.allocators,
        wanted.workloads,
        wanted.stated_threads,
        wanted.repeat,
        wanted.seed,
        lambda allocator, workload: (
            session.lacking(allocator, workload) is None
            and (wanted.workloads_named or not _too_slow(allocator, workload))
            and (wanted.device is None or session.modelled(allocator, workload))
        ),
        observe_all=wanted.profile.observe_all,
    )
    for note in _left_out(session, wanted.workloads):
        _note(run, note)
    if not wanted.workloads_named:
        _note(run, _slow_left_out(session, wanted.workloads))
    if wanted.device is not None:
        _note(run, _not_modelled(session, wanted, wanted.device))
    own_plan = standalone_plan(
        wanted.standalone,
        wanted.stated_threads or DEFAULT_THREADS,
        wanted.repeat,
        wanted.seed,
        options.profile,
    )
    known = {(s.allocator, s.workload, s.case, s.threads, s.repeat) for s in run.samples}
    own_plan = [
        cell
        for cell in own_plan
        if (cell.subject, cell.workload.name, cell.case_name, cell.threads, cell.repeat)
        not in known
    ]
    with make_progress(json_output=options.json_output) as progress:
        if own_plan:
            StandaloneBench(session.driver, settings, run, incorrect, save).run(own_plan, progress)
        judged = _judged(session, wanted, run)
        outlook = forecast(
            plan, wanted.profile, wanted.seconds, len(judged), wanted.survival_cases, wanted.workers,
            stepped=not run.environment.instructions_counted,
        )  # fmt: skip
        timetable = Timetable(wanted.budget_s, outlook.survival_s, outlook.stepping_s)
        if plan:
            progress.note(outlook.line(wanted.budget_s))
            taker.calibrate_noise()
            _note(run, taker.run(plan, progress, timetable), progress)
        uncounted = stepping_plan(plan, run.samples)
        _note(run, taker.count_instructions(uncounted, progress, timetable), progress)
        if judged:
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


def _judged(session: Session, wanted: _Wanted, run: Run) -> list[Allocator]:
    """The allocators that the campaign has still to judge."""
    known = {verdict.allocator for verdict in run.verdicts}
    return [
        allocator
        for allocator in session.allocators
        if wanted.survival_cases and allocator.judged and allocator.name not in known
    ]


def _note(run: Run, line: str | None, progress: ProgressView | None = None) -> None:
    """Keeps it with the results, once; and tells it."""
    if line is None or line in run.environment.notes:
        return
    run.environment.notes.append(line)
    if progress is not None:
        progress.note(line)
