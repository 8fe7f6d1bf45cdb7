# SPDX-License-Identifier: Apache-2.0
"""Unmodified programs on libnvmalloc-preload.so: what they print is what they print without it.

Short by default; NVM_PRELOAD_FULL=1 (`make preload-programs`) takes the sizes of docs/preload.md:
a database of 100 MB, redis for 30 seconds, ten million operations of 16 threads.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from project import REPOSITORY

pytestmark = pytest.mark.native

FULL = os.environ.get("NVM_PRELOAD_FULL") == "1"
PYTHON = "/usr/bin/python3"  # Debian's, whose tests libpython3-testsuite brings
NVMALLOC = REPOSITORY / "allocators" / "nvmalloc"


@dataclass
class Preload:
    """Programs with the library and without."""

    library: Path
    folder: Path
    work: Path

    @property
    def report_file(self) -> Path:
        return self.work / "report.jsonl"

    def environment(self, **more: str) -> dict[str, str]:
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LC_ALL": "C.UTF-8",
            "HOME": str(self.work),
            "LD_PRELOAD": str(self.library),
            "NVM_MALLOC_HEAP": str(self.folder / "heap"),
            "NVM_MALLOC_REPORT": str(self.report_file),
            **more,
        }

    def run(
        self,
        *command: str | Path,
        preloaded: bool = True,
        timeout: float = 300,
        more: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        environment = self.environment(**(more or {}))
        if not preloaded:
            environment = {
                key: value
                for key, value in environment.items()
                if key != "LD_PRELOAD" and not key.startswith("NVM_MALLOC")
            }
        return subprocess.run(
            [str(part) for part in command],
            env=environment,
            cwd=self.work,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def both(self, *command: str | Path, timeout: float = 300) -> tuple[str, str]:
        """What the program prints without and with the library, at the same time; both succeed."""

        def output(preloaded: bool) -> str:
            result = self.run(*command, preloaded=preloaded, timeout=timeout)
            assert result.returncode == 0, result.stderr + result.stdout
            return result.stdout + result.stderr

        with ThreadPoolExecutor(2) as threads:
            without, with_library = threads.map(output, (False, True))
        return without, with_library

    def reports(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.report_file.read_text().splitlines()]

    def peak(self, program: str) -> int:
        """The largest peak of the processes of that name."""
        return max(int(one["peak_bytes"]) for one in self.reports() if one["program"] == program)


@pytest.fixture
def preload(native_build: Path, tmp_path: Path) -> Iterator[Preload]:
    shared = Path("/dev/shm")
    folder = (shared if os.access(shared, os.W_OK) else tmp_path) / f"preload-{os.getpid()}"
    folder.mkdir()
    library = native_build / "allocators" / "nvmalloc" / "preload" / "libnvmalloc-preload.so"
    assert library.is_file(), f"{library} has not been built"
    yield Preload(library, folder, tmp_path)
    left = list(folder.iterdir())
    shutil.rmtree(folder)
    assert not left, f"heap files are left: {left}"


def need(program: str, package: str) -> str:
    found = shutil.which(program, path="/usr/local/bin:/usr/bin:/bin")
    if found is None:
        pytest.skip(f"{program} is not installed (Debian: {package})")
    return found


# --- whole programs ---


def test_cpython_passes_its_own_tests(preload: Preload) -> None:
    need(PYTHON, "python3")
    modules = ("test_json", "test_dict", "test_threading")
    there = [PYTHON, "-c", "import test." + ", test.".join(modules)]
    if subprocess.run(there, capture_output=True, check=False).returncode != 0:
        pytest.skip("CPython's tests are not installed (Debian: libpython3.11-testsuite)")

    def verdicts(output: str) -> list[str]:
        found = re.compile(r"^(test\w* \(.*\)).*?\.\.\. (ok|skipped .*)?", re.MULTILINE)
        return [f"{name}: {verdict}" for name, verdict in found.findall(output)]

    # Started from a job in the background, SIGINT is ignored, and interrupt_main() does nothing.
    command = ("env", "--default-signal=INT", PYTHON, "-m", "test", "-v", *modules)
    without, with_library = preload.both(*command, timeout=600)
    assert "Tests result: SUCCESS" in with_library
    assert len(verdicts(without)) > 300
    assert verdicts(with_library) == verdicts(without)
    whole = max(preload.reports(), key=lambda report: report["forks"])
    assert whole["forks"] > 10  # test_threading forks beside threads
    assert whole["peak_bytes"] > 10 << 20


def test_sqlite_builds_and_queries_a_database(preload: Preload) -> None:
    sqlite = need("sqlite3", "sqlite3")
    megabytes = 100 if FULL else 10
    rows = megabytes * 1600  # of some 640 bytes, with its index
    script = preload.work / "build.sql"
    script.write_text(
        textwrap.dedent("""\
        PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -200000;
        CREATE TABLE part (id INTEGER PRIMARY KEY, name TEXT, weight INTEGER, text TEXT);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ROWS)
          INSERT INTO part SELECT i, 'part-' || (i * 7919 % 100003), i * 31 % 1009,
            printf('%.*c', 400 + i % 300, char(97 + i % 26)) FROM n;
        CREATE INDEX by_name ON part (name, weight);
        ANALYZE;
        SELECT count(*), sum(weight), sum(length(text)) FROM part;
        SELECT weight, count(*), min(name), max(name) FROM part GROUP BY weight ORDER BY 2, 1;
        SELECT a.name, b.id FROM part a JOIN part b ON a.name = b.name AND a.id < b.id
          ORDER BY a.name, b.id LIMIT 5000;
        SELECT name, group_concat(id) FROM (SELECT * FROM part ORDER BY text DESC, id LIMIT 3000)
          GROUP BY name ORDER BY name;
        DELETE FROM part WHERE id % 3 = 0; VACUUM;
        SELECT count(*), sum(id) FROM part WHERE name > 'part-5'; PRAGMA integrity_check;
        """).replace("ROWS", str(rows))
    )
    outputs, files = [], []
    for preloaded in (False, True):
        database = preload.work / "parts.db"
        result = preload.run(sqlite, database, f".read {script}", preloaded=preloaded, timeout=300)
        assert result.returncode == 0, result.stderr
        assert database.stat().st_size > megabytes * 600_000  # after a third was deleted
        outputs.append(result.stdout)
        files.append(hashlib.sha256(database.read_bytes()).hexdigest())
        database.unlink()
    assert outputs[0].count("\n") > 1000
    assert outputs[0].endswith("ok\n")
    assert outputs[1] == outputs[0]
    assert files[1] == files[0]
    assert preload.peak("sqlite3") > megabytes << 20


def test_gcc_compiles_nvmalloc(preload: Preload) -> None:
    gcc = need("gcc", "gcc")
    tree = preload.work / "nvmalloc"  # a copy, in case somebody is at work on it
    shutil.copytree(NVMALLOC, tree)
    sources = sorted((tree / "src").glob("*.c"), key=lambda path: path.name)
    if not FULL:
        sources = [path for path in sources if path.name in ("heap.c", "vmem.c", "recover.c")]
    objects: list[list[str]] = []
    for preloaded in (False, True):
        digests = []
        for source in sources:
            result = preload.run(
                gcc, "-D_GNU_SOURCE", "-std=c11", "-O2", "-g", "-I", tree / "include",
                "-c", source, "-o", preload.work / "out.o", preloaded=preloaded,
            )  # fmt: skip
            assert result.returncode == 0, result.stderr
            assert result.stderr == ""
            digests.append(hashlib.sha256((preload.work / "out.o").read_bytes()).hexdigest())
        objects.append(digests)
    assert len(objects[0]) >= 3
    assert objects[1] == objects[0]
    # The driver, the compiler and the assembler, each with a heap of its own.
    assert {"cc1", "as"} <= {report["program"] for report in preload.reports()}
    assert preload.peak("cc1") > 5 << 20


def ask(path: Path, *commands: str) -> str:
    """Answers of a redis server."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(path))
        connection.sendall("".join(command + "\r\n" for command in commands).encode())
        connection.shutdown(socket.SHUT_WR)
        return connection.makefile().read()


