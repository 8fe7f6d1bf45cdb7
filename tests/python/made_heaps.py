# SPDX-License-Identifier: Apache-2.0
"""Makes heap files of nvmalloc by the library itself, from Python; run as a program it makes one.

    python made_heaps.py LIBRARY HEAP MODE SIZE MAX_SIZE END     END: close, kill, hold

It fills SLOTS slots of many sizes, empties every third of them, names two blocks, and ends as
it is told: closes the heap; is killed; or says "ready" and holds the heap open until its
standard input ends.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

SLOTS = 300
MODES = {"owned": 0, "strict": 1, "gc": 2}


class Options(ctypes.Structure):
    """struct nvm_options."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("max_size", ctypes.c_size_t),
        ("mode", ctypes.c_int),
        ("flags", ctypes.c_uint),
        ("threads", ctypes.c_uint),
        ("trace", ctypes.c_void_p),
        ("trace_context", ctypes.c_void_p),
    )


def size_of(slot: int) -> int:
    """Small blocks of many classes, and some extents."""
    return 700_000 if slot % 100 == 50 else 24 * (slot + 1)


def live_slots() -> list[int]:
    return [slot for slot in range(SLOTS) if slot % 3]


def make(
    library: Path, heap: Path, mode: str, *, end: str = "close", size: int = 32 << 20,
    max_size: int = 0,
) -> None:  # fmt: skip
    """In a process of its own, which may be killed."""
    done = subprocess.run(
        _command(library, heap, mode, size, max_size, end), check=False, timeout=60
    )
    assert done.returncode == (-signal.SIGKILL if end == "kill" else 0)


def hold(library: Path, heap: Path, mode: str) -> subprocess.Popen[bytes]:
    """A process that has the heap open until its standard input is closed."""
    process = subprocess.Popen(
        _command(library, heap, mode, 32 << 20, 0, "hold"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def _command(library: Path, heap: Path, mode: str, size: int, max_size: int, end: str) -> list[str]:
    return [
        sys.executable, __file__, str(library), str(heap), mode, str(size), str(max_size), end,
    ]  # fmt: skip


def main(arguments: list[str]) -> None:
    library, path, mode, size, max_size, end = arguments
    nvm = ctypes.CDLL(library)
    nvm.nvm_root.restype = ctypes.POINTER(ctypes.c_uint64)
    nvm.nvm_named.restype = ctypes.POINTER(ctypes.c_uint64)
    nvm.nvm_error.restype = ctypes.c_char_p
    heap = ctypes.c_void_p()
    options = Options(size=int(size), max_size=int(max_size), mode=MODES[mode])

    def must(error: int) -> None:
        if error:
            sys.exit(nvm.nvm_error().decode())

    must(nvm.nvm_create_with(os.fsencode(path), ctypes.byref(options), ctypes.byref(heap)))
    slots = nvm.nvm_root(heap, ctypes.c_size_t(8 * SLOTS))

    def place(slot: int) -> ctypes.c_void_p:
        return ctypes.c_void_p(ctypes.addressof(slots.contents) + 8 * slot)

    for slot in range(SLOTS):
        must(nvm.nvm_malloc_to(heap, place(slot), ctypes.c_size_t(size_of(slot))))
    for slot in range(0, SLOTS, 3):
        must(nvm.nvm_free_from(heap, place(slot)))
    for name, bytes_ in ((b"small", 100), (b"large", 2_000_000)):
        must(nvm.nvm_malloc_to(heap, nvm.nvm_named(heap, name, 1), ctypes.c_size_t(bytes_)))
    must(nvm.nvm_trim(heap, None))
    if end == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if end == "hold":
        print("ready", flush=True)
        sys.stdin.read()
    must(nvm.nvm_close(heap))


if __name__ == "__main__":
    main(sys.argv[1:])
