# SPDX-License-Identifier: Apache-2.0
"""An "allocator" that is a program of its own (a key-value store): what it runs, what it is spared,
and pmemkv's program itself, on a store that stands in for pmemkv."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from project import HERE, REPOSITORY, Project
from suite.allocators import discover
from suite.errors import BadInput
from suite.images import all_targets

KV = REPOSITORY / "allocators" / "pmemkv" / "kv.py"
YAML = """\
schema: 1
name: store
kind: persistent
consistency: tx
adapter: {{program: run.py{image}}}
workloads: {{larson: {{objects: [10]}}}}
options: {{engine: a}}
variants:
  - {{name: store-b, options: {{engine: b}}, workloads: {{threadtest: {{}}}}}}
"""


def store(project: Project, *, image: str = "", missing: str = "") -> Path:
    """A program in the project that speaks the protocol, with the fake driver's help."""
    folder = project.root / "allocators" / "store"
    folder.mkdir()
    (folder / "allocator.yaml").write_text(YAML.format(image=image))
    refusal = json.dumps({"type": "error", "where": "missing", "message": missing})
    gone = f"if sys.argv[1] == 'info':\n    print({refusal!r}); sys.exit(3)\n" if missing else ""
    (folder / "run.py").write_text(
        f"#!{sys.executable}\nimport sys\nassert '--adapter' not in sys.argv\n{gone}"
        f"sys.argv[0] = {str(HERE / 'fake_nvdrive.py')!r}\nsys.path.insert(0, {str(HERE)!r})\n"
        "import fake_nvdrive\nfake_nvdrive.main()\n"
    )
    (folder / "run.py").chmod(0o755)
    return folder


def test_a_program_runs_what_it_is_made_for_and_nothing_else(project: Project) -> None:
    store(project)
    project.allocator("plain")
    result = project.bench("--repeat", "1", "--survival-cases", "2")
    assert result.returncode == 0, result.stderr
    run = project.run_document()
    ran = {(s["allocator"], s["workload"]) for s in run["samples"] if not s.get("error")}
    assert {pair for pair in ran if pair[0] != "plain"} == {
        ("store", "larson"), ("store-b", "threadtest"),
    }  # fmt: skip
    assert not any(s["observed"] for s in run["samples"] if s["allocator"].startswith("store"))
    assert [verdict["allocator"] for verdict in run["verdicts"]] == ["plain"]
    assert run["environment"]["allocators"]["store"]["program"] is True


def test_a_parameter_that_it_can_t_run_is_left_out(project: Project) -> None:
    store(project)
    project.allocator("plain")
    result = project.bench("-w", "larson", "-p", "objects=10,20", "--survival-cases", "0")
    assert result.returncode == 0, result.stderr
    found = {
        (s["allocator"], s["parameters"]["objects"]) for s in project.run_document()["samples"]
    }
    assert found == {("plain", 10), ("plain", 20), ("store", 10)}


def test_campaigns_refuse_it_by_name(project: Project) -> None:
    store(project)
    result = project.fault("-a", "store", "--cases", "1")
    assert result.returncode == 3
    assert "store has no adapter" in result.stderr


def test_where_it_can_t_be_had_the_run_goes_on_without(project: Project) -> None:
    store(project, missing="no binding")
    project.allocator("plain")
    result = project.bench("-w", "larson", "--survival-cases", "0")
    assert result.returncode == 0, result.stderr
    assert "can't be had here: missing: no binding" in result.stderr
    assert set(project.run_document()["environment"]["skipped"]) == {"store", "store-b"}


def test_an_image_belongs_to_a_program_and_is_made_from_its_folder(project: Project) -> None:
    folder = store(project, image=", image: bullseye")
    assert discover(project.root).select(["store-b"])[0].image == "store"
    assert "store" not in all_targets(project.root)  # no Dockerfile yet
    (folder / "Dockerfile").write_text("FROM x\n")
    target = all_targets(project.root)["store"]
    assert (target.tag, target.base) == ("nvcrucible-store:bullseye", "debian:bullseye-slim")
    (folder / "allocator.yaml").write_text(
        "schema: 1\nname: store\nkind: volatile\nadapter: {sources: [a.c], image: bullseye}\n"
    )
    with pytest.raises(BadInput, match="beside a 'program' only"):
        discover(project.root)


# --- pmemkv's program -----------------------------------------------------------------------

