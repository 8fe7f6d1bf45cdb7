# SPDX-License-Identifier: Apache-2.0
"""What the allocators that are built here say of themselves: version, and how they were built.

For `list`, which starts no build, no container and no session: it looks at a build that is there.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from suite.allocators import Allocator
from suite.build import BUILD_VARIABLE, Installation, read_build
from suite.errors import EnvironmentMissing

__all__ = ["Known", "versions_of"]

PATIENCE_S = 10.0


@dataclass(frozen=True)
class Known:
    """Empty texts: not known here."""

    version: str = ""
    built: str = ""


def versions_of(root: Path, allocators: Iterable[Allocator]) -> dict[str, Known]:
    """By allocator name; without those that are not built, or can't be loaded here."""
    stated = os.environ.get(BUILD_VARIABLE)
    build = read_build(Path(stated) if stated else root / "build")
    installation = Installation(build, {})
    if not build.nvdrive.is_file():
        return {}
    found = {}
    for allocator in allocators:
        version = None if allocator.outside else _ask(installation, allocator)
        if version is not None:
            found[allocator.name] = Known(version, installation.built(allocator))
    return found


def _ask(installation: Installation, allocator: Allocator) -> str | None:
    try:
        command = [str(installation.program(allocator)), "info"]
        if allocator.program is None:
            command += ["--adapter", str(installation.adapter(allocator))]
        elif allocator.options:
            command += ["--options", allocator.options]
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
            env={"PATH": os.defpath, **allocator.file.environment},
        )
        answer = json.loads(done.stdout.splitlines()[-1])
        return str(answer["adapter"]["library_version"])
    except (OSError, subprocess.SubprocessError, EnvironmentMissing):
        return None
    except (ValueError, LookupError, TypeError):  # it could not be loaded, and said so
        return None
