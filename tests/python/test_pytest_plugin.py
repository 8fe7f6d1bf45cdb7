# SPDX-License-Identifier: Apache-2.0
"""The pytest plugin, as a project that is not ours uses it: its own sources, build and pytest."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from project import REPOSITORY, Project
from suite.pytest_plugin import Shard

KNOWN_BAD = REPOSITORY / "tests" / "known_bad"


@dataclass(frozen=True)
class Theirs:
    """Somebody's checkout: an allocator's sources, how it is built, and tests."""

    root: Path
    native: Project

    def build(self, name: str, *, lens: bool = True) -> None:
        """lib<name>.so of tests/known_bad/<name>, and the same for the lens with the printed flags."""
        for part in (name, "common"):
            shutil.copytree(KNOWN_BAD / part, self.root / "src" / part, dirs_exist_ok=True)
        self._compile(name, f"lib{name}.so", ["-O2"], [])
        if lens:
            flags = json.loads(self._shell([str(self.nvlab), "flags"]))
            self._compile(
                name, f"lib{name}.lens.so", flags["cflags"].split(), flags["ldflags"].split()
            )

    def _compile(self, name: str, module: str, cflags: list[str], ldflags: list[str]) -> None:
        objects = []
        for source in (f"src/{name}/adapter.c", "src/common/first_fit.c"):
            objects.append(f"{module}.{Path(source).stem}.o")
            include = f"-I{REPOSITORY / 'allocators'}"
            self._shell(["cc", *cflags, "-fPIC", include, "-c", source, "-o", objects[-1]])
        self._shell(["cc", "-shared", "-pthread", *objects, *ldflags, "-o", module])

    @property
    def nvlab(self) -> Path:
        return self.native.build / "faults" / "nvlab"

    def _shell(self, command: list[str]) -> str:
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def pytest(self, tests: str, *arguments: str) -> tuple[int, str]:
        """Exit code and output of their pytest on one file of tests."""
        (self.root / "test_mine.py").write_text("import pytest\n\n" + tests)
        environment = {
            name: value
            for name, value in self.native.environment.items()
            # With CI set, pytest prints each failure's text once more in its summary.
            if not name.startswith(("NVCRUCIBLE_", "PYTEST_")) and name != "CI"
        }
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
            cwd=self.root, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def theirs(native: Project, tmp_path: Path) -> Theirs:
    if not (native.build / "faults" / "nvlab").is_file():
        pytest.skip("the build has no faults/nvlab: libdw-dev was missing")
    root = tmp_path / "theirs"
    root.mkdir()
    (root / "pytest.ini").write_text(
        f"[pytest]\naddopts = --strict-markers\ncrucible_build = {native.build.resolve()}\n"
        f"crucible_pm = {native.pm}\ncrucible_results = evidence\n"
    )
    return Theirs(root, native)


def test_the_plugin_is_found_by_its_entry_point() -> None:
    (found,) = (each for each in entry_points(group="pytest11") if each.name == "crucible")
    assert found.value == "suite.pytest_plugin"


@pytest.mark.parametrize(("cases", "of"), [(10, 3), (8, 8), (2, 5), (1, 1)])
def test_the_shares_add_up(cases: int, of: int) -> None:
    shares = [Shard(number, of).share(cases) for number in range(1, of + 1)]
    assert sum(shares) == cases
    assert max(shares) - min(shares) <= 1


@pytest.mark.native
def test_a_good_allocator_passes_on_two_workers(theirs: Theirs) -> None:
    theirs.build("good-minimal")
    code, output = theirs.pytest(
        """
@pytest.mark.crucible(shards=2)
def test_survives(crucible):
    survival = crucible.survives(
        adapter="libgood-minimal.so", faults=["sigkill", "powerfail", "recovery-crash"], budget="4s"
    )
    assert survival.cases >= 3
    assert survival.states > 20
    assert {each["fault"] for each in survival.document["verdicts"]} == {
        "sigkill", "powerfail", "recovery-crash"
    }
""",
        "-n", "2", "-v",
    )  # fmt: skip
    assert code == 0, output
    assert "2 passed" in output
    assert set(re.findall(r"\[gw\d\].* PASSED test_mine.py::test_survives\[(.*)\]", output)) == {
        "shard-1-of-2",
        "shard-2-of-2",
    }
    assert not list((theirs.root / "evidence").glob("*/*/*")), "nothing is kept of what passed"


@pytest.mark.native
def test_a_bad_one_fails_with_its_explanation_and_is_replayed(theirs: Theirs) -> None:
    theirs.build("publish-before-mark")
    code, output = theirs.pytest(
        """
def test_survives(crucible):
    crucible.survives(adapter="libpublish-before-mark.so", faults=["powerfail"], cases=2)
