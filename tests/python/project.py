# SPDX-License-Identifier: Apache-2.0
"""A small project around the fake driver, and the way to the native build."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from suite.cli import app

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
WORKLOAD = """\
schema: 1
name: {name}
summary: a workload of the tests
heap: 4M
parameters:
  objects: {{type: int, default: 100, min: 1, max: 1000, help: objects}}
profiles:
  quick: {{objects: 10}}
"""


@dataclass
class Project:
    """A checkout in miniature whose driver is fake_nvdrive.py."""

    root: Path
    build: Path
    pm: Path
    results: Path
    temporary: Path
    environment: dict[str, str] = field(default_factory=dict)

    def allocator(self, name: str, *, outside: Path | None = None, **behaviour: Any) -> Path:
        """Adds an allocator that behaves so; returns its folder."""
        kind = behaviour.setdefault("kind", "persistent")
        parent = self.root / "allocators" if outside is None else outside
        folder = parent / name
        folder.mkdir(parents=True)
        origin = "sources: [adapter.c]" if outside is None else "library: adapter.so"
        (folder / "allocator.yaml").write_text(
            textwrap.dedent(
                f"""\
                schema: 1
                name: {name}
                summary: an allocator of the tests
                kind: {kind}
                consistency: {"log" if kind == "persistent" else "none"}
                adapter:
                  {origin}
                """
            )
        )
        (folder / "adapter.c").write_text("")
        target = (
            self.build / "allocators" / f"{name}.so" if outside is None else folder / "adapter.so"
        )
        target.write_text(json.dumps(behaviour))
        return folder

    def workload(self, name: str) -> None:
        (self.root / "workloads" / f"{name}.yaml").write_text(WORKLOAD.format(name=name))

    def command(self, *arguments: str | Path) -> list[str]:
        return [sys.executable, "-m", "suite.cli", *map(str, arguments)]

    def run(self, *arguments: str | Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=self.root,
            check=False,
        )

    def invoke(self, *arguments: str) -> Result:
        """The same in this process, which is faster; for commands that run no job."""
        return CliRunner().invoke(app, list(arguments), env=self.environment)

    def bench(self, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """A short bench with the local runner."""
        return self.run(
            "bench", *self.common(), "--profile", "quick", "-t", "1", *arguments, **options
        )

    def fault(self, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.run("fault", *self.common(), *arguments, **options)

    def common(self) -> list[str]:
        return [
            "--runner", "local", "--pm", str(self.pm), "--out", str(self.results), "--seed", "7",
        ]  # fmt: skip

    def run_document(self) -> dict[str, Any]:
        """The one run.json under results."""
        (file,) = self.results.glob("*/run.json")
        document: dict[str, Any] = json.loads(file.read_text())
        return document

    def leftovers(self) -> list[Path]:
        """What a command has left on the NVM or among the temporary files."""
        return [*self.pm.iterdir(), *self.temporary.iterdir()]