def redis_session(preload: Preload, preloaded: bool, seconds: float) -> tuple[str, int]:
    """A redis server under its own benchmark: the digest of its data, made by a fixed stream of
    commands, saved by a forked child and loaded again; and requests of the benchmark."""
    place = preload.work / f"redis-{preloaded}"
    place.mkdir()
    address = Path(tempfile.mkdtemp(prefix="nvm-")) / "redis"  # paths of sockets are short
    environment = preload.environment()
    if not preloaded:
        del environment["LD_PRELOAD"]
    command = [
        "/usr/bin/redis-server", "--port", "0", "--unixsocket", str(address), "--dir", str(place),
        "--save", "", "--logfile", str(place / "log"), "--enable-debug-command", "yes",
    ]  # fmt: skip

    def start() -> subprocess.Popen[bytes]:
        server = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)
        for _ in range(300):
            try:
                if "PONG" in ask(address, "PING"):
                    return server
            except OSError:
                time.sleep(0.1)
        server.kill()
        raise AssertionError((place / "log").read_text())

    server = start()
    try:
        requests, end = 0, time.monotonic() + seconds
        while time.monotonic() < end or requests == 0:
            result = subprocess.run(
                ["/usr/bin/redis-benchmark", "-s", str(address), "-q", "-n", "10000", "-c", "20",
                 "-r", "20000", "-d", "200", "-t", "set,get,incr,lpush,lpop,sadd,hset,zadd,mset"],
                capture_output=True, text=True, timeout=300, check=True,
            )  # fmt: skip
            done = re.findall(r"requests per second", result.stdout)
            assert len(done) == 9, result.stdout
            requests += 10000 * len(done)
        stream = [f"SET key:{i} {'v' * (i % 700)}" for i in range(4000)]
        stream += [f"HSET hash:{i % 50} field:{i} {i}" for i in range(4000)]
        stream += [f"ZADD sorted:{i % 7} {i} member:{i}" for i in range(4000)]
        assert ask(address, "FLUSHALL", *stream).count("\n") == 12001
        before = ask(address, "DEBUG DIGEST")
        assert "Background saving started" in ask(address, "BGSAVE")
        for _ in range(600):
            if "rdb_bgsave_in_progress:0" in ask(address, "INFO persistence"):
                break
            time.sleep(0.1)
        assert "rdb_last_bgsave_status:ok" in ask(address, "INFO persistence")
        assert ask(address, "DEBUG RELOAD") == "+OK\n"
        assert ask(address, "DEBUG DIGEST") == before
        ask(address, "SHUTDOWN NOSAVE")
        assert server.wait(60) == 0
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(address.parent)
    return before, requests