BINDING = """
import os
class Error(Exception): pass
class Database:
    def __init__(self, engine, config):
        assert engine in ("cmap", "stree", "vcmap", "vsmap")
        self.persistent = engine in ("cmap", "stree")
        assert config.get("force_create") == (1 if self.persistent else None)
        if self.persistent:
            open(config["path"], "x").close()
        else:
            assert os.path.isdir(config["path"])
        self.room = config["size"] // 4096
        self.blocks, self.calls = {}, 0
    def put(self, key, value):
        assert isinstance(key, bytes) and len(key) == 8
        self.calls += 1
        if key not in self.blocks and len(self.blocks) >= self.room:
            raise Error("[pmemkv_put] std::bad_alloc")
        broken = os.environ.get("BROKEN") and self.calls > 150
        self.blocks[key] = value[::-1] if broken else value
    def get_string(self, key):
        return self.blocks[key]
    def get_between(self, first, last, found):
        for key in sorted(self.blocks):
            if first < key < last:
                found(key, self.blocks[key].encode())
    def stop(self):
        pass
"""


def kv(tmp_path: Path, *arguments: str, **environment: str) -> tuple[int, dict[str, Any]]:
    (tmp_path / "pmemkv.py").write_text(BINDING)
    heap = tmp_path / "heap"
    short = ["--warmup", "0.01", "--seconds", "0.05", "--latency-seconds", "0.05"]
    command = [
        sys.executable, str(KV), "bench", "--heap", str(heap), "--heap-size", "16M",
        "--param", "records=100", "--param", "value_bytes=16", *short, *arguments,
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False,
        env={"PYTHONPATH": str(tmp_path), "PATH": os.defpath, **environment},
    )  # fmt: skip
    assert not heap.exists()
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("mix", range(6))
def test_every_mix_runs_and_reads_back_what_it_wrote(tmp_path: Path, mix: int) -> None:
    engine = "stree" if mix == 4 else "cmap"
    code, result = kv(tmp_path, "--options", f"engine={engine}", "--param", f"mix={mix}")
    assert code == 0, result
    assert result["type"] == "result"
    assert result["parameters"]["mix"] == mix
    assert result["ops"] > 0
    assert result["ops_per_s"] == pytest.approx(result["ops"] / result["seconds"])
    latency = result["latency"]
    assert sum(count for _, count in latency["counts"]) == latency["samples"] > 0
    assert all(
        low < 2048 or low % (1 << (low.bit_length() - 11)) == 0 for low, _ in latency["counts"]
    )


def test_two_threads_share_the_load(tmp_path: Path) -> None:
    code, result = kv(tmp_path, "--threads", "2", "--param", "mix=3")
    assert (code, result["threads"]) == (0, 2)


def test_a_wrong_value_is_a_wrong_answer(tmp_path: Path) -> None:
    code, answer = kv(tmp_path, BROKEN="1")
    assert (code, answer["where"]) == (4, "sweep")


@pytest.mark.parametrize(
    ("arguments", "code", "where", "message"),
    [
        (["--param", "mix=4"], 3, "missing", "no order"),
        (["--param", "index=1"], 3, "missing", "hash table"),
        (["--options", "engine=stree", "--threads", "2"], 3, "missing", "one thread"),
        (["--options", "engine=radix"], 2, "usage", "cmap, stree, vcmap, vsmap"),
        (["--param", "colour=3"], 2, "usage", "colour"),
        (["--heap-size", "64K"], 3, "bench", "bad_alloc"),
    ],
)
def test_what_can_t_be_done_is_said(
    tmp_path: Path, arguments: list[str], code: int, where: str, message: str
) -> None:
    found, answer = kv(tmp_path, *arguments)
    assert (found, answer["type"], answer["where"]) == (code, "error", where)
    assert message in answer["message"]


def test_without_the_binding_it_says_where_to_get_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-S", str(KV), "info"], capture_output=True, text=True, timeout=60, check=False,
        env={"PATH": os.defpath, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 3
    assert "python3-pmemkv" in json.loads(done.stdout)["message"]


def test_choices_follow_zipf_s_law(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(KV.parent))
    import kv as program

    assert program.fnv1a(0) == 0xA8C7F832281A39C5  # of eight zero bytes, by the reference code
    zipf = program.Zipf(1000)
    draws = [zipf.rank((i + 0.5) / 100_000) for i in range(100_000)]
    assert (min(draws), max(draws) < 1000) == (0, True)
    expected = 1 / zipf.zeta
    assert draws.count(0) / 100_000 == pytest.approx(expected, rel=0.01)
    assert draws.count(1) / 100_000 == pytest.approx(expected / 2**0.99, rel=0.01)
    tenth = sum(1 / (rank + 1) ** 0.99 for rank in range(100)) / zipf.zeta
    assert sum(rank < 100 for rank in draws) / 100_000 == pytest.approx(tenth, rel=0.02)
