# SPDX-License-Identifier: Apache-2.0
"""When an image counts as current, what it is made of, and what is said where it can't be had."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import docker
import pytest

from suite.base_images import apt_sources, ensure_base
from suite.errors import RunnerUnavailable
from suite.images import TARGETS, ensure_target, is_current, source_checksum
from suite.project import project_root
from suite.runners import choose_runner
from suite.runners.docker import DockerRunner, connect

JOB = TARGETS["job"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the job image is made of."""
    for name in JOB.sources:
        source = project_root() / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name)
        elif source.exists():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, tmp_path / name)
    return tmp_path


def test_a_current_image_is_not_built_again(engine: docker.APIClient, job_image: str) -> None:
    before = engine.inspect_image(job_image)["Id"]
    assert is_current(engine, project_root(), JOB)
    assert not ensure_target(engine, project_root(), JOB, pytest.fail)
    assert engine.inspect_image(job_image)["Id"] == before


def test_the_checksum_follows_content_names_and_nothing_else(checkout: Path) -> None:
    original = source_checksum(checkout, JOB)
    assert original == source_checksum(project_root(), JOB)

    header = checkout / "allocators" / "adapter.h"
    os.utime(header, (1, 1))
    (checkout / "allocators" / "__pycache__").mkdir(exist_ok=True)
    (checkout / "allocators" / "__pycache__" / "folders.pyc").write_text("")
    (checkout / "results").mkdir()
    (checkout / "results" / "run.json").write_text("{}")
    assert source_checksum(checkout, JOB) == original

    text = header.read_text()
    header.write_text(text + "\n")
    changed = source_checksum(checkout, JOB)
    assert changed != original
    header.rename(header.with_name("contract.h"))
    assert source_checksum(checkout, JOB) not in (original, changed)
    header.with_name("contract.h").rename(header)
    header.write_text(text)
    assert source_checksum(checkout, JOB) == original


def test_a_stale_image_is_refused_with_advice(
    job_image: str, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del job_image
    with (checkout / "meson.build").open("a") as file:
        file.write("# changed\n")
    monkeypatch.setenv("NVCRUCIBLE_HOME", str(checkout))
    with pytest.raises(RunnerUnavailable, match="make images"):
        connect()


def test_the_job_image_has_neither_compiler_nor_python_and_its_user_is_not_root(
    engine: docker.APIClient, job_image: str
) -> None:
    facts = engine.inspect_image(job_image)["Config"]
    assert facts["User"] == "nvcrucible"
    assert facts["Entrypoint"][-1].endswith("/workloads/nvdrive")
    created = engine.create_container(
        job_image, entrypoint=["/bin/sh", "-c"], command=["command -v gcc cc python3 meson; id -u"]
    )
    try:
        engine.start(created["Id"])
        engine.wait(created["Id"])
        uid = engine.logs(created["Id"]).decode().strip()
    finally:
        engine.remove_container(created["Id"], force=True)
    assert uid.isdigit(), f"the image has more than jobs need: {uid}"
    assert int(uid) != 0


def test_a_base_that_is_there_is_taken_as_it_is(engine: docker.APIClient, job_image: str) -> None:
    del job_image
    ensure_base(engine, JOB.suite, pytest.fail)


@pytest.mark.parametrize("suite", ["bookworm", "bullseye"])
def test_the_mirror_of_this_machine_serves_any_release(suite: str) -> None:
    if shutil.which("apt-get") is None:
        pytest.skip("no apt-get on this machine")
    lines = apt_sources(suite)
    if not lines:
        pytest.skip("this machine's apt names no Debian mirror")
    assert all(line.startswith("deb ") and line.endswith(" main") for line in lines)
    assert lines[0].split()[2] == suite
    assert len(set(lines)) == len(lines)


def test_auto_chooses_docker_and_says_so(job_image: str) -> None:
    del job_image
    said: list[str] = []
    runner = choose_runner("auto", said.append)
    try:
        assert isinstance(runner, DockerRunner)
        assert said
        assert said[0].startswith("runner: docker")
    finally:
        runner.close()


def test_without_an_engine_auto_chooses_local_and_docker_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    said: list[str] = []
    runner = choose_runner("auto", said.append)
    assert runner.name == "local"
    assert said
    assert "No Docker engine answers" in said[0]
    with pytest.raises(RunnerUnavailable, match="--runner local") as caught:
        choose_runner("docker")
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)


def test_an_engine_that_refuses_this_user() -> None:
    """Asked in a process of another user, because root is refused nowhere."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    folder = Path(tempfile.mkdtemp(prefix="nvcrucible-test-"))
    try:
        folder.chmod(0o755)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(folder / "docker.sock"))
        listener.listen()
        (folder / "docker.sock").chmod(0o600)
        program = (
            "import os, sys\n"
            "from suite.engine import connect_engine\n"
            "from suite.errors import RunnerUnavailable\n"
            "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            "try:\n    connect_engine()\n"
            "except RunnerUnavailable as error:\n    print(error)\n"
        )
        environment = {**os.environ, "DOCKER_HOST": f"unix://{folder}/docker.sock"}
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environment,
            cwd=project_root(),
            capture_output=True,
            text=True,
            check=True,
        )
        listener.close()
    finally:
        shutil.rmtree(folder)
    assert "refuses this user" in done.stdout
    assert "--runner local" in done.stdout
