# SPDX-License-Identifier: Apache-2.0
"""Real arenas and their models side by side: every operation goes to both and is compared."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

from vmem_binding import Arena, Flag, Library, Segment, Type
from vmem_model import ArenaModel, Request, import_size, lowest_place

__all__ = ["CONSTRAINTS", "POLICIES", "Level", "Piece", "Tree", "run_batch"]

ORDERED = Flag.BESTFIT | Flag.FIRSTFIT
POLICIES = (Flag.SLEEP, Flag.BESTFIT, Flag.FIRSTFIT, Flag.NEXTFIT, ORDERED)
_MASK = (1 << 64) - 1


class Splitmix:
    """The generator of induced failures, as documented: splitmix64."""

    def __init__(self, seed: int) -> None:
        self.state = seed & _MASK

    def next(self) -> int:
        self.state = (self.state + 0x9E3779B97F4A7C15) & _MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return z ^ (z >> 31)


@dataclass(frozen=True)
class Piece:
    address: int
    size: int  # as requested
    constrained: bool


class Level:
    """One arena with its model; ``pieces`` are the caller's own, not those of child arenas."""

    def __init__(
        self, library: Library, name: str, quantum: int, span: Segment | None, source: Level | None
    ) -> None:
        self.arena: Arena = Arena(
            library, name, quantum, span=span, source=source.arena if source else None
        )
        self.model: ArenaModel = ArenaModel(quantum, source.model if source else None)
        if span is not None:
            self.model.add_span(span)
        self.source = source
        self.pieces: list[Piece] = []
        self.coverage: Counter[tuple[Flag, str, bool]] = Counter()
        """How often which policy met which constraint, and whether that succeeded."""
        self._mtbf = 0
        self._failures = Splitmix(0)

    def set_mtbf(self, mtbf: int, seed: int) -> None:
        self.arena.set_mtbf(mtbf, seed)
        self._mtbf, self._failures = mtbf, Splitmix(seed)

    def request(
        self,
        size: int,
        align: int = 0,
        phase: int = 0,
        nocross: int = 0,
        minaddr: int = 0,
        maxaddr: int = 0,
    ) -> Request:
        return Request(
            self.model.round(size), align or self.model.quantum, phase, nocross, minaddr, maxaddr
        )

    def allocate(
        self, size: int, request: Request | None = None, policy: Flag = Flag.SLEEP
    ) -> Piece | None:
        """Allocate under ``request`` (None: vmem_alloc), and hold the answer against the model."""
        constrained = request is not None
        if request is None:
            request = self.request(size)
            address = self.arena.alloc(size, policy)
        else:
            address = self.arena.xalloc(
                size,
                request.align,
                request.phase,
                request.nocross,
                request.minaddr,
                request.maxaddr,
                policy,
            )
        if self._mtbf and self._failures.next() % self._mtbf == 0:
            assert address is None, "an induced failure was due"
            self.model.fails += 1
            return None
        self.settle(request, policy, address)
        if address is None:
            return None
        piece = Piece(address, size, constrained)
        self.pieces.append(piece)
        return piece

    def settle(self, request: Request, policy: Flag, address: int | None) -> None:
        """Was that the right answer? Then do the same to the model."""
        right = self.model.permitted(request, policy)
        self.coverage.update(
            (policy, constraint, address is not None)
            for constraint in constraints(request, self.model)
        )
        if address is None:
            assert not right, f"NULL although {request} fits at {sorted(right)}"
            assert not self.model.can_import(request), f"NULL although {request} can be imported"
            self.count_failure(request)
            self.check_failed()
            return
        assert request.allows(address), f"{address:#x} violates {request}"
        if right:
            assert address in right, f"{address:#x} for {request} {policy!r}, not {sorted(right)}"
        else:
            span = self._settle_import(request)
            assert address == lowest_place(request, span), f"{address:#x} in fresh span {span}"
        self.model.take(address, request.size, policy)

    def _settle_import(self, request: Request) -> Segment:
        assert self.source is not None, f"{request} fits nowhere, and there is no source"
        assert not request.bounded, f"bounded {request} must not import"
        known = len(self.model.spans)
        spans = self.arena.walk(Type.SPAN)
        assert len(spans) == known + 1, "exactly one span is imported, and comes last"
        span = spans[-1]
        assert span.size == import_size(request, self.model.quantum, self.source.model.quantum)
        source_request = self.source.request(span.size)
        self.source.settle(source_request, Flag.SLEEP, span.start)
        self.model.add_span(span, imported=True)
        return span

    def count_failure(self, request: Request) -> None:
        self.model.fails += 1
        if self.source is not None and not request.bounded:
            size = import_size(request, self.model.quantum, self.source.model.quantum)
            self.source.count_failure(self.source.request(size))

    def check_failed(self) -> None:
        """A failed operation has changed counters only, here and in the sources it asked."""
        level: Level | None = self
        while level is not None:
            level.check()
            level = level.source

    def free(self, index: int) -> None:
        piece = self.pieces[index]
        self.pieces[index] = self.pieces[-1]
        self.pieces.pop()
        if piece.constrained:
            self.arena.xfree(piece.address, piece.size)
        else:
            self.arena.free(piece.address, piece.size)
        self.model.release(piece.address)

    def trim(self) -> None:
        """Give back what is free in imports: exactly that, and nothing else changes."""
        assert self.arena.trim() == self.model.trim()

    def check(self) -> None:
        """Everything that can be observed equals the model."""
        arena, model = self.arena, self.model
        arena.check()
        assert arena.walk(Type.SPAN) == [Segment(s.start, s.end - s.start) for s in model.spans]
        allocated, free = model.allocated, model.free
        assert arena.walk(Type.ALLOC) == allocated
        assert arena.walk(Type.FREE) == free
        assert arena.walk(Type.FREE | Type.REENTRANT) == free
        inuse = sum(s.size for s in allocated)
        assert arena.size(Type.ALLOC) == inuse
        assert arena.size(Type.FREE) == sum(s.size for s in free) == model.total - inuse
        imported = model.imported
        expected = {
            "mem_inuse": inuse,
            "mem_total": model.total,
            "mem_import": sum(s.size for s in imported),
            "alloc": model.allocs,
            "free": model.frees,
            "fail": model.fails,
            "wait": 0,
        }
        counters = arena.counters()
        assert {name: counters.value(name) for name in expected} == expected
        if model.source is not None and self.source is not None:
            own = [Segment(p.address, model.source.round(p.size)) for p in self.source.pieces]
            assert sorted([*own, *imported]) == model.source.allocated_by_address, (
                "a source's allocations are its customers' pieces and the child's imports"
            )


