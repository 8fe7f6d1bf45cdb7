# SPDX-License-Identifier: Apache-2.0
"""vmem against the interval-map model: every policy, every constraint, a tree of arenas.

``OPERATIONS`` (environment: ``NVM_VMEM_OPERATIONS``) are spread over the cases of
``test_long_runs``; the state machine adds shrinkable sequences on top.
"""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from vmem_binding import Arena, Flag, Library, Segment, Type
from vmem_driver import CONSTRAINTS, POLICIES, Level, Tree, random_request, run_batch
from vmem_model import Request, lowest_place

OPERATIONS = int(os.environ.get("NVM_VMEM_OPERATIONS", "200000"))
MIXES = [(policy,) for policy in POLICIES] + [POLICIES]
SHAPES = [(0, 60), (4, 200), (12, 25), (0, 400)]


@given(st.data())
def test_model_places_like_its_definition(data: st.DataObject) -> None:
    """The model's shortcut against trying every address."""
    align = 1 << data.draw(st.integers(0, 5), "align")
    phase = data.draw(st.integers(0, align - 1), "phase")
    size = data.draw(st.integers(1, 40), "size")
    nocross = data.draw(st.sampled_from([0, 8, 16, 32, 64]), "nocross")
    if nocross and (phase & (nocross - 1)) + size > nocross:
        nocross = 64
    minaddr = data.draw(st.integers(0, 100), "min")
    maxaddr = data.draw(st.sampled_from([0, 50, 120, 200]), "max")
    free = Segment(data.draw(st.integers(1, 100)), data.draw(st.integers(1, 200)))
    request = Request(size, align, phase, nocross, minaddr, maxaddr)
    brute = (p for p in range(free.start, free.end - size + 1) if request.allows(p))
    assert lowest_place(request, free) == next(brute, None)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"quantum{1 << s[0]}x{s[1]}")