def test_redis_serves_its_benchmark(preload: Preload) -> None:
    need("redis-server", "redis-server")
    need("redis-benchmark", "redis-tools")
    without, _ = redis_session(preload, False, 0)
    with_library, requests = redis_session(preload, True, 30 if FULL else 2)
    assert len(without) == 42
    assert with_library == without
    assert requests >= 90000
    assert preload.peak("redis-server") > 5 << 20


def test_sixteen_threads_and_more_of_them(preload: Preload, native_build: Path) -> None:
    """The C test of 16 threads with many operations, or few; meson runs it with its own number."""
    tests = native_build / "allocators" / "nvmalloc" / "preload" / "tests"
    program = tests / "test_preload_threads"
    if not program.is_file():
        pytest.skip(f"{program} has not been built (meson's option tests)")
    result = preload.run(
        program,
        more={
            "PRELOAD_STRESS": "600000" if FULL else "30000",
            "PRELOAD_PLUGIN": str(tests / "preload_plugin.so"),
        },
    )
    assert result.returncode == 0, result.stderr
    assert "[       OK ] test_stress" in result.stdout


# --- where the heap is, and what becomes of it ---

HELLO = ("/bin/sh", "-c", "echo hello")


def test_without_a_heap_no_program_runs(preload: Preload) -> None:
    cases = {
        "NVM_MALLOC_HEAP is not set": {"NVM_MALLOC_HEAP": ""},
        "NVM_MALLOC_SIZE=plenty: expected": {"NVM_MALLOC_SIZE": "plenty"},
        "NVM_MALLOC_SIZE=10K: expected": {"NVM_MALLOC_SIZE": "10K"},
        "ENOENT": {"NVM_MALLOC_HEAP": str(preload.folder / "nowhere" / "heap")},
        "can be made": {"NVM_MALLOC_HEAP": "/proc/heap"},
    }
    for message, environment in cases.items():
        result = preload.run(*HELLO, more=environment)
        assert result.returncode == 125, message
        assert result.stdout == ""
        assert message in result.stderr
        assert result.stderr.startswith("nvmalloc-preload: ")


def test_every_process_has_a_file_of_its_own(preload: Preload) -> None:
    program = textwrap.dedent("""\
        import os, re, subprocess, sys
        def heap():
            with open("/proc/self/maps") as maps:
                lines = [line for line in maps if "/heap." in line]
            return {tuple(line.split()[3:6]) for line in lines}
        print(*heap(), flush=True)
        if len(sys.argv) == 1:
            if os.fork() == 0:
                print(*heap(), flush=True)
                os._exit(0)
            os.wait()
            subprocess.run([sys.executable, sys.argv[0], "leaf"], check=True)
        """)
    script = preload.work / "heaps.py"
    script.write_text(program)
    result = preload.run(PYTHON, script)
    assert result.returncode == 0, result.stderr
    heaps = result.stdout.splitlines()
    assert len(set(heaps)) == 3
    assert all("/heap." in heap for heap in heaps)


