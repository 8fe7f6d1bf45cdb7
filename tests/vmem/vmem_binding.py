# SPDX-License-Identifier: Apache-2.0
"""ctypes binding of ``vmem.h``: thin, and typed at its edge."""

from __future__ import annotations

import ctypes
import errno
from ctypes import POINTER, c_bool, c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from enum import IntFlag
from pathlib import Path
from typing import NamedTuple

__all__ = ["Arena", "Counters", "Flag", "Library", "Segment", "Type"]


class Flag(IntFlag):
    SLEEP = 0x0000
    NOSLEEP = 0x0001
    BESTFIT = 0x0100
    FIRSTFIT = 0x0200
    NEXTFIT = 0x0400
    POPULATOR = 0x10000
    IDENTIFIER = 0x40000


class Type(IntFlag):
    ALLOC = 0x01
    FREE = 0x02
    SPAN = 0x10
    REENTRANT = 0x40000000


class Segment(NamedTuple):
    start: int
    size: int

    @property
    def end(self) -> int:
        return self.start + self.size


class Counters(ctypes.Structure):
    """``vmem_kstat_t``."""

    _fields_ = [
        ("mem_inuse", c_uint64),
        ("mem_import", c_uint64),
        ("mem_total", c_uint64),
        ("source_id", c_uint32),
        ("alloc", c_uint64),
        ("free", c_uint64),
        ("wait", c_uint64),
        ("fail", c_uint64),
        ("lookup", c_uint64),
        ("search", c_uint64),
        ("populate_wait", c_uint64),
        ("populate_fail", c_uint64),
        ("contains", c_uint64),
        ("contains_search", c_uint64),
    ]

    def value(self, name: str) -> int:
        return int(getattr(self, name))


_WALKER = ctypes.CFUNCTYPE(None, c_void_p, c_void_p, c_size_t)


class Library:
    """The loaded library with the prototypes that the tests use."""

    def __init__(self, path: Path) -> None:
        lib = ctypes.CDLL(str(path), use_errno=True)
        size, ptr = c_size_t, c_void_p
        prototypes: dict[str, tuple[object, list[object]]] = {
            "vmem_create": (ptr, [c_char_p, ptr, size, size, ptr, ptr, ptr, size, c_int]),
            "vmem_destroy": (size, [ptr]),
            "vmem_alloc": (ptr, [ptr, size, c_int]),
            "vmem_free": (None, [ptr, ptr, size]),
            "vmem_xalloc": (ptr, [ptr, size, size, size, size, ptr, ptr, c_int]),
            "vmem_xfree": (None, [ptr, ptr, size]),
            "vmem_add": (ptr, [ptr, ptr, size, c_int]),
            "vmem_extend": (ptr, [ptr, ptr, size, c_int]),
            "vmem_trim": (size, [ptr]),
            "vmem_dump_fd": (c_int, [c_int, c_int]),
            "vmem_id": (c_uint32, [ptr]),
            "vmem_contains": (c_bool, [ptr, ptr, size]),
            "vmem_walk": (None, [ptr, c_int, _WALKER, ptr]),
            "vmem_size": (size, [ptr, c_int]),
            "vmem_update": (None, [ptr]),
            "vmem_reap": (None, [ptr]),
            "vmem_kstat": (None, [ptr, POINTER(Counters)]),
            "vmem_set_mtbf": (None, [ptr, c_uint32, c_uint64]),
            "vmem_check": (c_bool, [ptr, c_char_p, size]),
        }
        for name, (restype, argtypes) in prototypes.items():
            function = getattr(lib, name)
            function.restype = restype
            function.argtypes = argtypes
        self.c = lib
        self.walker = _WALKER
        self.alloc_function = ctypes.cast(lib.vmem_alloc, c_void_p)
        self.free_function = ctypes.cast(lib.vmem_free, c_void_p)


class Arena:
    """One ``vmem_t``. Allocation returns None on ENOMEM and raises OSError on EINVAL."""

    def __init__(
        self,
        library: Library,
        name: str,
        quantum: int,
        *,
        span: Segment | None = None,
        source: Arena | None = None,
        qcache_max: int = 0,
    ) -> None:
        self._c = library.c
        base, size = span if span is not None else (None, 0)
        importing = source is not None
        handle = self._c.vmem_create(
            name.encode(),
            base,
            size,
            quantum,
            library.alloc_function if importing else None,
            library.free_function if importing else None,
            source.handle if source is not None else None,
            qcache_max,
            Flag.NOSLEEP | Flag.IDENTIFIER,
        )
        if handle is None:
            raise OSError(ctypes.get_errno(), f"vmem_create({name})")
        self.handle: int = handle
        self.quantum = quantum

    def _result(self, address: int | None) -> int | None:
        if address is None and ctypes.get_errno() != errno.ENOMEM:
            raise OSError(ctypes.get_errno(), "vmem allocation")
        return address

    def alloc(self, size: int, policy: Flag = Flag.SLEEP) -> int | None:
        return self._result(self._c.vmem_alloc(self.handle, size, Flag.NOSLEEP | policy))

    def free(self, address: int, size: int) -> None:
        self._c.vmem_free(self.handle, address, size)

    def xalloc(
        self,
        size: int,
        align: int = 0,
        phase: int = 0,
        nocross: int = 0,
        minaddr: int = 0,
        maxaddr: int = 0,
        policy: Flag = Flag.SLEEP,
    ) -> int | None:
        return self._result(
            self._c.vmem_xalloc(
                self.handle,
                size,
                align,
                phase,
                nocross,
                minaddr or None,
                maxaddr or None,
                Flag.NOSLEEP | policy,
            )
        )

    def xfree(self, address: int, size: int) -> None:
        self._c.vmem_xfree(self.handle, address, size)

    def add(self, span: Segment) -> None:
        if self._c.vmem_add(self.handle, span.start, span.size, Flag.NOSLEEP) is None:
            raise OSError(ctypes.get_errno(), f"vmem_add({span})")

    def extend(self, span: Segment) -> None:
        if self._c.vmem_extend(self.handle, span.start, span.size, Flag.NOSLEEP) is None:
            raise OSError(ctypes.get_errno(), f"vmem_extend({span})")

    def trim(self) -> int:
        return int(self._c.vmem_trim(self.handle))

    @property
    def id(self) -> int:
        return int(self._c.vmem_id(self.handle))

    def contains(self, address: int, size: int) -> bool:
        return bool(self._c.vmem_contains(self.handle, address, size))

    def walk(self, types: Type) -> list[Segment]:
        found: list[Segment] = []

        def see(_arg: int | None, start: int, size: int) -> None:
            found.append(Segment(start, size))

        self._c.vmem_walk(self.handle, types, _WALKER(see), None)
        return found

    def size(self, types: Type) -> int:
        return int(self._c.vmem_size(self.handle, types))

    def update(self) -> None:
        self._c.vmem_update(self.handle)

    def reap(self) -> None:
        self._c.vmem_reap(self.handle)

    def counters(self) -> Counters:
        counters = Counters()
        self._c.vmem_kstat(self.handle, ctypes.byref(counters))
        return counters

    def set_mtbf(self, mtbf: int, seed: int) -> None:
        self._c.vmem_set_mtbf(self.handle, mtbf, seed)

    def check(self) -> None:
        why = ctypes.create_string_buffer(256)
        assert self._c.vmem_check(self.handle, why, len(why)), why.value.decode()

    def destroy(self) -> int:
        return int(self._c.vmem_destroy(self.handle))
