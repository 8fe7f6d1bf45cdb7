# SPDX-License-Identifier: Apache-2.0
"""nvmalloc against a model of it: what each slot of two heaps refers to, and nothing else.

The model of a heap is a dictionary: slot -> content.  After every rule the slots refer to
blocks with that content, which do not overlap, no other block is live, and nvm_check() finds
nothing.  A kill is a copy of the file while the heap is open, which is what a SIGKILL leaves:
the page cache has every store of the process, and no more.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nvmalloc_binding import ALLOC, FREE, GC, LOG_OWNED, LOG_STRICT, MOVE, Action, Heap, load

SLOTS = 24
NAMES = ["a", "another name", "x" * 39]
EXAMPLES = int(os.environ.get("NVM_MODEL_EXAMPLES", "25"))

heaps = st.integers(0, 1)
numbers = st.integers(0, SLOTS - 1)
sizes = st.one_of(
    st.integers(0, 100),
    st.integers(0, 5000),
    st.sampled_from([64, 65, 2048, 2049, 65536, 65537, 524288, 524289, 700000]),
)


@pytest.fixture(autouse=True, scope="module")
def library(native_build: Path) -> None:
    Heaps.library = load(native_build)


class Model:
    """A heap and what it should hold."""

    def __init__(self, library: ctypes.CDLL, path: Path, mode: int, grows: bool) -> None:
        self.mode = mode
        self.heap = Heap(library, path, SLOTS)
        self.heap.create(1 << 20 if grows else 3 << 20, 3 << 20, mode)
        self.slots: dict[int, bytes] = {}
        self.names: dict[str, bytes | None] = {}
        self.reserved: list[tuple[int, bytes]] = []
        self.stamp = 0

    def bytes_of(self, size: int) -> bytes:
        self.stamp = self.stamp % 250 + 1
        return bytes([self.stamp]) * size

    def expect(self, result: int, *expected: int) -> int:
        assert result in expected, f"{errno.errorcode.get(result, result)}: {self.heap.reason()}"
        return result

    def address(self, slot: int) -> int:
        return self.heap.slot(slot)

    def fill(self, slot_address: int, size: int) -> bytes:
        content = self.bytes_of(size)
        self.heap.write(self.heap.read(slot_address), content)
        return content

    def reopen(self) -> None:
        self.reserved = []
        self.heap.open()

    def verify(self) -> None:
        heap, live = self.heap, self.heap.blocks()
        references = {heap.library.nvm_off(heap.handle, heap.table)}
        expected = [(self.address(slot), content) for slot, content in self.slots.items()]
        for name, content in self.names.items():
            address = heap.named(name, create=False)
            assert address is not None, f"the name {name} is gone"
            expected.append((address, content)) if content is not None else None
        for address, content in expected:
            reference = heap.read(address)
            assert heap.usable(reference) >= max(len(content), 1)
            assert heap.content(reference, len(content)) == content
            references.add(reference)
        for slot in range(SLOTS):
            assert slot in self.slots or heap.read(self.address(slot)) == 0
        assert len(references) == len(expected) + 1
        assert set(live) == references
        end = 0
        for reference, usable in sorted(live.items()):
            assert reference >= end, "two blocks overlap"
            end = reference + usable
        assert heap.library.nvm_check(heap.handle) == 0, heap.reason()


class Heaps(RuleBasedStateMachine):
    """Two heaps, of any modes, used in turn."""

    library: ClassVar[ctypes.CDLL]

    def __init__(self) -> None:
        super().__init__()
        base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.folder = Path(tempfile.mkdtemp(prefix="nvmalloc-model-", dir=base))
        self.models: list[Model] = []

    @initialize(
        modes=st.tuples(*[st.sampled_from([LOG_OWNED, LOG_STRICT, GC])] * 2), grows=st.booleans()
    )
    def create(self, modes: tuple[int, int], grows: bool) -> None:
        self.models = [
            Model(self.library, self.folder / f"heap{i}", mode, grows)
            for i, mode in enumerate(modes)
        ]

    def teardown(self) -> None:
        for model in self.models:
            if model.heap.handle:
                model.heap.close()
        shutil.rmtree(self.folder)

    @rule(heap=heaps, slot=numbers, size=sizes)
    def malloc(self, heap: int, slot: int, size: int) -> None:
        model = self.models[heap]
        call = model.heap.library.nvm_malloc_to
        full = slot in model.slots
        error = model.expect(
            call(model.heap.handle, model.address(slot), size),
            *([errno.EINVAL] if full else [0, errno.ENOMEM]),
        )
        if error == 0:
            model.slots[slot] = model.fill(model.address(slot), size)

    @rule(heap=heaps, slot=numbers, size=sizes, power=st.integers(0, 21))
    def malloc_aligned(self, heap: int, slot: int, size: int, power: int) -> None:
        model = self.models[heap]
        if slot in model.slots:
            return
        address = model.address(slot)
        call = model.heap.library.nvm_aligned_malloc_to
        error = model.expect(call(model.heap.handle, address, 1 << power, size), 0, errno.ENOMEM)
        if error == 0:
            block = model.heap.library.nvm_ptr(model.heap.handle, model.heap.read(address))
            assert block % (1 << power) == 0
            model.slots[slot] = model.fill(address, size)

    @rule(heap=heaps, slot=numbers)
    def free(self, heap: int, slot: int) -> None:
        model = self.models[heap]
        model.expect(
            model.heap.library.nvm_free_from(model.heap.handle, model.address(slot)),
            0 if slot in model.slots else errno.EINVAL,
        )
        model.slots.pop(slot, None)

    @rule(heap=heaps, slot=numbers, size=sizes)
    def realloc(self, heap: int, slot: int, size: int) -> None:
        model = self.models[heap]
        address = model.address(slot)
        call = model.heap.library.nvm_realloc_to
        if model.expect(call(model.heap.handle, address, size), 0, errno.ENOMEM) != 0:
            return
        old = model.slots.get(slot, b"")
        kept = min(len(old), size)
        assert model.heap.content(model.heap.read(address), kept) == old[:kept]
        model.slots[slot] = model.fill(address, size)

    @rule(heap=heaps, origin=numbers, goal=numbers)
    def move(self, heap: int, origin: int, goal: int) -> None:
        model = self.models[heap]
        possible = origin in model.slots and goal not in model.slots and origin != goal
        error = model.heap.library.nvm_move_to(
            model.heap.handle, model.address(origin), model.address(goal)
        )
        if model.mode == GC:
            model.expect(error, errno.ENOTSUP)
        elif model.expect(error, 0 if possible else errno.EINVAL) == 0:
            model.slots[goal] = model.slots.pop(origin)

    @rule(heap=heaps, slots=st.lists(numbers, min_size=1, max_size=8, unique=True), size=sizes)
    def publish(self, heap: int, slots: list[int], size: int) -> None:
        """Empty slots get new blocks, full ones are freed, in one group."""
        model = self.models[heap]
        slots = slots[:1] if model.mode == GC else slots
        actions: list[Action] = []
        after = dict(model.slots)
        for slot in slots:
            if slot in model.slots:
                actions.append(Action(FREE, model.address(slot), None, 0))
                del after[slot]
                continue
            ref = model.heap.library.nvm_reserve(model.heap.handle, size)
            if ref == 0:
                assert ctypes.get_errno() == errno.ENOMEM
                continue
            content = model.bytes_of(size)
            model.heap.write(ref, content)
            actions.append(Action(ALLOC, model.address(slot), None, ref))
            after[slot] = content
        model.expect(model.heap.publish(actions), 0)
        model.slots = after

    @rule(heap=heaps, slots=st.lists(numbers, min_size=2, max_size=6, unique=True))
    def rotate(self, heap: int, slots: list[int]) -> None:
        """A block moves along a chain of slots, in one group; the last must be empty."""
        model = self.models[heap]
        if model.mode == GC or slots[0] not in model.slots:
            return
        actions = [
            Action(MOVE, model.address(target), model.address(origin), 0)
            for origin, target in pairwise(slots)
        ]
        possible = not any(slot in model.slots for slot in slots[1:])
        if model.expect(model.heap.publish(actions), 0 if possible else errno.EINVAL) == 0:
            model.slots[slots[-1]] = model.slots.pop(slots[0])

    @rule(heap=heaps, size=sizes)
    def reserve(self, heap: int, size: int) -> None:
        model = self.models[heap]
        ref = model.heap.library.nvm_reserve(model.heap.handle, size)
        if ref != 0:
            content = model.bytes_of(size)
            model.heap.write(ref, content)
            model.reserved.append((ref, content))

    @precondition(lambda self: any(model.reserved for model in self.models))
    @rule(slot=numbers, cancel=st.booleans())
    def settle_reserved(self, slot: int, cancel: bool) -> None:
        model = next(model for model in self.models if model.reserved)
        ref, content = model.reserved.pop()
        assert model.heap.content(ref, len(content)) == content
        if cancel or slot in model.slots:
            model.expect(model.heap.library.nvm_cancel(model.heap.handle, ref), 0)
            model.expect(model.heap.library.nvm_cancel(model.heap.handle, ref), errno.EINVAL)
            return
        action = Action(ALLOC, model.address(slot), None, ref)
        model.expect(model.heap.publish([action]), 0)
        model.slots[slot] = content
        model.expect(model.heap.publish([action]), errno.EINVAL)  # twice

    @rule(heap=heaps, name=st.sampled_from(NAMES), size=sizes)
    def name(self, heap: int, name: str, size: int) -> None:
        model = self.models[heap]
        address = model.heap.named(name, create=True)
        assert address is not None
        if model.names.setdefault(name, None) is not None:
            return
        call = model.heap.library.nvm_malloc_to
        if model.expect(call(model.heap.handle, address, size), 0, errno.ENOMEM) == 0:
            model.names[name] = model.fill(address, size)

    @rule(heap=heaps, name=st.sampled_from(NAMES))
    def unname(self, heap: int, name: str) -> None:
        model = self.models[heap]
        library, handle = model.heap.library, model.heap.handle
        if name not in model.names:
            model.expect(library.nvm_unname(handle, name.encode()), errno.ENOENT)
            return
        if model.names[name] is not None:
            model.expect(library.nvm_unname(handle, name.encode()), errno.EINVAL)
            model.expect(library.nvm_free_from(handle, model.heap.named(name, create=False)), 0)
        model.expect(library.nvm_unname(handle, name.encode()), 0)
        assert model.heap.named(name, create=False) is None
        del model.names[name]

    @rule(heap=heaps, slot=numbers, size=sizes)
    def plainly(self, heap: int, slot: int, size: int) -> None:
        """GC: as in DRAM, with the application's own stores to the slot."""
        model = self.models[heap]
        library, handle = model.heap.library, model.heap.handle
        if slot in model.slots:
            if model.mode != GC:
                return
            address = library.nvm_ptr(handle, model.heap.read(model.address(slot)))
            model.heap.store(model.address(slot), 0)
            model.expect(library.nvm_free(handle, address), 0)
            model.expect(library.nvm_free(handle, address), errno.EINVAL)
            del model.slots[slot]
            return
        block = library.nvm_malloc(handle, size)
        if model.mode != GC:
            assert not block
            assert ctypes.get_errno() == errno.ENOTSUP
        elif block:
            content = model.bytes_of(size)
            model.heap.write(library.nvm_off(handle, block), content)
            model.heap.store(model.address(slot), library.nvm_off(handle, block))
            model.slots[slot] = content

    @rule(slot=numbers, size=sizes)
    def take_for_the_other(self, slot: int, size: int) -> None:
        """Each heap refuses the other's slots."""
        for model, other in (self.models, self.models[::-1]):
            library, handle = model.heap.library, model.heap.handle
            foreign = other.address(slot)
            model.expect(library.nvm_free_from(handle, foreign), errno.EINVAL)
            model.expect(library.nvm_malloc_to(handle, foreign, size), errno.EINVAL)
            model.expect(library.nvm_realloc_to(handle, foreign, size), errno.EINVAL)

    @rule(heap=heaps)
    def trim(self, heap: int) -> None:
        model = self.models[heap]
        model.expect(model.heap.library.nvm_trim(model.heap.handle, None), 0)

    @rule(heap=heaps)
    def leave(self, heap: int) -> None:
        model = self.models[heap]
        model.heap.library.nvm_thread_leave(model.heap.handle)

    @rule(heap=heaps)
    def close_and_open(self, heap: int) -> None:
        model = self.models[heap]
        model.heap.close()
        model.reopen()

    @rule(heap=heaps)
    def kill(self, heap: int) -> None:
        model = self.models[heap]
        left = model.heap.path.with_suffix(".left")
        shutil.copyfile(model.heap.path, left)
        model.heap.close()
        left.replace(model.heap.path)
        model.reopen()

    @invariant()
    def holds(self) -> None:
        for model in self.models:
            # Reserved blocks are neither live nor free; the walk leaves them out.
            model.verify()


Heaps.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize="CI" in os.environ,
)
TestHeaps = Heaps.TestCase
