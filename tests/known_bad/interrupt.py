# SPDX-License-Identifier: Apache-2.0
"""Stops a running ``nvdrive history`` by signal and looks at what it leaves.

After SIGTERM or SIGINT it must end by itself with 128 + the signal, its child must be
gone, and so must the case's folder in the NVM directory. After SIGKILL, which it cannot
handle, at least the child must be gone.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PATIENCE_SECONDS = 20.0


def children_using(folder: Path) -> list[int]:
    """Processes with a file of this folder in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in command:
            found.append(int(entry.name))
    return found


def wait_until_none(folder: Path) -> bool:
    """True once no process uses the folder."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while children_using(folder):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def stop(nvdrive: Path, adapter: Path, sent: signal.Signals, after: float) -> str | None:
    """What went wrong with one stopped history, or None."""
    with tempfile.TemporaryDirectory() as nvm, tempfile.TemporaryDirectory() as work:
        process = subprocess.Popen(
            [
                *(str(nvdrive), "history", "--adapter", str(adapter)),
                *("--dir", nvm, "--work", work),
                *("--heap-size", "4M", "--generations", "1000", "--seed", "5"),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        time.sleep(after)
        process.send_signal(sent)
        process.communicate(timeout=PATIENCE_SECONDS)
        if sent is signal.SIGKILL:
            expected = -sent
        else:
            expected = 128 + sent
            if left := list(Path(nvm).iterdir()):
                return f"{sent.name} left {left}"
        if process.returncode != expected:
            return f"{sent.name}: exit code {process.returncode}, not {expected}"
        if not wait_until_none(Path(nvm)):
            return f"{sent.name}: a child lives on"
    return None


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nvdrive", type=Path, required=True)
    parser.add_argument("--adapter", type=Path, required=True)
    options = parser.parse_args()
    for sent in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
        # At several instants: between two steps, in a wait, while a child starts.
        for after in (0.1, 0.137, 0.2, 0.256, 0.31):
            problem = stop(options.nvdrive, options.adapter, sent, after)
            if problem is not None:
                sys.stderr.write(f"{problem}\n")
                return 1
    sys.stdout.write("stopped 15 times, nothing left\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