def test_a_killed_process_leaves_nothing(preload: Preload) -> None:
    """Its file has no name from the start: the kernel frees it with the last mapping."""
    program = "import time; data = bytearray(200 << 20); print('ready', flush=True); time.sleep(60)"
    process = subprocess.Popen(
        [PYTHON, "-c", program], env=preload.environment(), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    maps = Path(f"/proc/{process.pid}/maps").read_text()
    heap = re.search(rf"rw-s .*{re.escape(str(preload.folder))}/heap\.(\d+)\.0 \(deleted\)", maps)
    assert heap is not None, maps
    assert int(heap[1]) == process.pid
    assert list(preload.folder.iterdir()) == []
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert list(preload.folder.iterdir()) == []


def test_a_full_heap_is_a_memory_error(preload: Preload) -> None:
    program = textwrap.dedent("""\
        taken = []
        try:
            while True:
                taken.append(bytearray(1 << 20))
        except MemoryError:
            count = len(taken)
            del taken
            print("MemoryError", count, len(bytearray(50 << 20)))
        """)
    result = preload.run(PYTHON, "-c", program, more={"NVM_MALLOC_SIZE": "100M"})
    assert result.returncode == 0, result.stderr
    error, count, again = result.stdout.split()
    assert error == "MemoryError"
    assert 80 < int(count) < 100
    assert int(again) == 50 << 20


def test_the_report(preload: Preload) -> None:
    program = "import sys; data = bytearray(64 << 20)"
    result = preload.run(PYTHON, "-c", program, more={"NVM_MALLOC_REPORT": "1"})
    assert result.returncode == 0
    found = re.search(r"peak NVM use (\d+) bytes \((\d+)\.\d MiB\)", result.stderr)
    assert found is not None, result.stderr
    assert 64 << 20 < int(found[1]) < 90 << 20
    assert int(found[2]) == int(found[1]) >> 20
    # Nothing is said unless asked for.
    assert preload.run(PYTHON, "-c", program, more={"NVM_MALLOC_REPORT": ""}).stderr == ""
    assert preload.run(PYTHON, "-c", program).stderr == ""
    (report,) = preload.reports()
    assert report["program"] in ("python3", Path(PYTHON).resolve().name)
    assert 64 << 20 < report["peak_bytes"] < 90 << 20
    assert report["forks"] == 0
    assert report["live_bytes"] <= report["file_bytes"] <= report["max_bytes"]


def test_file_size_limits_are_kept(preload: Preload) -> None:
    """A limit on files is one on the heap: it never gets a signal for a file that is too long."""
    limited = subprocess.run(
        [PYTHON, "-c", "print(len(bytearray(300 << 20)))"],
        env=preload.environment(),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100 << 20, 100 << 20)),
    )
    assert limited.returncode == 1, limited.stderr
    assert "MemoryError" in limited.stderr


def test_the_document_names_it_all(preload: Preload) -> None:
    """Variables and functions in docs/preload.md are those of the library."""
    document = (REPOSITORY / "docs" / "preload.md").read_text()
    source = "".join(path.read_text() for path in (NVMALLOC / "preload").glob("*.c"))
    variables = set(re.findall(r'getenv\("(NVM_MALLOC_\w+)"\)', source))
    assert variables == set(re.findall(r"^\| `(NVM_MALLOC_\w+)`", document, re.MULTILINE))
    assert len(variables) == 3
    exported = (NVMALLOC / "preload" / "preload.map").read_text()
    for name in re.findall(r"(\w+);", exported.partition("local:")[0]):
        assert re.search(rf"\b{name}\b", document), f"docs/preload.md says nothing of {name}"
    command = re.search(r"```sh\n(LD_PRELOAD=.*?)```", document, re.DOTALL)
    assert command is not None
    script = command[1].replace("build/allocators/nvmalloc/preload", str(preload.library.parent))
    script = script.replace("/mnt/pmem0/heap", str(preload.folder / "heap"))
    result = preload.run("/bin/sh", "-c", script, preloaded=False)
    assert re.match(r"nvmalloc-preload: python3.* peak NVM use \d+ bytes", result.stderr)