""",
        "-n", "2", "--crucible-shards", "2",
    )  # fmt: skip
    assert code == 1, output
    assert "2 failed" in output
    assert "publish-before-mark does not survive powerfail: 1 of 1 cases failed" in output
    assert "shard-1-of-2" in output
    assert "shard-2-of-2" in output
    assert re.search(r"^overlap: .*\S", output, re.MULTILINE)
    assert re.search(r"^  operations: a\d+:\d+", output, re.MULTILINE)
    assert re.search(r"^  [a-z-]+ +first_fit\.c:\d+ publish_then_mark", output, re.MULTILINE)
    assert "Traceback" not in output
    assert "pytest_plugin.py" not in output

    commands = re.findall(r"^  replay: (\S+=\S+) nvcrucible (.*)$", output, re.MULTILINE)
    assert len(commands) == 2
    folders = re.findall(r"^  case:   (.*)$", output, re.MULTILINE)
    assert all((Path(folder) / "case.json").is_file() for folder in folders)
    build, arguments = commands[0]
    name, value = build.split("=")
    replay = subprocess.run(
        [sys.executable, "-m", "suite.cli", *shlex.split(arguments)],
        env={**theirs.native.environment, name: shlex.split(value)[0]},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert replay.returncode == 4, replay.stderr
    assert "overlap" in replay.stdout


@pytest.mark.native
def test_what_is_missing_is_said(theirs: Theirs) -> None:
    theirs.build("good-minimal", lens=False)
    shutil.copy(theirs.root / "libgood-minimal.so", theirs.root / "libseen.so")
    (theirs.root / "libcopied.so").write_bytes((theirs.root / "libseen.so").read_bytes())
    (theirs.root / "libcopied.lens.so").write_bytes((theirs.root / "libseen.so").read_bytes())
    (theirs.root / "libtoo-far.so").write_bytes((theirs.root / "libseen.so").read_bytes())
    (theirs.root / "libtoo-far.lens.so").write_bytes(b"__tsan_func_entry libtsan.so.2")
    code, output = theirs.pytest(
        """
def test_absent(crucible):
    crucible.survives(adapter="libabsent.so")

def test_no_lens(crucible):
    crucible.survives(adapter="libseen.so", faults=["powerfail"])

def test_uninstrumented(crucible):
    crucible.survives(adapter="libcopied.so", faults=["recovery-crash"])

def test_linked_to_the_sanitizer(crucible):
    crucible.survives(adapter="libtoo-far.so", faults=["powerfail"])

def test_given_the_wrong_one(crucible):
    crucible.survives(adapter="libtoo-far.lens.so", faults=["sigkill"])

def test_unknown_fault(crucible):
    crucible.survives(adapter="libseen.so", faults=["sigkil"], cases=1)

def test_kills_need_no_lens(crucible):
    assert crucible.survives(adapter="libseen.so", faults=["sigkill"], cases=2).cases == 2
"""
    )
    assert code == 1, output
    assert "6 failed, 1 passed" in output
    assert "there is no adapter at" in output
    assert "libseen.lens.so is not there" in output
    assert "libcopied.lens.so was not compiled for the lens" in output
    assert "libtoo-far.lens.so was linked with -fsanitize=thread" in output
    assert "libtoo-far.lens.so is compiled for the lens" in output
    assert output.count("compile: -fsanitize=thread") == 3
    assert output.count("link:    -Wl,--wrap=memcpy") == 3
    assert "There is no fault called 'sigkil'" in output


def test_without_a_build_the_way_to_one_is_shown(native: Project, tmp_path: Path) -> None:
    code, output = Theirs(tmp_path, native).pytest(
        'def test_it(crucible):\n    crucible.survives(adapter="lib.so")\n',
        "--crucible-build", "nowhere",
    )  # fmt: skip
    assert code == 1
    assert f"crucible_build names {tmp_path / 'nowhere'}" in output
    assert "make build" in output


def test_the_command_line_wins_over_the_marker(native: Project, tmp_path: Path) -> None:
    theirs = Theirs(tmp_path, native)
    (tmp_path / "pytest.ini").write_text("[pytest]\ncrucible_shards = 4\n")
    tests = """
def test_plain(crucible): ...

@pytest.mark.crucible(shards=3)
def test_marked(crucible): ...

def test_other(): ...
"""
    code, output = theirs.pytest(tests, "--collect-only", "-q")
    assert code == 0, output
    assert output.count("test_plain[shard-") == 4
    assert output.count("test_marked[shard-") == 3
    assert output.count("test_other\n") == 1
    _, output = theirs.pytest(tests, "--collect-only", "-q", "--crucible-shards", "2")
    assert output.count("test_marked[shard-") == 2
    code, output = theirs.pytest(tests, "--collect-only", "-q", "--crucible-shards", "none")
    assert code == 4, output
    assert "the number of shards is 'none'" in output
    code, output = theirs.pytest(tests.replace("shards=3", "shards=0"), "--collect-only", "-q")
    assert code == 2, output
    assert "the number of shards is 0" in output
