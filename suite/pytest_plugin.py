# SPDX-License-Identifier: Apache-2.0
"""A pytest plugin: the fixture `crucible` holds somebody's allocator to the recovery contract.

    @pytest.mark.crucible(shards=8)
    def test_survives(crucible):
        crucible.survives(adapter="libmine.so", faults=["sigkill", "powerfail"], cases=200)

A test that asks for the fixture becomes as many tests as it has shards; each runs its share of
the cases under a seed of its own, so `pytest -n auto` spreads a campaign over processes and a
failing shard can be run again alone.  docs/pytest-plugin.md is the guide.

A shard is one `nvcrucible fault` in a process of its own: signals, job groups and scratch
folders are that command's business, and this module imports nothing that a test session that
does not ask for the fixture would have to pay for.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest

__all__ = ["Crucible", "Shard", "Survival"]

DEFAULT_FAULTS = ("sigkill", "powerfail")
LENS_FAULTS = frozenset({"powerfail", "recovery-crash"})
EXIT_OK = 0
EXIT_INCORRECT = 4
TSAN_MARK = b"__tsan_"
"""Names that a module compiled for the lens leaves undefined."""
TSAN_LIBRARY = b"libtsan.so"
FAILURES_SHOWN = 3
SITES_SHOWN = 8
END_PATIENCE_S = 60


@dataclass(frozen=True)
class _Setting:
    """A line of the ini file, `crucible_<name>`, and an option, `--crucible-<name>`."""

    name: str
    help: str
    default: str


SETTINGS = (
    _Setting("shards", "tests that a campaign is spread over, where its marker says nothing", "1"),
    _Setting("budget", "time of one shard where the test states no cases, such as 30s", "10s"),
    _Setting("seed", "fixes everything that is random; another one tries other cases", "1"),
    _Setting("build", "finished build of nvcrucible (default: NVCRUCIBLE_BUILD, its build/)", ""),
    _Setting("pm", "NVM directory (default: a DAX mount, else /dev/shm)", ""),
    _Setting("results", "folder of failing cases, relative to the root", "crucible-results"),
    _Setting("runner", "where jobs run: local, docker or auto", "local"),
)


@dataclass(frozen=True)
class Shard:
    """One of the tests that share a campaign."""

    number: int
    """From 1."""
    of: int

    def __str__(self) -> str:
        return f"shard-{self.number}-of-{self.of}"

    def share(self, cases: int) -> int:
        """Its part of the cases; the parts of all shards add up to them."""
        return cases // self.of + (1 if self.number <= cases % self.of else 0)


@dataclass(frozen=True)
class Survival:
    """What a shard that found no failure went through."""

    cases: int
    """Judged, of all faults."""
    states: int
    """Crash states that were recovered and judged."""
    document: Mapping[str, Any] = field(repr=False)
    """The run's run.json."""