def test_it_exports_the_family_and_nothing_else(preload: Preload) -> None:
    need("nm", "binutils")
    listing = subprocess.run(
        ["nm", "-D", "--defined-only", preload.library], capture_output=True, text=True, check=True
    ).stdout
    names = {line.split()[-1].partition("@")[0] for line in listing.splitlines()}
    family = (
        "malloc calloc realloc reallocarray free cfree memalign posix_memalign aligned_alloc "
        "valloc pvalloc malloc_usable_size malloc_trim malloc_stats mallinfo mallinfo2 fork _Fork"
    )
    assert names == set(family.split())


# --- the workload `programs` ---


def bench(
    build: Path, preload: Preload, case: str, *options: str, path: str = ""
) -> tuple[int, Any]:
    """Exit code and answer of one sample with nvmalloc-preload."""
    heaps = preload.folder / "heaps"
    heaps.mkdir()
    result = subprocess.run(
        [build / "workloads" / "standalone" / "programs", "bench", "--case", case, "--subject",
         "nvmalloc-preload", "--threads", "1", "--seed", "3", "--cpus", "0", "--warmup", "1",
         "--seconds", "1", "--timeout", "60", "--dir", heaps, "--work", preload.work, *options],
        env={"PATH": path + "/usr/bin:/bin", "LC_ALL": "C"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    heaps.rmdir()  # nothing is left in it
    assert result.stderr == ""
    return result.returncode, json.loads(result.stdout.splitlines()[-1])


def test_a_sample_of_the_workload(preload: Preload, native_build: Path) -> None:
    parameters = ("--param", "workers=16", "--param", "operations=5000")
    code, answer = bench(native_build, preload, "stress-quick", *parameters)
    assert code == 0, answer
    assert (answer["type"], answer["subject"], answer["ops"]) == (
        "result", "nvmalloc-preload", 80000,
    )  # fmt: skip
    assert answer["ops_per_s"] == pytest.approx(80000 / answer["seconds"])
    assert answer["peak_bytes"] > 4 << 20
    assert answer["figures"]["peak_nvm_mib"] == pytest.approx(answer["peak_bytes"] / 2**20)
    assert answer["figures"]["cpu_s"] > 0
    code, answer = bench(native_build, preload, "stress-quick")
    assert (code, answer["type"]) == (2, "error")


def test_the_workload_sees_another_outcome(preload: Preload, native_build: Path) -> None:
    """A "compiler" whose result depends on what is preloaded."""
    folder = preload.work / "bin"
    folder.mkdir()
    fake = folder / "gcc"
    fake.write_text('#!/bin/sh\nfor last; do :; done\necho "made with $LD_PRELOAD" > "$last"\n')
    fake.chmod(0o755)
    options = ("--param", "files=1")
    code, answer = bench(native_build, preload, "gcc-3", *options, path=f"{folder}:")
    assert code == 4
    assert "one.o differs from other.o" in answer["message"]
    fake.write_text("#!/bin/sh\necho no such luck >&2\nexit 1\n")
    code, answer = bench(native_build, preload, "gcc-3", *options, path=f"{folder}:")
    assert code == 4
    assert "no such luck" in answer["message"]


def test_programs_of_a_virtual_environment_are_not_measured(
    preload: Preload, native_build: Path
) -> None:
    """Its interpreter has imported more than CPython's tests expect when they begin."""
    folder = preload.work / "venv" / "bin"
    folder.mkdir(parents=True)
    (folder.parent / "pyvenv.cfg").write_text("home = /usr/bin\n")
    fake = folder / "gcc"
    fake.write_text("#!/bin/sh\necho of the virtual environment >&2\nexit 1\n")
    fake.chmod(0o755)
    options = ("--param", "files=1")
    code, answer = bench(native_build, preload, "gcc-3", *options, path=f"{folder}:")
    assert code == 0, answer


def test_the_python_of_the_tests_runs_too(preload: Preload) -> None:
    """An interpreter that is not Debian's, with threads, subprocesses and extension modules."""
    program = textwrap.dedent("""\
        import concurrent.futures, hashlib, json, subprocess, sys, zlib
        def work(n):
            data = json.dumps([{"n": i, "square": i * i} for i in range(n)])
            return hashlib.sha256(zlib.compress(data.encode())).hexdigest()
        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            print(*threads.map(work, range(0, 2000, 100)))
        with concurrent.futures.ProcessPoolExecutor(2) as processes:
            print(*processes.map(hash, range(10)))
        print(subprocess.run(["echo", "hello"], capture_output=True, text=True).stdout)
        """)
    script = preload.work / "work.py"
    script.write_text(program)
    without, with_library = preload.both(sys.executable, script)
    assert with_library == without
    assert len(without) > 1000
