# SPDX-License-Identifier: Apache-2.0
"""The local runner: streams, limits, and never leaves a process behind."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from suite.errors import BadInput, EnvironmentMissing
from suite.runners import choose_runner
from suite.runners.base import Job, Outcome, Runner
from suite.runners.local import LocalRunner


def job(folder: Path, script: str, timeout_s: float = 30.0, cpus: tuple[int, ...] = ()) -> Job:
    return Job(
        label="test",
        program=Path(sys.executable),
        arguments=("-c", script),
        pm_dir=folder,
        work_dir=folder,
        timeout_s=timeout_s,
        cpus=cpus,
    )


def run(folder: Path, script: str, timeout_s: float = 30.0) -> tuple[Outcome, list[str]]:
    lines: list[str] = []
    outcome = LocalRunner().start(job(folder, script, timeout_s)).wait(lines.append)
    return outcome, lines


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


CHILD = (
    "import subprocess,sys,time; p=subprocess.Popen(['sleep','600']); print(p.pid, flush=True); "
)


def test_lines_come_whole_and_in_order(tmp_path: Path) -> None:
    script = "import sys; sys.stdout.buffer.write(b'one\\ntw\\xffo\\n\\nlast'); print('x', file=sys.stderr)"
    outcome, lines = run(tmp_path, script)
    assert lines == ["one", "tw\ufffdo", "", "last"]
    assert outcome.ok
    assert outcome.stderr_tail == "x"
    assert outcome.cpu_s is not None
    assert outcome.cpu_s > 0


def test_lines_come_as_they_are_written(tmp_path: Path) -> None:
    seen: list[float] = []
    running = LocalRunner().start(job(tmp_path, "import time; print(1, flush=True); time.sleep(1)"))
    outcome = running.wait(lambda _line: seen.append(time.monotonic()))
    assert time.monotonic() - seen[0] > 0.8
    assert outcome.ok


@pytest.mark.parametrize(
    ("script", "code", "signal"),
    [("exit(4)", 4, None), ("import os; os.kill(os.getpid(), 11)", None, 11)],
)
def test_how_it_ended(tmp_path: Path, script: str, code: int | None, signal: int | None) -> None:
    outcome, _ = run(tmp_path, script)
    assert (outcome.exit_code, outcome.signal, outcome.ok) == (code, signal, False)
    assert str(code or signal) in outcome.explain()


def test_a_hang_is_ended_with_all_its_children(tmp_path: Path) -> None:
    outcome, lines = run(tmp_path, CHILD + "time.sleep(600)", timeout_s=1.5)
    assert outcome.timed_out
    assert "time limit" in outcome.explain()
    assert not alive(int(lines[0]))


def test_children_that_are_left_behind_are_ended(tmp_path: Path) -> None:
    outcome, lines = run(tmp_path, CHILD)
    assert outcome.exit_code == 0
    assert outcome.wall_s < 20
    assert not alive(int(lines[0]))


def test_a_flood_of_output_is_cut_off(tmp_path: Path) -> None:
    running = LocalRunner().start(job(tmp_path, "while True: print('x' * 100000)"))
    outcome = running.wait()
    assert outcome.signal == 9
    assert not outcome.timed_out


def test_kill_from_another_thread(tmp_path: Path) -> None:
    running = LocalRunner().start(job(tmp_path, "import time; time.sleep(600)"))
    threading.Timer(0.3, running.kill).start()
    outcome = running.wait()
    assert outcome.cancelled
    assert outcome.wall_s < 20
    running.kill()  # after the end: nothing happens


def test_cancel_all_ends_every_job_and_starts_no_other(tmp_path: Path) -> None:
    runner = LocalRunner()
    outcomes: list[Outcome] = []
    jobs = [runner.start(job(tmp_path, "import time; time.sleep(600)")) for _ in range(3)]
    threads = [threading.Thread(target=lambda j=j: outcomes.append(j.wait())) for j in jobs]
    for thread in threads:
        thread.start()
    runner.cancel_all()
    for thread in threads:
        thread.join(20)
    assert [outcome.cancelled for outcome in outcomes] == [True] * 3
    with pytest.raises(EnvironmentMissing, match="the run is ending"):
        runner.start(job(tmp_path, "pass"))


def test_an_error_in_the_sink_leaves_nothing_running(tmp_path: Path) -> None:
    pids: list[int] = []

    def fail(line: str) -> None:
        pids.append(int(line))
        raise RuntimeError("the sink failed")

    with pytest.raises(RuntimeError, match="the sink failed"):
        LocalRunner().start(job(tmp_path, CHILD + "time.sleep(600)")).wait(fail)
    assert not alive(pids[0])


def test_the_job_is_pinned_and_we_are_not(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    cpu = max(before)
    lines: list[str] = []
    script = "import os; print(sorted(os.sched_getaffinity(0)))"
    LocalRunner().start(job(tmp_path, script, cpus=(cpu,))).wait(lines.append)
    assert lines == [f"[{cpu}]"]
    assert os.sched_getaffinity(0) == before


def test_the_callers_environment_is_not_inherited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.setenv("SECRET_TOKEN", "x")
    _, lines = run(
        tmp_path, "import os; print('SECRET_TOKEN' in os.environ, 'LD_PRELOAD' in os.environ)"
    )
    assert lines == ["False False"]


def test_no_core_is_dumped(tmp_path: Path) -> None:
    script = "import resource; print(resource.getrlimit(resource.RLIMIT_CORE))"
    _, lines = run(tmp_path, f"import time; time.sleep(0.2); {script}")
    assert lines == ["(0, 0)"]


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    missing = Job("x", tmp_path / "none", (), tmp_path, tmp_path, 1.0)
    with pytest.raises(EnvironmentMissing, match="can't be started"):
        LocalRunner().start(missing)


def test_choices() -> None:
    local = choose_runner("local")
    assert isinstance(local, Runner)
    assert local.name == "local"
    with pytest.raises(BadInput, match="'dokcer'; did you mean 'docker'"):
        choose_runner("dokcer")


def test_auto_says_why_it_takes_local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    said: list[str] = []
    assert choose_runner("auto", said.append).name == "local"
    assert len(said) == 1
    assert said[0].startswith("runner: local (")