# --- Hooks --------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("crucible", "allocators for non-volatile memory (nvcrucible)")
    for setting in SETTINGS:
        text = f"{setting.help} (default: {setting.default})" if setting.default else setting.help
        group.addoption(f"--crucible-{setting.name}", metavar=setting.name.upper(), help=text)
        parser.addini(f"crucible_{setting.name}", text, default=None)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "crucible(shards=N): spreads the campaign of a `crucible` test over N tests"
    )
    problem = _not_a_count(_setting(config, "shards"))
    if problem is not None:
        raise pytest.UsageError(f"--crucible-shards, or crucible_shards in the ini file: {problem}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "crucible" not in metafunc.fixturenames:
        return
    count = _shard_count(metafunc.config, metafunc.definition.get_closest_marker("crucible"))
    shards = [Shard(number, count) for number in range(1, count + 1)]
    metafunc.parametrize("crucible", shards, indirect=True, ids=str)


@pytest.fixture
def crucible(request: pytest.FixtureRequest) -> Crucible:
    """Campaigns against an allocator; `survives` is what a test calls."""
    shard: Shard = getattr(request, "param", Shard(1, 1))
    return Crucible(request.config, shard, request.node.name)


# --- Settings -----------------------------------------------------------------------------


def _stated(config: pytest.Config, name: str) -> str | None:
    """On the command line, else in the ini file."""
    option = config.getoption(f"--crucible-{name}")
    return option if option is not None else config.getini(f"crucible_{name}") or None


def _setting(config: pytest.Config, name: str) -> str:
    default = next(setting.default for setting in SETTINGS if setting.name == name)
    return _stated(config, name) or default


def _shard_count(config: pytest.Config, marker: pytest.Mark | None) -> int:
    """The command line wins over the marker, the marker over the ini file."""
    stated: object = _setting(config, "shards")
    if config.getoption("--crucible-shards") is None and marker is not None:
        stated = marker.kwargs.get("shards", stated)
    problem = _not_a_count(stated)
    if problem is not None:
        raise pytest.Collector.CollectError(f"@pytest.mark.crucible(shards=...): {problem}")
    return int(str(stated))


def _not_a_count(found: object) -> str | None:
    if re.fullmatch(r"[1-9]\d{0,3}", str(found)):
        return None
    return f"the number of shards is {found!r}. Expected a whole number from 1 to 9999."


def _give_up(text: str) -> NoReturn:
    pytest.fail(text, pytrace=False)


def _build(config: pytest.Config) -> Path:
    """The build whose programs judge; the test fails where there is none."""
    stated, variable = _stated(config, "build"), os.environ.get("NVCRUCIBLE_BUILD")
    if stated is not None:
        build, said = config.rootpath / stated, "crucible_build"
    elif variable:
        build, said = Path(variable).resolve(), "NVCRUCIBLE_BUILD"
    else:
        build, said = _checkout_build(), "nothing, so the checkout's own build was looked for;"
    if not (build / "workloads" / "nvdrive").is_file():
        _give_up(
            f"crucible: {said} names {build}, where there is no workloads/nvdrive. Expected a "
            "finished build of nvcrucible. Run `make build` in its checkout, and name its build "
            "folder in the ini file (crucible_build = ...), with --crucible-build or in "
            "NVCRUCIBLE_BUILD."
        )
    return build


def _checkout_build() -> Path:
    from suite.errors import CrucibleError
    from suite.project import project_root

    try:
        return project_root() / "build"
    except CrucibleError as error:
        _give_up(f"crucible: {error}")


# --- The adapter --------------------------------------------------------------------------


def _compiled_for_the_lens(module: Path) -> bool:
    return TSAN_MARK in module.read_bytes()


def _flags(nvlab: Path) -> str:
    """What `nvlab flags` says, for a person to copy."""
    done = subprocess.run([nvlab, "flags"], capture_output=True, text=True, check=False)
    try:
        said = json.loads(done.stdout)
        return f"  compile: {said['cflags']}\n  link:    {said['ldflags']}"
    except (ValueError, KeyError):
        return f"  (`{nvlab} flags` ended with exit code {done.returncode} and said neither)"


def _require_plain(adapter: Path) -> None:
    if not adapter.is_file():
        _give_up(
            f"crucible: there is no adapter at {adapter}. Expected a shared object that meets "
            "nvcrucible's allocators/adapter.h. Build it before the test runs, and state its path "
            "from pytest's root."
        )
    if _compiled_for_the_lens(adapter):
        _give_up(
            f"crucible: the adapter {adapter} is compiled for the lens (it wants __tsan_ symbols), "
            "and can be loaded by the power-fail laboratory only. Expected the ordinary module as "
            "adapter=, and this one beside it as NAME.lens.so or as lens=."
        )


def _require_lens(build: Path, adapter: Path, lens: Path) -> None:
    nvlab = build / "faults" / "nvlab"
    if not nvlab.is_file():
        _give_up(
            f"crucible: the build {build} has no faults/nvlab, which power failures need. Expected "
            "it in a build made on x86-64 with libdw-dev. Install that, build again, or state "
            'faults=["sigkill"] only.'
        )
    if not lens.is_file():
        what, found = "is not there", lens
    elif not _compiled_for_the_lens(lens):
        what, found = "was not compiled for the lens: its stores would go unseen", lens
    elif TSAN_LIBRARY in lens.read_bytes():
        what, found = (
            "was linked with -fsanitize=thread, hence to the sanitizer's own library",
            lens,
        )
    else:
        return
    _give_up(
        f"crucible: for power failures {adapter.name} is needed a second time, compiled for the "
        f"laboratory's lens; {found} {what}. Expected NAME.lens.so beside the adapter, or its path "
        "in lens=, built from the same sources, compiled and linked by two commands, with\n"
        f"{_flags(nvlab)}\n(`{nvlab} flags` prints them)."
    )


# --- A campaign ---------------------------------------------------------------------------


class Crucible:
    """What the fixture gives: campaigns of one shard."""

    def __init__(self, config: pytest.Config, shard: Shard, test: str) -> None:
        self._config = config
        self._test = test
        self.shard = shard

    def survives(
        self,
        *,
        adapter: str | Path,
        faults: Sequence[str] = DEFAULT_FAULTS,
        cases: int | None = None,
        budget: str | None = None,
        lens: str | Path | None = None,
        preload: Sequence[str] = (),
        options: Mapping[str, str | int | bool] | None = None,
        environment: Mapping[str, str] | None = None,
        fill_tolerance: float = 0.02,
        max_failures: int = 3,
        name: str | None = None,
    ) -> Survival:
        """Fails the test unless the allocator survives every case of this shard.

        `cases` counts each fault's cases over all shards; `budget` is the time of each shard, and
        what is taken where neither is stated (`crucible_budget`).  `lens` is the adapter compiled for the
        lens (default: NAME.lens.so beside NAME.so); with `preload=["libpmem-probe"]` an allocator
        on libpmem is seen through that library instead.  Paths are relative to pytest's root.
        """
        if cases is not None and budget is not None:
            raise ValueError("either cases or budget: how many, or for how long")
        share = None if cases is None else self.shard.share(cases)
        if share == 0:
            pytest.skip(f"{cases} cases leave none for {self.shard}; state fewer shards")
        build = _build(self._config)
        plain = self._config.rootpath / adapter
        _require_plain(plain)
        watched = None
        if LENS_FAULTS & set(faults) and not preload:
            beside = plain.with_name(f"{plain.stem}.lens.so")
            watched = beside if lens is None else self._config.rootpath / lens
            _require_lens(build, plain, watched)
        known_as = name or _name_of(plain)
        place = self._fresh_place(known_as)
        description = {
            "schema": 1,
            "name": known_as,
            "kind": "persistent",
            "adapter": {"library": f"{known_as}.so"},
            "preload": list(preload),
            "options": dict(options or {}),
            "environment": dict(environment or {}),
            "fill_tolerance": fill_tolerance,
        }
        _write_allocator(place / "allocator", description, plain, watched)
        amount = (
            ("--cases", str(share))
            if share is not None
            else ("--budget", budget or _setting(self._config, "budget"))
        )
        command = [
            *_nvcrucible(), "fault", "-a", known_as, "--allocator-path", str(place / "allocator"),
            "-f", ",".join(faults), *amount, "-n", "1", "--seed", str(self._seed()),
            "--max-failures", str(max_failures), "--out", str(place), "--name", "run", "--json",
            *self._places(),
        ]  # fmt: skip
        code, output, said = _run(command, {**os.environ, "NVCRUCIBLE_BUILD": str(build)})
        return self._judge(code, output, said, place, build)

    def _seed(self) -> int:
        from suite.plan import derive_seed

        stated = _setting(self._config, "seed")
        if not stated.isdecimal():
            _give_up(f"crucible: crucible_seed is {stated!r}. Expected a whole number.")
        return derive_seed(int(stated), "pytest", self.shard.number, self.shard.of)

    def _places(self) -> list[str]:
        pm = _stated(self._config, "pm")
        where = ["--runner", _setting(self._config, "runner")]
        return where if pm is None else [*where, "--pm", str(self._config.rootpath / pm)]

    def _fresh_place(self, allocator: str) -> Path:
        """A folder for the evidence of this shard; what its last run left goes."""
        test = re.sub(r"[^A-Za-z0-9_.-]+", "-", self._test).strip("-")
        results = self._config.rootpath / _setting(self._config, "results")
        place = results / test / allocator
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        return place

    def _judge(self, code: int, output: str, said: str, place: Path, build: Path) -> Survival:
        try:
            document: dict[str, Any] = json.loads(output)
        except ValueError:
            document = {}
        if code == EXIT_INCORRECT and document.get("verdicts"):
            (run,) = (path.parent for path in place.glob("*/run.json"))
            _give_up(_failure_text(document, run, build, self.shard))
        if code != EXIT_OK or not document.get("verdicts"):
            reason = said.strip() or f"exit code {code}, and not a word"
            _give_up(f"crucible: no verdict on this shard: {reason}")
        verdicts = document["verdicts"]
        shutil.rmtree(place)
        return Survival(
            cases=sum(verdict["cases"] for verdict in verdicts),
            states=sum(verdict["states"] for verdict in verdicts),
            document=document,
        )


def _name_of(adapter: Path) -> str:
    """libmine.so is called "mine"."""
    name = re.sub(r"[^a-z0-9]+", "-", adapter.stem.removeprefix("lib").lower()).strip("-")
    return name if name[:1].isalpha() else f"adapter-{name}".rstrip("-")


def _write_allocator(
    folder: Path, description: Mapping[str, Any], plain: Path, lens: Path | None
) -> None:
    """A folder as `--allocator-path` takes it: with the modules themselves, so that a kept case shows
    the same verdict after the project was built anew."""
    folder.mkdir()
    shutil.copyfile(plain, folder / f"{description['name']}.so")
    if lens is not None:
        shutil.copyfile(lens, folder / f"{description['name']}.lens.so")
    # JSON is YAML.
    (folder / "allocator.yaml").write_text(json.dumps(description, indent=1), encoding="utf-8")


def _nvcrucible() -> list[str]:
    return [sys.executable, "-P", "-m", "suite.cli"]  # -P: theirs may have a folder "suite"


def _run(command: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str, str]:
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(environment),
    )
    with process, _ended_in_order(process):
        output, said = process.communicate()
    return process.returncode, output, said


