# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the orchestrator's tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from project import HERE, REPOSITORY, Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    root, build = tmp_path / "project", tmp_path / "build"
    folders = [root / "allocators", root / "workloads", build / "workloads", build / "allocators"]
    for folder in folders:
        folder.mkdir(parents=True)
    (root / "allocators" / "adapter.h").write_text("")
    driver = build / "workloads" / "nvdrive"
    driver.write_text(f"#!{sys.executable}\n" + (HERE / "fake_nvdrive.py").read_text())
    driver.chmod(0o755)
    (build / "allocators" / "skipped.json").write_text("{}")
    project = Project(root, build, tmp_path / "pm", tmp_path / "results", tmp_path / "tmp")
    project.pm.mkdir()
    project.temporary.mkdir()
    project.environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "NVCRUCIBLE_HOME": str(root),
        "NVCRUCIBLE_BUILD": str(build),
        "TMPDIR": str(project.temporary),
        "COLUMNS": "200",
    }
    project.workload("larson")
    project.workload("threadtest")
    return project


@pytest.fixture(scope="session")
def native_build() -> Path:
    """The real build; without one the test is skipped, but fails in CI."""
    build = Path(os.environ.get("NVCRUCIBLE_BUILD") or REPOSITORY / "build")
    if (build / "workloads" / "nvdrive").is_file():
        return build
    reason = f"no native build in {build}: run `make build`, or set NVCRUCIBLE_BUILD"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def native(native_build: Path, tmp_path: Path) -> Project:
    """The real project with the real build, results aside."""
    temporary, results = tmp_path / "tmp", tmp_path / "results"
    temporary.mkdir()
    pm = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else tmp_path
    project = Project(REPOSITORY, native_build, pm, results, temporary)
    project.environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "NVCRUCIBLE_BUILD": str(native_build),
        "TMPDIR": str(temporary),
    }
    return project