class Tree:
    """leaf imports from mid, mid from top; all three have customers of their own."""

    def __init__(self, library: Library, shift: int, size: int) -> None:
        quantum = 1 << shift
        self.top = Level(
            library, "top", 4 * quantum, Segment(4 * quantum, size * 4 * quantum), None
        )
        self.mid = Level(library, "mid", 2 * quantum, None, self.top)
        # A span of its own far away: added spans and imported ones side by side.
        own = Segment(1 << 40, 40 * quantum)
        self.leaf = Level(library, "leaf", quantum, own, self.mid)
        self.levels = (self.leaf, self.mid, self.top)
        self.operations = 0
        self._added = 0

    @property
    def coverage(self) -> Counter[tuple[Flag, str, bool]]:
        return sum((level.coverage for level in self.levels), Counter())

    def add_span(self, size: int) -> None:
        quantum = self.leaf.model.quantum
        self._added += 1
        span = Segment((1 << 41) + self._added * (1 << 30), size * quantum)
        self.leaf.arena.add(span)
        self.leaf.model.add_span(span)

    def extend_span(self, size: int) -> None:
        """The first added span of the leaf grows."""
        own = next(span for span in self.leaf.model.spans if not span.imported)
        more = Segment(own.end, size * self.leaf.model.quantum)
        self.leaf.arena.extend(more)
        self.leaf.model.extend_span(more)

    def check(self) -> None:
        for level in self.levels:
            level.check()

    def drain(self) -> None:
        """Free everything: imports go back, what was added stays, and is whole."""
        for level in self.levels:
            while level.pieces:
                level.free(len(level.pieces) - 1)
        self.check()
        assert self.mid.arena.size(Type.SPAN) == 0
        assert self.top.arena.size(Type.ALLOC) == 0
        assert all(not span.imported for span in self.leaf.model.spans)

    def destroy(self) -> None:
        for level in self.levels:
            mine = sum(s.size for s in level.model.allocated)
            assert level.arena.destroy() == mine
            if level.source is not None:
                for segment in level.model.imported:
                    level.source.model.release(segment.start)


