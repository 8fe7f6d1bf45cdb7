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
    threads: Annotated[
        str, typer.Option("-t", "--threads", help="Thread counts.", metavar="1,2")
    ] = "1,2",
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
    json_output: JsonOption = False,
) -> None:
    """Measure allocators on workloads, then kill them and see whether they survive."""
    from suite.commands.bench import BenchOptions
    from suite.commands.bench import bench as run

    options = BenchOptions(
        allocators=allocators,
        workloads=workloads,
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
        json_output=json_output,
    )
    _finish(lambda: run(options), json_output=json_output)


@app.command()
def fault(
    allocators: AllocatorsOption = None,
    faults: Annotated[
        list[str] | None, typer.Option("-f", "--faults", help="Faults: sigkill.", metavar="F,G")
    ] = None,
    cases: Annotated[
        int | None, typer.Option("--cases", help="Cases of each allocator (default: 100).")
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
def report(
    run_folder: Annotated[
        Path | None, typer.Argument(help="A run's folder (default: the newest).", metavar="RUN")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="As Markdown tables.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="As comma-separated values.")] = False,
    html: Annotated[
        Path | None,
        typer.Option("--html", help="As an HTML file (a later version).", metavar="FILE"),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option("--baseline", help="Allocator that ratios refer to.", metavar="A")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Show a run's tables again."""
    from suite.commands import show

    _finish(
        lambda: show.report(
            run_folder,
            markdown=markdown,
            csv=csv,
            html=html,
            baseline=baseline,
            json_output=json_output,
        ),
        json_output=json_output,
    )


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
        str | None, typer.Argument(help="allocators, workloads or faults (default: all).")
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
