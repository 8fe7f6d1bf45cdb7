# SPDX-License-Identifier: Apache-2.0
"""Where a test's job works, and how a test words one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from suite.project import project_root
from suite.runners.base import Argument, Job

__all__ = ["MIB", "Places", "environment_of"]

MIB = 1 << 20


def environment_of(allocator: str) -> dict[str, str]:
    """What the allocator's folder says its processes need."""
    file = project_root() / "allocators" / allocator / "allocator.yaml"
    return yaml.safe_load(file.read_text()).get("environment") or {}


@dataclass(frozen=True)
class Places:
    """A job's two directories."""

    pm_dir: Path
    work_dir: Path

    def job(
        self,
        program: str | Path,
        *arguments: Argument,
        timeout_s: float = 60,
        memory_bytes: int | None = 256 * MIB,
        cpus: tuple[int, ...] = (),
        read_only: tuple[Path, ...] = (),
        preload: tuple[Path, ...] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Job:
        return Job(
            label=f"test of {Path(program).name}",
            program=Path(program),
            arguments=arguments,
            pm_dir=self.pm_dir,
            work_dir=self.work_dir,
            timeout_s=timeout_s,
            memory_bytes=memory_bytes,
            cpus=cpus,
            read_only=read_only,
            preload=preload,
            environment=environment or {},
        )

    def shell(self, script: str, **limits: object) -> Job:
        """A script for the image's own sh: what a container may do shows best from inside."""
        return self.job("/bin/sh", "-c", script, **limits)  # type: ignore[arg-type]
