# SPDX-License-Identifier: Apache-2.0
"""Every mistake gets one paragraph that says what to do, and the right exit code."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from project import Project
from test_commands import assert_one_paragraph

INSPECT_ERRORS = {
    "foreign": (
        "EMEDIUMTYPE",
        "the file does not begin with a heap's magic number",
        "that nvmalloc made",
    ),
    "truncated": ("EUCLEAN", "the file is 4096 bytes, its header says 8 MiB", "Restore the file"),
    "newer": ("ENOTSUP", "format 9 is newer than 1", "a newer one"),
}


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["bench", "-a", "nvmaloc"], 2, ["'nvmaloc'", "did you mean 'nvmalloc'"]),
        (["bench", "-w", "larsn"], 2, ["'larsn'", "did you mean 'larson'"]),
        (["bench", "-t", "1,x"], 2, ["'x'", "thread counts"]),
        (["bench", "-t", "0"], 2, ["thread counts"]),
        (["bench", "--profile", "fast"], 2, ["'fast'", "quick, default, full"]),
        (["bench", "--repeat", "0"], 2, ["--repeat"]),
        (["bench", "--seconds", "soon"], 2, ["'soon'", "60s"]),
        (["bench", "--baseline", "pdmk"], 2, ["no allocator called 'pdmk'"]),
        (["bench", "--runner", "locl"], 2, ["'locl'", "did you mean 'local'"]),
        (["bench", "--seed", "-1"], 2, ["--seed"]),
        (["bench", "--allocator-path", "/nowhere"], 2, ["/nowhere", "no such folder"]),
        (["bench", "--name", "../up"], 2, ["'../up'", "can't name a folder"]),
        (["fault", "-f", "sigkil"], 2, ["'sigkil'", "did you mean 'sigkill'"]),
        (["fault", "-f", "sunspots"], 2, ["'sunspots'", "Known: sigkill"]),
        (["fault", "--cases", "0"], 2, ["--cases"]),
        (["fault", "--cases", "3", "--budget", "3s"], 2, ["--cases and --budget"]),
        (["fault", "-a", "plain"], 3, ["plain is volatile"]),
        (["fault", "-n", "0"], 2, ["-n"]),
        (["list", "alocators"], 2, ["did you mean 'allocators'"]),
        (["report", "/nowhere"], 2, ["/nowhere", "can't be read"]),
        (["report"], 2, ["holds no run yet"]),
        (["replay", "/nowhere"], 2, ["/nowhere", "can't be read"]),
        (["inspect", "/nowhere"], 2, ["/nowhere", "does not exist"]),
        (["inspect", "/"], 2, ["is no file"]),
        (["bench", "--pm", "/nowhere"], 3, ["/nowhere does not exist", "--pm DIR"]),
        (["fault", "--pm", "/nowhere"], 3, ["/nowhere does not exist", "--pm DIR"]),
        (["bench", "--pm", "/etc/passwd"], 3, ["is a file"]),
    ],
)
def test_mistakes(project: Project, arguments: list[str], code: int, expected: list[str]) -> None:
    project.allocator("nvmalloc")
    project.allocator("plain", kind="volatile")
    if arguments[0] in ("bench", "fault"):
        stated = "--pm" in arguments
        arguments = [*arguments, "--out", str(project.results)]
        arguments += [] if stated else ["--pm", str(project.pm)]
        arguments += [] if "--runner" in arguments else ["--runner", "local"]
    result = project.invoke(*arguments)
    assert result.exit_code == code, result.stderr
    message = assert_one_paragraph(result.stderr)
    for part in expected:
        assert part in message
    assert result.stdout == ""
    with_json = project.invoke(*arguments, "--json")
    assert with_json.exit_code == code
    document = json.loads(with_json.stdout)
    assert document["error"]["exit_code"] == code
    assert expected[0] in document["error"]["message"]
    assert project.leftovers() == []


def test_an_unknown_option_is_usage(project: Project) -> None:
    result = project.run("bench", "--colour")
    assert result.returncode == 2
    assert "--colour" in result.stderr


def test_a_malformed_yaml_file(project: Project) -> None:
    folder = project.allocator("typo")
    path = folder / "allocator.yaml"
    path.write_text(path.read_text().replace("kind: persistent", "kind: presistent"))
    result = project.run("list")
    assert result.returncode == 2
    message = assert_one_paragraph(result.stderr)
    assert "allocators/typo/allocator.yaml, line 4, key 'kind': found 'presistent'" in message


def test_a_read_only_file_system(project: Project) -> None:
    project.allocator("good")
    result = project.run("bench", "--pm", "/proc", "--runner", "local", "--out", project.results)
    assert result.returncode == 3
    message = assert_one_paragraph(result.stderr)
    assert "/proc (proc) can't be written" in message
    assert "--pm DIR" in message


def test_a_directory_that_is_too_small(project: Project) -> None:
    project.allocator("good")
    (project.root / "workloads" / "vast.yaml").write_text("schema: 1\nname: vast\nheap: 900000G\n")
    result = project.bench("-w", "vast")
    assert result.returncode == 3
    message = assert_one_paragraph(result.stderr)
    assert "MiB free" in message
    assert "--pm DIR" in message


def test_results_that_can_t_be_written(project: Project) -> None:
    project.allocator("good")
    project.results.write_text("a file")
    result = project.bench()
    assert result.returncode == 3
    assert "Results can't be written" in assert_one_paragraph(result.stderr)
    assert project.leftovers() == []


def test_a_build_that_is_not_there(project: Project) -> None:
    project.allocator("good")
    project.environment["NVCRUCIBLE_BUILD"] = str(project.root)
    result = project.bench()
    assert result.returncode == 3
    assert "no workloads/nvdrive" in assert_one_paragraph(result.stderr)


def test_a_prebuilt_library_that_is_not_there(project: Project, tmp_path: Path) -> None:
    folder = project.allocator("guest", outside=tmp_path / "outside")
    (folder / "adapter.so").unlink()
    result = project.bench("--allocator-path", folder, "-a", "guest")
    assert result.returncode == 3
    assert "prebuilt adapter 'adapter.so'" in assert_one_paragraph(result.stderr)


def test_docker_present_but_refusing(project: Project) -> None:
    project.allocator("good")
    socket = project.temporary / "docker.sock"
    project.environment["DOCKER_HOST"] = f"unix://{socket}"
    asked = project.run("bench", "--runner", "docker", "--pm", project.pm, "--out", project.results)
    assert asked.returncode == 3
    assert "Docker" in assert_one_paragraph(asked.stderr)
    auto = project.run(
        "fault", "--runner", "auto", "--cases", "1", "--pm", project.pm, "--out", project.results
    )
    assert auto.returncode == 0, auto.stderr
    assert sum(line.startswith("runner: local (") for line in auto.stderr.splitlines()) == 1


def inspector(project: Project, body: str) -> None:
    program = project.build / "allocators" / "nvmalloc" / "nvm-inspect"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)


@pytest.mark.parametrize("kind", INSPECT_ERRORS)
def test_heaps_that_can_t_be_inspected(project: Project, kind: str) -> None:
    error, text, advice = INSPECT_ERRORS[kind]
    document = {"type": "error", "where": "header", "error": error, "message": text}
    inspector(project, f"echo {shlex.quote(json.dumps(document))}; exit 3")
    heap = project.pm / "heap"
    heap.write_bytes(b"x")
    result = project.run("inspect", heap)
    assert result.returncode in (2, 3)
    message = assert_one_paragraph(result.stderr)
    for part in (str(heap), text, advice):
        assert part in message


def test_a_heap_is_drawn(project: Project) -> None:
    document = {
        "type": "heap", "format": 1, "heap_bytes": 8388608, "clean": True,
        "size_classes": [{"size": 64, "slabs": 2, "blocks": 2000, "used": 500}],
        "lanes": [{"lane": 0, "records": 7}], "roots": [], "damage": [],
    }  # fmt: skip
    inspector(project, f"echo {shlex.quote(json.dumps(document))}")
    heap = project.pm / "heap"
    heap.write_bytes(b"x")
    result = project.run("inspect", heap)
    assert result.returncode == 0, result.stderr
    for part in ("8,388,608", "######.................. 25 %".replace(" 25", "  25"), "No damage"):
        assert part in result.stdout
    assert json.loads(project.run("inspect", heap, "--json").stdout) == document


def test_an_inspector_that_breaks(project: Project) -> None:
    inspector(project, "echo broken >&2; exit 1")
    heap = project.pm / "heap"
    heap.write_bytes(b"x")
    result = project.run("inspect", heap)
    assert result.returncode == 3
    assert "broken" in assert_one_paragraph(result.stderr)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "is not JSON"),
        ('{"schema": 9}', "a newer nvcrucible"),
        ("[]", "found schema None"),
        ('{"schema": 1, "name": "x"}', "key 'command'"),
    ],
)
def test_runs_that_are_none(project: Project, text: str, expected: str) -> None:
    path = project.results / "run.json"
    path.parent.mkdir()
    path.write_text(text)
    result = project.run("report", path)
    assert result.returncode == 2
    assert expected in assert_one_paragraph(result.stderr)
