# SPDX-License-Identifier: Apache-2.0
"""Where the project's own files are: allocators, workloads, the meson project."""

from __future__ import annotations

import os
from pathlib import Path

from suite.errors import EnvironmentMissing

__all__ = ["HOME_VARIABLE", "project_root"]

HOME_VARIABLE = "NVCRUCIBLE_HOME"
LANDMARK = Path("allocators") / "adapter.h"


def project_root() -> Path:
    """The checkout (or its installed copy): NVCRUCIBLE_HOME, else beside this
    package, else the working directory or one above it."""
    stated = os.environ.get(HOME_VARIABLE)
    if stated:
        root = Path(stated).resolve()
        if not (root / LANDMARK).is_file():
            raise EnvironmentMissing(
                f"{HOME_VARIABLE} is set to {stated}, where there is no {LANDMARK}. Expected a "
                f"checkout of nvcrucible. Unset {HOME_VARIABLE}, or set it to the checkout's path."
            )
        return root
    here = Path.cwd()
    for candidate in (Path(__file__).resolve().parent.parent, here, *here.parents):
        if (candidate / LANDMARK).is_file():
            return candidate
    raise EnvironmentMissing(
        f"The project's files (allocators/, workloads/) were found neither beside the installed "
        f"package nor in {here} or above it. Run inside a checkout of nvcrucible, or set "
        f"{HOME_VARIABLE} to its path."
    )
