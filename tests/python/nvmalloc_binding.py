# SPDX-License-Identifier: Apache-2.0
"""libnvmalloc through ctypes, as far as its model tests need it."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LOG_OWNED, LOG_STRICT, GC = 0, 1, 2
ALLOC, FREE, MOVE = 1, 2, 3
SLOT = ctypes.sizeof(ctypes.c_uint64)


class Options(ctypes.Structure):
    """struct nvm_options"""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("max_size", ctypes.c_size_t),
        ("mode", ctypes.c_int),
        ("flags", ctypes.c_uint),
        ("threads", ctypes.c_uint),
        ("trace", ctypes.c_void_p),
        ("trace_context", ctypes.c_void_p),
    )


class Action(ctypes.Structure):
    """struct nvm_action"""

    _fields_ = (
        ("kind", ctypes.c_int),
        ("slot", ctypes.c_void_p),
        ("origin", ctypes.c_void_p),
        ("ref", ctypes.c_uint64),
    )


VISIT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)

_SIGNATURES: dict[str, tuple[object, list[object]]] = {
    "nvm_create_with": (
        ctypes.c_int,
        [ctypes.c_char_p, ctypes.POINTER(Options), ctypes.POINTER(ctypes.c_void_p)],
    ),
    "nvm_open": (ctypes.c_int, [ctypes.c_char_p, ctypes.POINTER(ctypes.c_void_p)]),
    "nvm_close": (ctypes.c_int, [ctypes.c_void_p]),
    "nvm_check": (ctypes.c_int, [ctypes.c_void_p]),
    "nvm_error": (ctypes.c_char_p, []),
    "nvm_root": (ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t]),
    "nvm_named": (ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]),
    "nvm_unname": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_char_p]),
    "nvm_malloc_to": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]),
    "nvm_aligned_malloc_to": (
        ctypes.c_int,
        [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t],
    ),
    "nvm_free_from": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_void_p]),
    "nvm_realloc_to": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]),
    "nvm_move_to": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]),
    "nvm_reserve": (ctypes.c_uint64, [ctypes.c_void_p, ctypes.c_size_t]),
    "nvm_cancel": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_uint64]),
    "nvm_publish": (
        ctypes.c_int,
        [ctypes.c_void_p, ctypes.POINTER(Action), ctypes.c_size_t],
    ),
    "nvm_malloc": (ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t]),
    "nvm_free": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_void_p]),
    "nvm_usable_size": (ctypes.c_size_t, [ctypes.c_void_p, ctypes.c_uint64]),
    "nvm_ptr": (ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_uint64]),
    "nvm_off": (ctypes.c_uint64, [ctypes.c_void_p, ctypes.c_void_p]),
    "nvm_persist": (None, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]),
    "nvm_trim": (ctypes.c_int, [ctypes.c_void_p, ctypes.POINTER(ctypes.c_size_t)]),
    "nvm_thread_leave": (None, [ctypes.c_void_p]),
    "nvm_walk": (ctypes.c_int, [ctypes.c_void_p, VISIT, ctypes.c_void_p]),
}


def load(build: Path) -> ctypes.CDLL:
    """The library of a build, with the types of what is used of it."""
    library = ctypes.CDLL(str(build / "allocators" / "nvmalloc" / "libnvmalloc.so"), use_errno=True)
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    return library


@dataclass
class Heap:
    """An open heap with a table of slots in its root block."""

    library: ctypes.CDLL
    path: Path
    slots: int
    handle: int = 0
    table: int = 0

    def create(self, size: int, max_size: int, mode: int) -> None:
        options = Options(size=size, max_size=max_size, mode=mode)
        handle = ctypes.c_void_p()
        error = self.library.nvm_create_with(
            bytes(self.path), ctypes.byref(options), ctypes.byref(handle)
        )
        self._opened(error, handle)

    def open(self) -> None:
        handle = ctypes.c_void_p()
        self._opened(self.library.nvm_open(bytes(self.path), ctypes.byref(handle)), handle)

    def _opened(self, error: int, handle: ctypes.c_void_p) -> None:
        assert error == 0, self.reason()
        self.handle = handle.value or 0
        self.table = self.library.nvm_root(self.handle, self.slots * SLOT)
        assert self.table, self.reason()

    def close(self) -> None:
        assert self.library.nvm_close(self.handle) == 0, self.reason()
        self.handle = 0

    def reason(self) -> str:
        return bytes(self.library.nvm_error()).decode()

    def slot(self, index: int) -> int:
        return self.table + index * SLOT

    def named(self, name: str, create: bool) -> int | None:
        found: int | None = self.library.nvm_named(self.handle, name.encode(), int(create))
        return found

    def read(self, slot: int) -> int:
        return ctypes.c_uint64.from_address(slot).value

    def store(self, slot: int, ref: int) -> None:
        ctypes.c_uint64.from_address(slot).value = ref
        self.library.nvm_persist(self.handle, slot, SLOT)

    def write(self, ref: int, content: bytes) -> None:
        address = self.library.nvm_ptr(self.handle, ref)
        ctypes.memmove(address, content, len(content))
        self.library.nvm_persist(self.handle, address, len(content))

    def content(self, ref: int, length: int) -> bytes:
        return ctypes.string_at(self.library.nvm_ptr(self.handle, ref), length)

    def usable(self, ref: int) -> int:
        return int(self.library.nvm_usable_size(self.handle, ref))

    def publish(self, actions: Sequence[Action]) -> int:
        array = (Action * len(actions))(*actions)
        return int(self.library.nvm_publish(self.handle, array, len(actions)))

    def blocks(self) -> dict[int, int]:
        """References of the live blocks, and their usable sizes."""
        found: dict[int, int] = {}

        def visit(_context: int | None, block: int, usable: int) -> int:
            found[int(self.library.nvm_off(self.handle, block))] = usable
            return 0

        assert self.library.nvm_walk(self.handle, VISIT(visit), None) == 0, self.reason()
        return found
