# SPDX-License-Identifier: Apache-2.0
"""jemalloc-nvm in the bench: a volatile allocator whose heap is a file on the NVM."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from project import Project


@pytest.fixture
def adapter(native: Project) -> Path:
    path = native.build / "allocators" / "jemalloc-nvm.so"
    if not path.is_file():
        pytest.skip(f"no {path}: jemalloc's development files were missing (libjemalloc-dev)")
    return path


def test_both_variants_run_and_leave_no_file(
    native: Project, adapter: Path, tmp_path: Path
) -> None:
    native.pm = tmp_path / "pm"
    native.pm.mkdir()
    names = {"jemalloc-nvm", "jemalloc-nvm-meta"}
    done = native.bench("-a", ",".join(sorted(names)), "-w", "larson")
    assert done.returncode == 0, done.stderr
    samples = native.run_document()["samples"]
    assert {sample["allocator"] for sample in samples} == names
    for sample in samples:
        assert sample.get("error") is None
        if not sample.get("stepped"):
            assert sample["raw"]["failed_allocs"] == 0
            assert sample["raw"]["map_sync"] in (0, 1)
            assert 0 < sample["raw"]["used_bytes"] <= sample["raw"]["stats"]["heap_bytes"]
    assert not list(native.pm.rglob("heap"))


@pytest.mark.parametrize("heap", [None, "taken"])
def test_the_driver_wants_a_path_that_is_free(
    native: Project, adapter: Path, tmp_path: Path, heap: str | None
) -> None:
    command = [native.build / "workloads" / "nvdrive", "bench", "--adapter", adapter]
    command += ["--workload", "larson", "--seconds", "0.01"]
    if heap is not None:
        (tmp_path / heap).write_text("precious")
        command += ["--heap", tmp_path / heap]
    environment = native.environment | {"GLIBC_TUNABLES": "glibc.rtld.optional_static_tls=16384"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == (2 if heap is None else 3)
    assert json.loads(done.stdout)["type"] == "error"
    if heap is not None:
        assert (tmp_path / heap).read_text() == "precious"
