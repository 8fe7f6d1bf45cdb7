# SPDX-License-Identifier: Apache-2.0
"""The one document that `--json` prints on standard output."""

from __future__ import annotations

import json
import sys
from typing import Any

from suite.errors import CrucibleError

__all__ = ["print_json", "print_json_error", "print_text"]


def print_json(document: Any) -> None:
    """The document, and nothing else, on standard output."""
    json.dump(document, sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")
    sys.stdout.flush()


def print_json_error(error: CrucibleError) -> None:
    """What `--json` prints instead of a result."""
    print_json({"error": {"kind": error.kind, "exit_code": error.exit_code, "message": str(error)}})


def print_text(text: str) -> None:
    """Text for people or for a file, on standard output, as it is."""
    sys.stdout.write(text)
    sys.stdout.flush()