@contextlib.contextmanager
def _ended_in_order(process: subprocess.Popen[str]) -> Iterator[None]:
    """Ctrl-C: the command is asked to end, so that it ends its jobs and removes its heaps."""
    try:
        yield
    except BaseException:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_PATIENCE_S)
        process.kill()
        raise


# --- What a failure looks like --------------------------------------------------------------


def _failure_text(document: Mapping[str, Any], run: Path, build: Path, shard: Shard) -> str:
    lines = []
    for verdict in document["verdicts"]:
        if not verdict["failed"]:
            continue
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(verdict["by_kind"].items()))
        lines.append(
            f"{verdict['allocator']} does not survive {verdict['fault']}: {verdict['failed']} of "
            f"{verdict['cases']} cases failed ({kinds}); {shard}, seed {document['config']['seed']}"
        )
        kept = [each for each in verdict["failures"] if each.get("path")]
        for failure in kept[:FAILURES_SHOWN]:
            lines += ["", *_case_lines(failure, run / failure["path"], build)]
        lines.append("")
    return "\n".join(lines).rstrip()


def _case_lines(failure: Mapping[str, Any], folder: Path, build: Path) -> Iterator[str]:
    case: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        case = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    yield f"{failure['kind']}: {case.get('explanation') or failure['detail']}"
    if case.get("operations"):
        yield f"  operations: {case['operations']}"
    for site in case.get("sites", [])[:SITES_SHOWN]:
        yield f"  {site['role']:<16} {site['file']}:{site['line']} {site.get('function', '')}"
    replay = shlex.join(["nvcrucible", "replay", str(folder), "--runner", "local"])
    yield f"  replay: NVCRUCIBLE_BUILD={shlex.quote(str(build))} {replay}"
    yield f"  case:   {folder}"