CONSTRAINTS = ("none", "align", "phase", "nocross", "min", "max")


def constraints(request: Request, model: ArenaModel) -> list[str]:
    """Which constraints a request has, by the names in CONSTRAINTS."""
    present = {
        "align": request.align > model.quantum,
        "phase": request.phase != 0,
        "nocross": request.nocross != 0,
        "min": request.minaddr != 0,
        "max": request.maxaddr != 0,
    }
    return [name for name, there in present.items() if there] or ["none"]


def random_request(rng: random.Random, level: Level, size: int) -> Request:
    """Any mix of constraints that some place could meet."""
    model = level.model
    quantum, rounded = model.quantum, model.round(size)
    align = quantum << rng.choice((0, 0, 1, 2, 3, 5))
    phase = rng.randrange(0, align, quantum) if rng.random() < 0.4 else 0
    nocross = 0
    if rng.random() < 0.4:
        nocross = quantum << rng.randrange(8)
        while (phase & (nocross - 1)) + rounded > nocross:
            nocross <<= 1
    minaddr = maxaddr = 0
    if rng.random() < 0.3 and model.spans:
        span = rng.choice(model.spans)
        low = rng.randrange(span.start, span.end, quantum)
        minaddr = low if rng.random() < 0.7 else 0
        if rng.random() < 0.7:
            maxaddr = low + rounded + quantum * rng.choice((0, 0, 1, 5, 50))
    return Request(rounded, align, phase, nocross, minaddr, maxaddr)


def random_step(rng: random.Random, tree: Tree, policies: tuple[Flag, ...]) -> None:
    level = rng.choices(tree.levels, (6, 2, 1))[0]
    quantum = level.model.quantum
    roll = rng.random()
    if roll < 0.45 and level.pieces:
        level.free(rng.randrange(len(level.pieces)))
    elif roll < 0.47:
        for _ in range(len(level.pieces) // 2):
            level.free(rng.randrange(len(level.pieces)))
    elif roll < 0.475:
        level.trim()
    elif roll < 0.476:
        tree.extend_span(rng.randint(1, 10))
    elif len(level.pieces) > 60:
        level.free(rng.randrange(len(level.pieces)))
    else:
        size = rng.randint(1, quantum * rng.choice((1, 2, 4, 8, 8, 20, 60)))
        if rng.random() < 0.06:  # more than there is, often
            size = rng.randint(1, 3 * level.model.total + quantum)
        policy = rng.choice(policies)
        if roll < 0.75:
            level.allocate(size, None, policy)
        else:
            level.allocate(size, random_request(rng, level, size), policy)
    tree.operations += 1


def run_batch(tree: Tree, seed: int, steps: int, policies: tuple[Flag, ...] = POLICIES) -> None:
    """``steps`` random steps that only ``seed`` and the state of ``tree`` decide."""
    rng = random.Random(seed)
    for step in range(steps):
        try:
            random_step(rng, tree, policies)
            if step % 64 == 0:
                tree.check()
        except AssertionError as error:
            error.add_note(f"run_batch(seed={seed}, policies={policies!r}) at step {step}")
            raise
    tree.check()
