# SPDX-License-Identifier: Apache-2.0
"""The command line: options and their help; what they do is in `suite.commands`.

Modules that take long to import (statistics) are imported by the command that
needs them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from suite import __version__
from suite.errors import EXIT_INTERRUPTED, CrucibleError
from suite.output import print_json_error

__all__ = ["app", "main"]

app = typer.Typer(
    name="nvcrucible",
    help="Is an allocator for non-volatile memory fast, and does it survive?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

AllocatorsOption = Annotated[
    list[str] | None,
    typer.Option(
        "-a", "--allocators", help="Allocators, separated by commas, or all.", metavar="A,B"
    ),
]
AllocatorPathOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--allocator-path",
        help="Folder with an allocator.yaml, or a folder of such folders. Repeatable.",
        metavar="DIR",
    ),
]
RunnerOption = Annotated[
    str, typer.Option("--runner", help="Where jobs run: auto, docker or local.", metavar="NAME")
]
PmOption = Annotated[
    Path | None,
    typer.Option(
        "--pm",
        help="NVM directory (default: a DAX mount at /mnt/pmem*, else /dev/shm).",
        metavar="DIR",
    ),
]
SeedOption = Annotated[
    int | None, typer.Option("--seed", help="Fixes everything that is random.", metavar="S")
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", help="Folder for the run's folder (default: results/).", metavar="DIR"),
]
NameOption = Annotated[
    str, typer.Option("--name", help="Name of the run's folder.", metavar="NAME")
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="One JSON document on standard output, nothing else.")
]
WorkersOption = Annotated[
    int | None, typer.Option("-n", "--workers", help="Fault cases at a time (default: the CPUs).")
]
RecoveryTimeoutOption = Annotated[
    str,
    typer.Option(
        "--recovery-timeout", help="A recovery that takes longer is a hang.", metavar="TIME"
    ),
]
DEFAULT_RECOVERY_TIMEOUT = "20s"


def _finish(action: Callable[[], int], *, json_output: bool = False) -> None:
    """Runs a command; turns its outcome into an exit code and one paragraph."""
    try:
        code = action()
    except CrucibleError as error:
        if json_output:
            print_json_error(error)
        typer.echo(f"nvcrucible: {error}", err=True)
        code = error.exit_code
    except KeyboardInterrupt:
        typer.echo("nvcrucible: Interrupted; no job is left running.", err=True)
        code = EXIT_INTERRUPTED
    raise typer.Exit(code)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"nvcrucible {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _version_wanted: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Is an allocator for non-volatile memory fast, and does it survive?"""