@pytest.mark.parametrize("mix", MIXES, ids=["instant", "best", "first", "next", "ordered", "all"])
def test_long_runs(library: Library, mix: tuple[Flag, ...], shape: tuple[int, int]) -> None:
    share = -(-OPERATIONS // (len(MIXES) * len(SHAPES)))
    tree = Tree(library, *shape)
    seed = 0
    while tree.operations < share:
        run_batch(tree, seed, min(2500, share - tree.operations), mix)
        seed += 1
        if seed % 2 == 0:
            tree.drain()
    tree.drain()
    run_batch(tree, seed, 300, mix)
    assert tree.operations >= share
    # Every policy has met every constraint, with room and without.
    coverage = tree.coverage
    rare = {
        (repr(policy), constraint, succeeded)
        for policy in mix
        for constraint in CONSTRAINTS
        for succeeded in (True, False)
        if coverage[policy, constraint, succeeded] < share // (400 * len(mix))
    }
    assert not rare, f"too seldom in {tree.operations} operations: {sorted(map(str, rare))}"
    tree.destroy()


class VmemMachine(RuleBasedStateMachine):
    """Single operations with drawn arguments, mixed with seeded batches: failures shrink."""

    library: Library

    @initialize(shift=st.integers(0, 6), size=st.integers(8, 80))
    def create(self, shift: int, size: int) -> None:
        self.tree = Tree(self.library, shift, size)

    def level(self, index: int) -> Level:
        return self.tree.levels[index]

    @rule(
        index=st.integers(0, 2),
        size=st.integers(1, 600),
        policy=st.sampled_from(POLICIES),
        seed=st.none() | st.integers(0, 2**32),
    )
    def allocate(self, index: int, size: int, policy: Flag, seed: int | None) -> None:
        level = self.level(index)
        request = None
        if seed is not None:
            request = random_request(random.Random(seed), level, size)
        level.allocate(size, request, policy)

    @rule(index=st.integers(0, 2), pick=st.integers(0))
    def free(self, index: int, pick: int) -> None:
        pieces = self.level(index).pieces
        if pieces:
            self.level(index).free(pick % len(pieces))

    @rule(size=st.integers(1, 30))
    def add_span(self, size: int) -> None:
        self.tree.add_span(size)

    @rule(size=st.integers(1, 30))
    def extend_span(self, size: int) -> None:
        self.tree.extend_span(size)

    @rule(index=st.integers(0, 2))
    def trim(self, index: int) -> None:
        self.level(index).trim()

    @rule(mtbf=st.sampled_from([0, 1, 2, 10]), seed=st.integers(0, 2**64 - 1))
    def induce_failures(self, mtbf: int, seed: int) -> None:
        self.tree.leaf.set_mtbf(mtbf, seed)

    @rule(index=st.integers(0, 2))
    def update(self, index: int) -> None:
        self.level(index).arena.update()

    @precondition(lambda self: hasattr(self, "tree"))
    @rule(index=st.integers(0, 2), data=st.data())
    def contains(self, index: int, data: st.DataObject) -> None:
        level = self.level(index)
        spans = [(s.start, s.end) for s in level.model.spans]
        near = [1, *(edge + off for span in spans for edge in span for off in (-1, 0, 1))]
        start = data.draw(st.sampled_from(near))
        size = data.draw(st.integers(1, 200))
        covered = sum(max(0, min(e, start + size) - max(s, start)) for s, e in spans)
        assert level.arena.contains(start, size) == (covered == size)

    @rule(
        index=st.integers(0, 2),
        bad=st.sampled_from(["zero", "align", "phase", "nocross", "bounds", "odd"]),
    )
    def impossible(self, index: int, bad: str) -> None:
        """Refused, whatever is free; the invariant then sees that nothing has changed."""
        level = self.level(index)
        quantum = level.model.quantum
        # size, align, phase, nocross, minaddr, maxaddr
        arguments = {
            "zero": (0, 0, 0, 0, 0, 0),
            "align": (1, 3 * quantum, 0, 0, 0, 0),
            "phase": (1, 2 * quantum, 2 * quantum, 0, 0, 0),
            "nocross": (2 * quantum, 0, 0, quantum, 0, 0),
            "bounds": (2 * quantum, 0, 0, 0, 8 * quantum, 9 * quantum),
            "odd": (1, 0, 0, 3 * quantum, 0, 0),
        }
        with pytest.raises(OSError, match="vmem allocation"):
            level.arena.xalloc(*arguments[bad])

    @rule(seed=st.integers(0, 2**32), steps=st.integers(1, 200), mix=st.sampled_from(MIXES))
    def batch(self, seed: int, steps: int, mix: tuple[Flag, ...]) -> None:
        run_batch(self.tree, seed, steps, mix)

    @rule()
    def drain(self) -> None:
        self.tree.drain()

    @invariant()
    def equals_the_model(self) -> None:
        if hasattr(self, "tree"):
            self.tree.check()

    def teardown(self) -> None:
        if hasattr(self, "tree"):
            self.tree.destroy()


def test_state_machine(library: Library) -> None:
    VmemMachine.library = library
    run_state_machine_as_test(
        VmemMachine,
        settings=settings(
            max_examples=60,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("seed", range(6))
def test_hash_is_the_live_set_across_rescaling(library: Library, seed: int) -> None:
    """Up to thousands of segments and down again; check() counts the hash, walk the live set."""
    rng = random.Random(seed)
    arena = Arena(library, "rescale", 1, span=Segment(1, 100_000))
    live: dict[int, int] = {}
    for target in (3000, 10, 9000, 500, 0):
        while len(live) != target:
            if len(live) < target:
                size = rng.randint(1, 8)
                address = arena.alloc(size)
                assert address is not None
                assert address not in live
                live[address] = size
            else:
                address = rng.choice(list(live)[:50])
                arena.free(address, live.pop(address))
        arena.check()
        assert arena.walk(Type.ALLOC) == [Segment(a, live[a]) for a in sorted(live)]
    assert arena.walk(Type.FREE) == [Segment(1, 100_000)]
    assert arena.destroy() == 0


@pytest.mark.parametrize("qcache_quanta", [1, 5, 16])
@pytest.mark.parametrize("quantum", [1, 64])
def test_quantum_caches(library: Library, quantum: int, qcache_quanta: int) -> None:
    """With caches addresses can't be predicted; what must hold of them can."""
    rng = random.Random(quantum * 100 + qcache_quanta)
    source = Arena(library, "source", 8 * quantum, span=Segment(8 * quantum, 4000 * quantum))
    arena = Arena(library, "cached", quantum, source=source, qcache_max=qcache_quanta * quantum)
    owner: dict[int, int] = {}  # quantum number -> address of the piece that has it
    live: list[tuple[int, int, bool]] = []
    for step in range(20_000):
        if live and rng.random() < (0.3 if step // 2000 % 2 else 0.6):
            index = rng.randrange(len(live))
            live[index], live[-1] = live[-1], live[index]
            address, size, constrained = live.pop()
            (arena.xfree if constrained else arena.free)(address, size)
            for i in range(address // quantum, (address + size - 1) // quantum + 1):
                assert owner.pop(i) == address
        else:
            size = rng.randint(1, 20 * quantum)
            constrained = rng.random() < 0.2
            answer = arena.xalloc(size) if constrained else arena.alloc(size)
            if answer is None:
                rounded = (size + quantum - 1) // quantum * quantum
                assert all(s.size < rounded for s in arena.walk(Type.FREE))
                arena.reap()  # nor did the caches hold back what would have made it fit
                assert all(s.size < rounded for s in arena.walk(Type.FREE))
                assert all(s.size < rounded for s in source.walk(Type.FREE))
                continue
            assert answer % quantum == 0
            assert arena.contains(answer, size)
            for i in range(answer // quantum, (answer + size - 1) // quantum + 1):
                assert i not in owner, f"{answer:#x} overlaps {owner[i]:#x} at step {step}"
                owner[i] = answer
            live.append((answer, size, constrained))
        if step % 1000 == 0:
            arena.check()
            source.check()
    for address, size, constrained in live:
        (arena.xfree if constrained else arena.free)(address, size)
    arena.reap()
    assert arena.size(Type.SPAN) == 0, "every slab and every import has gone back"
    assert source.size(Type.ALLOC) == 0
    assert arena.destroy() == 0
    assert source.destroy() == 0
