#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""pmemkv as a key-value baseline: the `kv` workload through pmemkv's own Python binding.

pmemkv is a store, no allocator: it has no slots that an adapter could hand out. So this
program stands in for nvdrive on the one workload that both can do, speaks its protocol
(docs/driver-protocol.md: `info`, `bench`) and does what workloads/kv.c does: the same mixes
(YCSB's A to F), the same distributions, keys and values, the same windows.

    kv.py info  --options engine=cmap
    kv.py bench --options engine=cmap --workload kv --heap PATH --heap-size BYTES ...

What its figures mean. A request costs about a microsecond of Python besides what pmemkv
takes, and the binding holds the interpreter's lock while pmemkv works, so two threads are no
faster than one. pmemkv's own figure without both would be higher; this is what pmemkv
offers on Debian, which has the binding and no other tool for it.

Runs on Debian 11's Python 3.9, with its standard library and the binding alone.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import struct
import subprocess
import sys
import threading
import time
from bisect import bisect_left, insort
from typing import Any, Callable, NoReturn

EXIT_USAGE, EXIT_ENVIRONMENT, EXIT_INCORRECT = 2, 3, 4
READ, UPDATE, INSERT, SCAN, MODIFY = range(5)
# YCSB's core workloads A to F (Cooper et al., SoCC'10): shares of the requests in percent.
MIXES: list[list[tuple[int, int]]] = [
    [(READ, 50), (UPDATE, 50)],
    [(READ, 95), (UPDATE, 5)],
    [(READ, 100)],
    [(READ, 95), (INSERT, 5)],
    [(SCAN, 95), (INSERT, 5)],
    [(READ, 50), (MODIFY, 50)],
]
MIX_LATEST = 3
HASH, TREE = 0, 1
THETA = 0.99
MASK = (1 << 64) - 1
STORM = 1000
"""So many failures and not one success mean that the heap is too small for anything."""
# name: (index, persistent, consistency, threads)
ENGINES: dict[str, tuple[int, bool, str, bool]] = {
    "cmap": (HASH, True, "tx", True),
    "stree": (TREE, True, "tx", False),
    "vcmap": (HASH, False, "none", True),
    "vsmap": (TREE, False, "none", False),
}


class Failure(Exception):
    """Ends the program with an error line."""

    def __init__(self, where: str, message: str, code: int = EXIT_ENVIRONMENT) -> None:
        super().__init__(message)
        self.where = where
        self.code = code


def emit(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def load_binding() -> Any:
    try:
        import pmemkv
    except ImportError as error:
        raise Failure(
            "missing",
            f"pmemkv's Python binding is not here ({error}); Debian 11 has it (python3-pmemkv), and "
            "so has the image that `make images` makes: use --runner docker",
        ) from error
    return pmemkv


# --- keys and choices -----------------------------------------------------------------------


def fnv1a(number: int) -> int:
    """FNV-1a (Fowler, Noll, Vo), 64 bits, of a number's 8 bytes, the lowest first."""
    value = 0xCBF29CE484222325
    for _ in range(8):
        value = ((value ^ (number & 0xFF)) * 0x100000001B3) & MASK
        number >>= 8
    return value


def key_of(record: int) -> bytes:
    """Hashed, so that records that are inserted in order are no neighbours; big-endian, so that
    the order of bytes is that of numbers."""
    return struct.pack(">Q", fnv1a(record))


class Zipf:
    """Ranks 0..count-1, rank r as likely as 1 / (r + 1)^theta (Gray et al., SIGMOD'94)."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.zeta = sum(1 / i**THETA for i in range(1, count + 1))
        self.alpha = 1 / (1 - THETA)
        second = 1 + 0.5**THETA
        self.eta = (1 - (2 / count) ** (1 - THETA)) / (1 - second / self.zeta) if count > 2 else 0

    def rank(self, uniform: float) -> int:
        scaled = uniform * self.zeta
        if scaled < 1 or self.count == 1:
            return 0
        if scaled < 1 + 0.5**THETA or self.count == 2:
            return 1
        return int(self.count * (self.eta * uniform - self.eta + 1) ** self.alpha) % self.count


# --- the store ------------------------------------------------------------------------------


class Store:
    """A database of one engine; a full one raises MemoryError."""

    def __init__(self, engine: str, heap: str, size: int) -> None:
        self.pmemkv = load_binding()
        persistent = ENGINES[engine][1]
        config: dict[str, Any] = {"size": size}
        # The volatile engines make nameless files in a folder.
        config["path"] = heap if persistent else os.path.dirname(os.path.abspath(heap))
        if persistent:
            config["force_create"] = 1
        try:
            self.database = self.pmemkv.Database(engine, config)
        except (self.pmemkv.Error, KeyError) as error:
            raise Failure("create", f"pmemkv can't make a '{engine}' at {heap}: {error}") from error
        self.get_string = self.database.get_string

    def put(self, key: bytes, value: str) -> None:
        try:
            self.database.put(key, value)
        except self.pmemkv.Error as error:
            if "memory" in str(error).lower() or "alloc" in str(error).lower():
                raise MemoryError(str(error)) from error
            raise

    def get(self, key: bytes) -> str:
        """A copy of the value; "" if there is none.

        Not by Database.get(), whose callback runs under the engine's lock on the key: a thread
        that waits there for the interpreter's lock never gets it from one that holds that and
        waits for the key.
        """
        try:
            return str(self.get_string(key))
        except KeyError:
            return ""

    def get_range(self, first: bytes, beyond: bytes) -> list[str]:
        """Copies of the values with first < key < beyond; of the engines for one thread."""
        found: list[str] = []
        self.database.get_between(
            first, beyond, lambda _key, value: found.append(str(memoryview(value), "ascii"))
        )
        return found


# --- the workload ---------------------------------------------------------------------------


class Workload:
    """What all threads share."""

    def __init__(self, arguments: argparse.Namespace, parameters: dict[str, int]) -> None:
        self.threads: int = arguments.threads
        self.mix = parameters["mix"]
        self.records = parameters["records"]
        self.scan_max = parameters["scan_max"]
        self.value_bytes = parameters["value_bytes"]
        self.filler = "v" * (self.value_bytes - 8)
        self.zipf = Zipf(self.records)
        self.store = Store(arguments.engine, arguments.heap, arguments.heap_size)
        self.stop = False
        # Where a scan ends: pmemkv's binding has no scan by count, so the program knows the keys.
        self.keys: list[bytes] = []
        self.keys_lock = threading.Lock()

    def value(self, record: int) -> str:
        """Its first 8 characters say whose it is."""
        return f"{record:08x}{self.filler}"

    def close(self) -> None:
        self.store.database.stop()


class Worker:
    """One thread, and what it counted in the last window."""

    def __init__(self, workload: Workload, index: int, seed: int, cpu: int | None) -> None:
        self.workload = workload
        self.index = index
        self.cpu = cpu
        self.random = random.Random(f"{seed}/{index}")
        self.inserted = 0
        self.newest = workload.records - 1
        self.error: BaseException | None = None
        self.reset()

    def reset(self) -> None:
        self.ops = self.failed = 0
        self.histogram: dict[int, int] = {}
        self.max_ns = 0
        self.begin = self.end = self.cpu_s = 0.0

    def load(self) -> None:
        """This thread's share of the records."""
        workload = self.workload
        for record in range(self.index, workload.records, workload.threads):
            workload.store.put(key_of(record), workload.value(record))

    def choose(self) -> int:
        workload = self.workload
        rank = workload.zipf.rank(self.random.random())
        if workload.mix == MIX_LATEST:
            return self.recent(rank)
        return fnv1a(rank) % workload.records

    def recent(self, rank: int) -> int:
        """The record that this thread, or the loading before it, inserted rank-th last."""
        workload = self.workload
        if rank < self.inserted:
            return workload.records + (self.inserted - 1 - rank) * workload.threads + self.index
        return (workload.records - 1 - (rank - self.inserted)) % workload.records

    def expect(self, record: int, value: str) -> None:
        if len(value) != self.workload.value_bytes or not value.startswith(f"{record:08x}"):
            raise Failure("sweep", f"the value of record {record} is wrong: {value[:16]!r}...",
                          EXIT_INCORRECT)  # fmt: skip

    def read(self) -> None:
        record = self.choose()
        self.expect(record, self.workload.store.get(key_of(record)))

    def update(self) -> None:
        record = self.choose()
        self.workload.store.put(key_of(record), self.workload.value(record))

    def modify(self) -> None:
        record = self.choose()
        self.expect(record, self.workload.store.get(key_of(record)))
        self.workload.store.put(key_of(record), self.workload.value(record))

    def insert(self) -> None:
        workload = self.workload
        record = workload.records + self.inserted * workload.threads + self.index
        key = key_of(record)
        workload.store.put(key, workload.value(record))
        self.inserted += 1
        if workload.keys:
            with workload.keys_lock:
                insort(workload.keys, key)

    def scan(self) -> None:
        workload = self.workload
        first = key_of(self.choose())
        length = self.random.randint(1, workload.scan_max)
        with workload.keys_lock:
            at = bisect_left(workload.keys, first)
            beyond = at + length
            last = workload.keys[beyond] if beyond < len(workload.keys) else b"\xff" * 9
        values = [workload.store.get(first), *workload.store.get_range(first, last)]
        if not values[0] or len(values) > length:
            raise Failure("sweep", f"a scan of {length} gave {len(values)} values",
                          EXIT_INCORRECT)  # fmt: skip

    def requests(self) -> list[Callable[[], None]]:
        """A hundred requests in the mix's shares."""
        kinds = {READ: self.read, UPDATE: self.update, INSERT: self.insert, SCAN: self.scan,
                 MODIFY: self.modify}  # fmt: skip
        return [kinds[kind] for kind, share in MIXES[self.workload.mix] for _ in range(share)]

    def work(self, timed: bool) -> None:
        """Requests until the window is over; one at least."""
        workload, draw, table = self.workload, self.random.random, self.requests()
        self.reset()
        cpu = time.thread_time()
        self.begin = time.monotonic()
        while True:
            request = table[int(draw() * 100)]
            try:
                if timed:
                    before = time.perf_counter_ns()
                    request()
                    self.note(time.perf_counter_ns() - before)
                else:
                    request()
                self.ops += 1
            except MemoryError:
                self.failed += 1
                if not self.ops and self.failed > STORM:
                    raise
            if workload.stop:
                break
        self.end = time.monotonic()
        self.cpu_s = time.thread_time() - cpu

    def note(self, ns: int) -> None:
        """Counts a latency in HdrHistogram's layout: three significant digits."""
        shift = max(0, ns.bit_length() - 11)
        lowest = ns >> shift << shift
        self.histogram[lowest] = self.histogram.get(lowest, 0) + 1
        self.max_ns = max(self.max_ns, ns)


def in_threads(workers: list[Worker], what: Callable[[Worker], None]) -> list[threading.Thread]:
    def body(worker: Worker) -> None:
        try:
            if worker.cpu is not None:
                os.sched_setaffinity(0, {worker.cpu})
            what(worker)
        except BaseException as error:  # the main thread raises it again
            worker.error = error
            worker.workload.stop = True

    threads = [threading.Thread(target=body, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    return threads


def hold(workers: list[Worker], seconds: float | None, what: Callable[[Worker], None]) -> None:
    """A window: as long as stated, or until every worker is done."""
    workload = workers[0].workload
    workload.stop = False
    threads = in_threads(workers, what)
    deadline = None if seconds is None else time.monotonic() + seconds
    while deadline is not None and not workload.stop and time.monotonic() < deadline:
        time.sleep(max(0.0, min(0.05, deadline - time.monotonic())))
    workload.stop = True
    for thread in threads:
        thread.join()
    for worker in workers:
        if worker.error is not None:
            raise worker.error


def sweep(workers: list[Worker]) -> None:
    """Every record that was loaded or inserted must be there and hold its own number."""
    workload = workers[0].workload
    for record in range(workload.records):
        workers[0].expect(record, workload.store.get(key_of(record)))
    for worker in workers:
        for number in range(worker.inserted):
            record = workload.records + number * workload.threads + worker.index
            worker.expect(record, workload.store.get(key_of(record)))


# --- what it prints -------------------------------------------------------------------------


def resident_bytes(field: str) -> int | None:
    with open("/proc/self/status", encoding="utf-8") as status:
        for line in status:
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    return None


def library_version() -> str:
    """Of Debian's packages; where dpkg does not know them, the name of libpmemkv's file."""
    load_binding()
    form = "${Package} ${Version}, "
    command = ["dpkg-query", "-W", "-f", form, "libpmemkv1", "python3-pmemkv", "libpmemobj1"]
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
        )
        return done.stdout.decode().rstrip(", ")
    except (OSError, subprocess.CalledProcessError):
        with open("/proc/self/maps", encoding="utf-8") as maps:
            names = {os.path.basename(line.split()[-1]) for line in maps if "libpmemkv.so" in line}
        return ", ".join(sorted(names)) or "unknown"


def clock_overhead_ns() -> int:
    gaps = sorted(-time.perf_counter_ns() + time.perf_counter_ns() for _ in range(1001))
    return gaps[len(gaps) // 2]


def latency_of(workers: list[Worker]) -> dict[str, Any]:
    total: dict[int, int] = {}
    for worker in workers:
        for lowest, count in worker.histogram.items():
            total[lowest] = total.get(lowest, 0) + count
    return {
        "counts": [[lowest, total[lowest]] for lowest in sorted(total)],
        "max_ns": max(worker.max_ns for worker in workers),
        "samples": sum(total.values()),
        "clock_overhead_ns": clock_overhead_ns(),
    }


def measure(arguments: argparse.Namespace, parameters: dict[str, int]) -> dict[str, Any]:
    base = resident_bytes("VmRSS") or 0
    workload = Workload(arguments, parameters)
    cpus: list[int] = arguments.cpus
    workers = [
        Worker(workload, i, arguments.seed, cpus[i % len(cpus)] if cpus else None)
        for i in range(arguments.threads)
    ]
    hold(workers, None, Worker.load)
    if any(kind == SCAN for kind, _ in MIXES[workload.mix]):
        workload.keys = sorted(key_of(record) for record in range(workload.records))
    hold(workers, arguments.warmup, lambda worker: worker.work(False))
    hold(workers, arguments.seconds, lambda worker: worker.work(False))
    seconds = max(worker.end for worker in workers) - min(worker.begin for worker in workers)
    ops = sum(worker.ops for worker in workers)
    if ops == 0:
        raise MemoryError("not one request succeeded in the window: the heap is too small")
    peak = resident_bytes("VmHWM")
    resident = None if peak is None else max(0, peak - base)
    result: dict[str, Any] = {
        "type": "result", "adapter": "pmemkv", "library_version": library_version(),
        "workload": arguments.workload, "parameters": parameters, "threads": arguments.threads,
        "seed": arguments.seed, "heap_size": arguments.heap_size, "cpus": cpus,
        "seconds": seconds, "cpu_seconds": sum(worker.cpu_s for worker in workers),
        "ops": ops, "allocs": None, "frees": None,
        "failed_allocs": sum(worker.failed for worker in workers),
        "ops_per_s": ops / seconds, "instructions": None, "instructions_source": None,
        "latency": None, "observable": False, "events": None,
        "peak_bytes": resident, "rss_peak_bytes": resident, "live_bytes": None, "used_bytes": None,
    }  # fmt: skip
    sweep(workers)
    if arguments.latency_seconds > 0:
        hold(workers, arguments.latency_seconds, lambda worker: worker.work(True))
        result["latency"] = latency_of(workers)
        sweep(workers)
    workload.close()
    return result


# --- the command line -----------------------------------------------------------------------

SIZE = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
BOUNDS = {
    "mix": (0, 5), "index": (0, 1), "records": (1, 1 << 30), "value_bytes": (8, 65536),
    "scan_max": (1, 10000),
}  # fmt: skip
DEFAULTS = {"mix": 0, "index": -1, "records": 100000, "value_bytes": 1000, "scan_max": 100}


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Failure("usage", message, EXIT_USAGE)


def size_of(text: str) -> int:
    match = re.fullmatch(r"([0-9]+)([KMG]?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"'{text}' is no size")
    return int(match[1]) * SIZE[match[2]]


def cpus_of(text: str) -> list[int]:
    cpus: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        cpus += range(int(first), int(last or first) + 1)
    return cpus


def parse(words: list[str]) -> argparse.Namespace:
    parser = Parser(prog="kv.py", allow_abbrev=False)
    parser.add_argument("command", choices=["info", "bench"])
    parser.add_argument("--options", default="engine=cmap")
    parser.add_argument("--workload", default="kv")
    parser.add_argument("--heap", default="")
    parser.add_argument("--heap-size", type=size_of, default=1 << 30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cpus", type=cpus_of, default=[])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--warmup", type=float, default=0.5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--latency-seconds", type=float, default=0.5)
    parser.add_argument("--param", action="append", default=[])
    arguments = parser.parse_args(words)
    key, _, engine = arguments.options.partition("=")
    if key != "engine" or engine not in ENGINES:
        raise Failure("usage", f"--options {arguments.options}: expected engine=E, E one of "
                      f"{', '.join(ENGINES)}", EXIT_USAGE)  # fmt: skip
    arguments.engine = engine
    return arguments


def parameters_of(arguments: argparse.Namespace) -> dict[str, int]:
    parameters = dict(DEFAULTS)
    for assignment in arguments.param:
        name, _, text = assignment.partition("=")
        if name not in BOUNDS or not text.isdigit():
            raise Failure("usage", f"--param {assignment}: no such parameter, or no number",
                          EXIT_USAGE)  # fmt: skip
        low, high = BOUNDS[name]
        if not low <= int(text) <= high:
            raise Failure("usage", f"--param {assignment}: expected {low} to {high}", EXIT_USAGE)
        parameters[name] = int(text)
    index, _, _, threads = ENGINES[arguments.engine]
    if parameters["index"] < 0:
        parameters["index"] = index
    if parameters["index"] != index:
        kind = ["hash table", "tree"]
        raise Failure("missing", f"pmemkv's engine '{arguments.engine}' is a {kind[index]}, and the "
                      f"workload asks for a {kind[parameters['index']]}")  # fmt: skip
    if MIXES[parameters["mix"]][0][0] == SCAN and index == HASH:
        raise Failure("missing", f"pmemkv's engine '{arguments.engine}' has no order to scan in")
    if arguments.threads > 1 and not threads:
        raise Failure("missing", f"pmemkv's engine '{arguments.engine}' is for one thread only")
    return parameters


def info(arguments: argparse.Namespace) -> dict[str, Any]:
    _, persistent, consistency, threads = ENGINES[arguments.engine]
    capabilities = ["persistent" if persistent else "volatile"] + ["threads"] * threads
    return {
        "type": "info",
        "adapter_version": None,
        "adapter": {
            "name": "pmemkv", "capabilities": capabilities, "consistency": consistency,
            "slot_size": None, "min_size": 16 << 20, "check": False,
            "library_version": library_version(),
        },
    }  # fmt: skip


def main(words: list[str]) -> int:
    try:
        arguments = parse(words)
        if arguments.command == "info":
            emit(info(arguments))
        elif not arguments.heap or arguments.threads < 1:
            raise Failure("usage", "bench takes --heap PATH and at least one thread", EXIT_USAGE)
        elif os.path.lexists(arguments.heap):
            raise Failure("create", f"'{arguments.heap}' exists; bench makes a fresh heap")
        else:
            parameters = parameters_of(arguments)
            try:
                emit(measure(arguments, parameters))
            finally:
                if os.path.exists(arguments.heap):
                    os.unlink(arguments.heap)
    except Failure as failure:
        emit({"type": "error", "where": failure.where, "message": str(failure)})
        return failure.code
    except Exception as error:  # pmemkv's own errors have no common base but this
        if not isinstance(error, MemoryError):
            emit({"type": "error", "where": "bench", "message": repr(error)})
            return EXIT_ENVIRONMENT
        emit({"type": "error", "where": "bench", "error": "ENOMEM", "message": str(error)})
        return EXIT_ENVIRONMENT
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