@app.command()
def bench(
    allocators: AllocatorsOption = None,
    workloads: Annotated[
        list[str] | None,
        typer.Option(
            "-w", "--workloads", help="Workloads, separated by commas, or all.", metavar="W,X"
        ),
    ] = None,
    parameters: Annotated[
        list[str] | None,
        typer.Option(
            "-p",
            "--param",
            help="A workload's parameter: a value, several, or a range such as 64..4096 x2. "
            "Repeatable.",
            metavar="[W.]KEY=VALUES",
        ),
    ] = None,
    threads: Annotated[
        str | None,
        typer.Option(
            "-t", "--threads", help="Thread counts (default: 1,2 or the workload's).", metavar="1,2"
        ),
    ] = None,
    repeat: Annotated[int | None, typer.Option("--repeat", help="Samples of each kind.")] = None,
    profile: Annotated[
        str, typer.Option("--profile", help="How much time to take: quick, default or full.")
    ] = "default",
    window: Annotated[
        str | None,
        typer.Option(
            "--seconds", help="Time window of a sample (default: the profile's).", metavar="TIME"
        ),
    ] = None,
    survival_cases: Annotated[
        int | None,
        typer.Option(
            "--survival-cases", help="SIGKILL cases of each persistent allocator; 0: none."
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline", help="Allocator that ratios refer to (default: pmdk).", metavar="A"
        ),
    ] = None,
    noise_limit: Annotated[
        float,
        typer.Option("--noise-limit", help="Share of the CPUs that others may take; more: repeat."),
    ] = 0.1,
    recovery_timeout: RecoveryTimeoutOption = DEFAULT_RECOVERY_TIMEOUT,
    job_timeout: Annotated[
        str | None,
        typer.Option(
            "--job-timeout",
            help="A sample that takes longer has hung (default: 30s and more).",
            metavar="TIME",
        ),
    ] = None,
    runner: RunnerOption = "auto",
    pm: PmOption = None,
    seed: SeedOption = None,
    out: OutOption = None,
    name: NameOption = "bench",
    allocator_path: AllocatorPathOption = None,
    workers: WorkersOption = None,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            help="Time for all: fewer rounds, to end by then (default: the profile's, none with "
            "--repeat).",
            metavar="TIME",
        ),
    ] = None,
    pm_model: Annotated[
        str,
        typer.Option(
            "--pm-model",
            help="Emulate a device: none, optane, nvdimm-n or cxl. Off by default.",
            metavar="NAME",
        ),
    ] = "none",
    resume: Annotated[
        Path | None,
        typer.Option(
            "--resume",
            help="Go on with this run, with its own options; all others but --json are ignored.",
            metavar="RUN",
        ),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Measure allocators on workloads, then kill them and see whether they survive."""
    from suite.commands.bench import BenchOptions
    from suite.commands.bench import bench as run

    options = BenchOptions(
        allocators=allocators,
        workloads=workloads,
        parameters=parameters or [],
        threads=threads,
        repeat=repeat,
        profile=profile,
        window=window,
        survival_cases=survival_cases,
        baseline=baseline,
        noise_limit=noise_limit,
        recovery_timeout=recovery_timeout,
        job_timeout=job_timeout,
        runner=runner,
        pm=pm,
        seed=seed,
        out=out,
        name=name,
        allocator_paths=allocator_path or [],
        workers=workers,
        budget=budget,
        resume=resume,
        pm_model=pm_model,
        json_output=json_output,
    )
    _finish(lambda: run(options), json_output=json_output)


@app.command()
def fault(
    allocators: AllocatorsOption = None,
    faults: Annotated[
        list[str] | None,
        typer.Option(
            "-f", "--faults", help="Faults: sigkill, powerfail, recovery-crash.", metavar="F,G"
        ),
    ] = None,
    cases: Annotated[
        int | None,
        typer.Option("--cases", help="Cases of each allocator (default: 100; power failures: 10)."),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option("--budget", help="Instead of --cases: time for all together.", metavar="TIME"),
    ] = None,
    workers: WorkersOption = None,
    max_failures: Annotated[
        int,
        typer.Option("--max-failures", help="Give up on an allocator after so many; 0: never."),
    ] = 10,
    recovery_timeout: RecoveryTimeoutOption = DEFAULT_RECOVERY_TIMEOUT,
    runner: RunnerOption = "auto",
    pm: PmOption = None,
    seed: SeedOption = None,
    out: OutOption = None,
    name: NameOption = "fault",
    allocator_path: AllocatorPathOption = None,
    json_output: JsonOption = False,
) -> None:
    """Kill allocators at work, recover them, and check that nothing is lost."""
    from suite.commands.fault import FaultOptions
    from suite.commands.fault import fault as run

    options = FaultOptions(
        allocators=allocators,
        faults=faults,
        cases=cases,
        budget=budget,
        workers=workers,
        max_failures=max_failures,
        recovery_timeout=recovery_timeout,
        runner=runner,
        pm=pm,
        seed=seed,
        out=out,
        name=name,
        allocator_paths=allocator_path or [],
        json_output=json_output,
    )
    _finish(lambda: run(options), json_output=json_output)


@app.command()
def replay(
    case: Annotated[Path, typer.Argument(help="Folder of a failing case.", metavar="CASE")],
    times: Annotated[int, typer.Option("--times", help="How often.")] = 1,
    runner: RunnerOption = "auto",
    pm: PmOption = None,
    allocator_path: AllocatorPathOption = None,
    json_output: JsonOption = False,
) -> None:
    """Recover a failing case again: the same verdict every time."""
    from suite.commands.replay import ReplayOptions
    from suite.commands.replay import replay as run

    options = ReplayOptions(case, times, runner, pm, allocator_path or [], json_output)
    _finish(lambda: run(options), json_output=json_output)


@app.command()
def trace(
    file: Annotated[
        Path, typer.Argument(help="A trace, or the folder of a power-failure case.", metavar="FILE")
    ],
    json_output: JsonOption = False,
) -> None:
    """Show what a recorded history did: operations, stores, flushes, fences, source lines."""
    from suite.commands.trace import trace as run

    _finish(lambda: run(file, json_output=json_output), json_output=json_output)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def record(
    program: Annotated[
        list[str] | None,
        typer.Argument(help="Program and its arguments, after --.", metavar="PROGRAM..."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="The trace (default: PROGRAM.nvtrace).", metavar="FILE"),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Record what a program allocates, for the workload `replay`."""
    from suite.commands.record import RecordOptions, record_program

    options = RecordOptions(program or [], out, json_output)
    _finish(lambda: record_program(options), json_output=json_output)


@app.command()
def report(
    run_folder: Annotated[
        Path | None, typer.Argument(help="A run's folder (default: the newest).", metavar="RUN")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="As Markdown tables.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="As comma-separated values.")] = False,
    html: Annotated[
        Path | None,
        typer.Option("--html", help="Into one HTML file that needs nothing else.", metavar="FILE"),
    ] = None,
    readme: Annotated[
        Path | None,
        typer.Option(
            "--readme", help="Into this file, between the markers of its table.", metavar="FILE"
        ),
    ] = None,
    details: Annotated[
        bool, typer.Option("--details", help="Every row, however many there are.")
    ] = False,
    baseline: Annotated[
        str | None, typer.Option("--baseline", help="Allocator that ratios refer to.", metavar="A")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Show a run's tables again."""
    from suite.commands.report import ReportOptions
    from suite.commands.report import report as run

    options = ReportOptions(run_folder, markdown, csv, html, readme, details, baseline, json_output)
    _finish(lambda: run(options), json_output=json_output)


@app.command()
def history(
    metric: Annotated[
        str, typer.Argument(help="Its key in run.json, such as ops_per_s.", metavar="METRIC")
    ],
    allocators: AllocatorsOption = None,
    workloads: Annotated[
        list[str] | None,
        typer.Option("-w", "--workloads", help="Workloads, separated by commas.", metavar="W,X"),
    ] = None,
    threads: Annotated[
        str | None, typer.Option("-t", "--threads", help="Thread counts.", metavar="1,2")
    ] = None,
    last: Annotated[int, typer.Option("--last", help="The newest so many runs.")] = 20,
    results: Annotated[
        Path | None,
        typer.Option("--results", help="Folder of the runs (default: results/).", metavar="DIR"),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="As a Markdown table.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="As comma-separated values.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Show a metric over past runs."""
    from suite.commands.report import HistoryOptions
    from suite.commands.report import history as run

    options = HistoryOptions(
        metric, allocators, workloads, threads, last, results, markdown, csv, json_output
    )
    _finish(lambda: run(options), json_output=json_output)


@app.command()
def compare(
    base: Annotated[
        Path, typer.Argument(help="Folder of the run to compare with.", metavar="BASE")
    ],
    new: Annotated[Path, typer.Argument(help="Folder of the run to judge.", metavar="NEW")],
    fail_on: Annotated[
        str,
        typer.Option("--fail-on", help="Worse by more than this is a regression.", metavar="SHARE"),
    ] = "5%",
    allocators: AllocatorsOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Compare runs of different environments all the same.")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Show also the figures that are ok.")
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="As Markdown tables.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Say whether a run is worse than another one: regressed, ok or inconclusive; exit code 1 if so."""
    from suite.commands.compare import CompareOptions, compare_runs

    options = CompareOptions(
        base, new, fail_on, allocators, force, everything, markdown, json_output
    )
    _finish(lambda: compare_runs(options))


@app.command()
def inspect(
    heap: Annotated[Path, typer.Argument(help="A heap file of nvmalloc.", metavar="HEAP")],
    json_output: JsonOption = False,
) -> None:
    """Show a heap file's health and map, read-only."""
    from suite.commands import show

    _finish(lambda: show.inspect(heap, json_output=json_output), json_output=json_output)


@app.command()
def doctor(pm: PmOption = None, json_output: JsonOption = False) -> None:
    """Examine what this machine offers, and what to change for better numbers."""
    from suite.commands import show

    _finish(lambda: show.doctor(pm, json_output=json_output), json_output=json_output)


@app.command("list")
def list_(
    what: Annotated[
        str | None, typer.Argument(help="allocators, workloads, faults or metrics (default: all).")
    ] = None,
    allocator_path: AllocatorPathOption = None,
    json_output: JsonOption = False,
) -> None:
    """List what can be named on the command line."""
    from suite.commands import show

    _finish(
        lambda: show.listing(what, allocator_path or [], json_output=json_output),
        json_output=json_output,
    )


@app.command()
def schema(
    json_output: JsonOption = True,
) -> None:
    """Print the JSON schema of run.json."""
    from suite.commands import show

    _finish(show.schema, json_output=json_output)


def main() -> None:
    """The console script."""
    app(prog_name="nvcrucible")


if __name__ == "__main__":
    main()
