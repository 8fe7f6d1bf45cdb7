# SPDX-License-Identifier: Apache-2.0
"""What the container tests share: an engine, the image, a runner, jobs.

They need an engine that answers; `.ci/with-engine` starts one where it may.
Without one they are skipped, and say what is missing.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest

from places import Places
from suite.engine import connect_engine
from suite.errors import RunnerUnavailable
from suite.images import TARGETS, ensure_target
from suite.project import project_root
from suite.runners.docker import RUN_LABEL, DockerRunner, connect


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.APIClient]:
    try:
        client = connect_engine()
    except RunnerUnavailable as error:
        pytest.skip(os.environ.get("NVC_NO_ENGINE") or str(error))
    yield client
    client.close()


def say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


@pytest.fixture(scope="session")
def job_image(engine: docker.APIClient) -> str:
    """The tag of the current job image, built if it has to be."""
    ensure_target(engine, project_root(), TARGETS["job"], say)
    return TARGETS["job"].tag


@pytest.fixture
def runner(job_image: str) -> Iterator[DockerRunner]:
    del job_image
    runner = connect()
    assert isinstance(runner, DockerRunner)
    yield runner
    runner.close()


@pytest.fixture
def places() -> Iterator[Places]:
    # On tmpfs, as emulated NVM is; both mounted by the engine, so not below a private /tmp.
    base = Path(tempfile.mkdtemp(prefix="nvcrucible-test-", dir="/dev/shm"))
    found = Places(base / "nvm", base / "work")
    for folder in (found.pm_dir, found.work_dir):
        folder.mkdir(mode=0o700)
    yield found
    shutil.rmtree(base)


@pytest.fixture
def containers(engine: docker.APIClient) -> Callable[[DockerRunner], list[dict[str, object]]]:
    """The containers of a runner that the engine knows, in whatever state."""

    def listed(runner: DockerRunner) -> list[dict[str, object]]:
        return engine.containers(all=True, filters={"label": f"{RUN_LABEL}={runner.run_id}"})

    return listed
