# SPDX-License-Identifier: Apache-2.0
"""Speaks nvdrive's protocol (docs/driver-protocol.md) without any allocator.

How it behaves stands in the "adapter", here a JSON file:
{"kind": "persistent", "bench": B, "history": H, "info": I, "step": S}, where B, H, I, S are
"ok", "die", "hang", "garbage", "silent", "error", or for history a verdict.  With a
"step" there is no hardware counter; it may also be "refused" or "slow".  With "at_work" a
failure leaves the history itself to be run again.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

HANG_S = 600


def emit(document: dict[str, Any]) -> None:
    print(json.dumps(document), flush=True)


def hang_with_a_child() -> NoReturn:
    """Hangs, and so does a child in another process; both must be ended with the job."""
    command = [sys.executable, "-c", f"import time; time.sleep({HANG_S})"]
    with subprocess.Popen(command):
        time.sleep(HANG_S)
    sys.exit(1)


def misbehave(behaviour: str) -> None:
    if behaviour == "die":
        print("about to die", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)
    elif behaviour == "hang":
        hang_with_a_child()
    elif behaviour == "garbage":
        sys.stdout.buffer.write(b"\xff\xfenot json\n{]\n")
        sys.exit(0)
    elif behaviour == "silent":
        sys.exit(0)
    elif behaviour == "error":
        emit(
            {
                "type": "error",
                "where": "create",
                "error": "ENOMEM",
                "message": "no space in the heap",
            }
        )
        sys.exit(3)
    elif behaviour == "unsupported":
        emit({"type": "error", "where": "unsupported", "message": "this machine has no widgets"})
        sys.exit(3)
    elif behaviour == "incorrect":
        emit({"type": "error", "where": "bench", "message": "a block was handed out twice"})
        sys.exit(4)


def adapter_of(options: argparse.Namespace) -> dict[str, Any]:
    if options.adapter is None:
        return {"kind": "persistent"}
    try:
        document: dict[str, Any] = json.loads(Path(options.adapter).read_text())
    except (OSError, ValueError) as error:
        emit({"type": "error", "where": "adapter", "message": f"cannot load: {error}"})
        sys.exit(3)
    return document


def check_options(options: argparse.Namespace, adapter: dict[str, Any]) -> None:
    """{"wants": {COMMAND: OPTIONS}}: the command fails with any others."""
    wanted = adapter.get("wants", {}).get(options.command, options.options)
    if options.options != wanted:
        emit({"type": "error", "where": "options", "message": f"{options.options}, not {wanted}"})
        sys.exit(3)


def info(options: argparse.Namespace) -> None:
    adapter = adapter_of(options)
    misbehave(adapter.get("info", "ok"))
    emit(
        {
            "type": "info",
            "adapter": {
                "name": Path(options.adapter).stem if options.adapter else "",
                "capabilities": [adapter["kind"], *adapter.get("capabilities", [])],
                "min_size": 1 << 20,
                "library_version": "1.0",
            },
        }
    )


def bench(options: argparse.Namespace) -> None:
    adapter = adapter_of(options)
    check_options(options, adapter)
    misbehave(adapter.get("bench", "ok"))
    if options.step_instructions is not None:
        step(options, adapter["step"])
        return
    ops = int(adapter.get("ops", 1000))
    Path(options.heap).write_bytes(b"heap")
    persistent = adapter["kind"] == "persistent"
    events = {
        "flushes": 2 * ops, "fences": 2 * ops, "effective_fences": ops, "nt_lines": 0,
        "reflushes_within_4": ops, "xpline_writes": ops, "ops": ops,
    }  # fmt: skip
    emit(
        {
            "type": "result", "workload": options.workload, "threads": options.threads,
            "ops": ops, "allocs": ops // 2, "frees": ops // 2, "failed_allocs": 0,
            "ops_per_s": float(ops * 1000), "instructions": None if "step" in adapter else 250 * ops,
            "latency": {"counts": [[100, 990], [1000, 9], [5000, 1]], "max_ns": 5000, "samples": 1000},
            "events": events if options.observe and persistent else None,
            "device": device_of(options, ops),
            "peak_bytes": 2048, "live_bytes": 1024,
        }
    )  # fmt: skip


def device_of(options: argparse.Namespace, ops: int) -> dict[str, Any] | None:
    if options.device is None:
        return None
    name = dict(part.split("=") for part in options.device.split(","))["name"]
    return {"name": name, "delayed_ns": 50 * ops, "ops": ops}


def step(options: argparse.Namespace, behaviour: str) -> None:
    assert options.threads == 1
    assert not options.observe
    assert options.timeout > 0
    misbehave(behaviour)
    if behaviour == "slow":
        emit({"type": "error", "where": "too-slow", "message": "100000 steps were not enough"})
        sys.exit(3)
    if behaviour == "refused":
        emit({"type": "error", "where": "ptrace", "errno": 1, "message": "not here"})
        sys.exit(3)
    emit(
        {
            "type": "result", "ops": None, "ops_per_s": None, "latency": None,
            "instructions": options.step_instructions, "instructions_source": "stepped",
            "stepped_ops": options.step_instructions // 200, "stepped_deviation": 1.5,
            "driver_instructions_per_op": 25.0,
        }
    )  # fmt: skip


def calibrate(options: argparse.Namespace) -> None:
    emit({"type": "calibration", "dir": options.dir, "flush_fence_ns": 200.0})


def fill(options: argparse.Namespace) -> None:
    check_options(options, adapter_of(options))
    emit({"type": "fill", "bytes": 1 << 20, "blocks": 10, "slots_exhausted": False})


def history(options: argparse.Namespace) -> None:
    adapter = adapter_of(options)
    check_options(options, adapter)
    verdict = adapter.get("history", "ok")
    misbehave(verdict)
    # One case in four fails, chosen by the seed alone.
    if verdict != "ok" and options.seed % adapter.get("one_in", 1) != 0:
        verdict = "ok"
    emit({"type": "generation", "generation": 0, "kill": "instant", "threads": 1, "ops": 10})
    if verdict != "ok":
        work = Path(options.work)
        (work / "heap.before").write_bytes(verdict.encode().ljust(3 << 20, b"\0"))
        (work / "journal.before").write_bytes(b"journal of " + str(options.seed).encode())
        command = "history" if adapter.get("at_work") else "verify"
        sys.stderr.write(f"fake: seed {options.seed} is {verdict}\n")
        replay = {
            "schema": 1, "verdict": verdict, "arguments": [command, "--seed", str(options.seed)],
            "heap": "heap.before", "journal": "journal.before",
        }  # fmt: skip
        (work / "replay.json").write_text(json.dumps(replay))
    emit(
        {
            "type": "verdict", "verdict": verdict, "detail": f"seed {options.seed}", "generation": 2,
            "ops": 30, "kills": 3, "recoveries": 3,
        }
    )  # fmt: skip
    sys.exit(0 if verdict == "ok" else 4)


def verify(options: argparse.Namespace) -> None:
    """The verdict stands in the heap; the journal must be the one of that seed."""
    check_options(options, adapter_of(options))
    heap = Path(options.heap)
    if Path(options.journal).read_bytes() != b"journal of " + str(options.seed).encode():
        emit({"type": "error", "where": "journal", "message": "not the journal of that case"})
        sys.exit(3)
    data = heap.read_bytes()
    assert len(data) == 3 << 20
    verdict = data.rstrip(b"\0").decode()
    heap.write_bytes(b"changed by recovery")
    emit({"type": "verdict", "verdict": verdict, "detail": "replayed"})
    sys.exit(0 if verdict == "ok" else 4)


COMMANDS = {
    "info": info, "bench": bench, "calibrate": calibrate, "fill": fill, "history": history,
    "verify": verify,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=COMMANDS)
    texts = [
        "adapter",
        "options",
        "heap",
        "heap-size",
        "workload",
        "cpus",
        "dir",
        "work",
        "journal",
        "device",
    ]
    for name in texts:
        parser.add_argument(f"--{name}")
    numbers = ["step-instructions", "threads", "slots", "generations", "fill-baseline", "seed"]
    for name in numbers:
        parser.add_argument(f"--{name}", type=int)
    for name in ["warmup", "seconds", "latency-seconds", "timeout", "fill-tolerance"]:
        parser.add_argument(f"--{name}", type=float)
    parser.add_argument("--param", action="append")
    parser.add_argument("--observe", action="store_true")
    options = parser.parse_args()
    COMMANDS[options.command](options)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()
