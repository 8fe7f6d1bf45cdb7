# SPDX-License-Identifier: Apache-2.0
"""Runs the SIGKILL campaign of ``nvdrive`` on one known-bad (or the good) allocator.

A bad one (its folder has an ``expected.yaml``) must be caught within ``--cases``
histories with the principal kind of verdict, and up to then with no kind that is not
listed; verifying copies of the evidence must repeat the verdict ``--replays`` times of
as many. A good one must pass them all.
Exit code 0 if so; 1 with a sentence on standard error if not.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

EXIT_OK = 0
EXIT_INCORRECT = 4


class CampaignError(Exception):
    """The allocator was judged otherwise than it must be, or could not be judged."""


@dataclass(frozen=True)
class Campaign:
    """What to run, and where its files go."""

    nvdrive: Path
    adapter: Path
    nvm: Path
    timeout: float
    threads: int

    def run(self, arguments: Sequence[str]) -> dict[str, Any]:
        """One ``nvdrive`` command; its last document, which must be a verdict."""
        command = [str(self.nvdrive), arguments[0], "--adapter", str(self.adapter)]
        done = subprocess.run(
            [*command, *arguments[1:]], stdout=subprocess.PIPE, text=True, check=False
        )
        lines = done.stdout.splitlines()
        if done.returncode not in (EXIT_OK, EXIT_INCORRECT) or not lines:
            raise CampaignError(f"{' '.join(arguments)} ended with {done.returncode}: {lines}")
        last: dict[str, Any] = json.loads(lines[-1])
        if last.get("type") != "verdict":
            raise CampaignError(f"{' '.join(arguments)} gave no verdict: {lines[-1]}")
        if (last["verdict"] == "ok") != (done.returncode == EXIT_OK):
            raise CampaignError(f"exit code {done.returncode} with verdict {last['verdict']}")
        return last

    def history(self, seed: int, work: Path) -> dict[str, Any]:
        """One whole case."""
        return self.run(
            [
                "history",
                *("--dir", str(self.nvm)),
                *("--work", str(work)),
                *("--seed", str(seed)),
                *("--timeout", str(self.timeout)),
                *("--threads", str(self.threads)),
            ]
        )

    def replay(self, work: Path) -> dict[str, Any]:
        """Shows a case again, as its ``replay.json`` says, on copies of its evidence."""
        case = json.loads((work / "replay.json").read_text(encoding="utf-8"))
        with tempfile.TemporaryDirectory(dir=self.nvm) as folder:
            if case["arguments"][0] == "history":
                return self.run([*case["arguments"], "--dir", folder, "--work", f"{folder}/work"])
            heap, journal = Path(folder) / "heap", Path(folder) / "journal"
            shutil.copyfile(work / case["heap"], heap)
            shutil.copyfile(work / case["journal"], journal)
            return self.run([*case["arguments"], "--heap", str(heap), "--journal", str(journal)])


def expected_verdicts(folder: Path) -> list[str]:
    """The kinds that a bad allocator's folder asks for; none for a good one."""
    file = folder / "expected.yaml"
    if not file.exists():
        return []
    verdicts = yaml.safe_load(file.read_text(encoding="utf-8"))["verdicts"]
    if not isinstance(verdicts, list) or not verdicts:
        raise CampaignError(f"{file}: verdicts must be a list")
    return [str(verdict) for verdict in verdicts]


def require_pass(campaign: Campaign, cases: int, work: Path) -> str:
    """Every history of the good allocator is ``ok``."""
    for seed in range(1, cases + 1):
        verdict = campaign.history(seed, work)
        if verdict["verdict"] != "ok":
            raise CampaignError(f"seed {seed}: a good allocator was accused: {verdict}")
    return f"{cases} of {cases} ok"


def require_catch(
    campaign: Campaign, expected: list[str], cases: int, replays: int, work: Path
) -> str:
    """A history fails with the principal kind, and so does every replay of it."""
    for seed in range(1, cases + 1):
        verdict = campaign.history(seed, work)
        if verdict["verdict"] == "ok":
            continue
        if verdict["verdict"] not in expected:
            raise CampaignError(f"seed {seed}: {expected[0]} was expected: {verdict}")
        if verdict["verdict"] != expected[0]:
            continue
        for turn in range(1, replays + 1):
            again = campaign.replay(work)
            if again["verdict"] != verdict["verdict"]:
                raise CampaignError(f"seed {seed}, replay {turn}: {again} after {verdict}")
        return f"caught by case {seed}, {replays} replays: {verdict['detail']}"
    raise CampaignError(f"not caught in {cases} cases")


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nvdrive", type=Path, required=True)
    parser.add_argument("--adapter", type=Path, required=True, help="the built adapter")
    parser.add_argument("--folder", type=Path, required=True, help="the allocator's folder")
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--replays", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=20.0, help="seconds of one step")
    options = parser.parse_args()
    # tmpfs stands in for the NVM; a temporary folder is made in it.
    shared_memory = Path("/dev/shm")  # noqa: S108
    parent = shared_memory if shared_memory.is_dir() else None
    with (
        tempfile.TemporaryDirectory(dir=parent, prefix="known-bad-") as nvm,
        tempfile.TemporaryDirectory(prefix="known-bad-") as work,
    ):
        campaign = Campaign(
            options.nvdrive, options.adapter, Path(nvm), options.timeout, options.threads
        )
        try:
            expected = expected_verdicts(options.folder)
            if expected:
                said = require_catch(campaign, expected, options.cases, options.replays, Path(work))
            else:
                said = require_pass(campaign, options.cases, Path(work))
        except CampaignError as error:
            sys.stderr.write(f"{options.adapter.stem}: {error}\n")
            return 1
    sys.stdout.write(f"{options.adapter.stem}: {said}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
