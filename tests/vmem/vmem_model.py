# SPDX-License-Identifier: Apache-2.0
"""The interval-map model of an arena: what it may answer, and what it must hold afterwards.

The model keeps spans, in the order in which they came, and the allocated pieces of each. Free
segments are what lies between them, computed afresh for every question: slow, and without any
of the structures (free lists, bitmap, hash, boundary tags) that are under test.

It predicts; where the policy leaves a choice it says which answers are right.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field

from vmem_binding import Flag, Segment

__all__ = ["ArenaModel", "Request", "Span", "import_size", "lowest_place"]


@dataclass(frozen=True)
class Request:
    """A valid request; ``maxaddr`` 0 means unbounded, ``nocross`` 0 no boundary."""

    size: int
    align: int
    phase: int = 0
    nocross: int = 0
    minaddr: int = 0
    maxaddr: int = 0

    @property
    def bounded(self) -> bool:
        return self.minaddr != 0 or self.maxaddr != 0

    def allows(self, place: int) -> bool:
        """The definition of the constraints, word by word."""
        end = place + self.size
        return (
            place % self.align == self.phase
            and (self.nocross == 0 or place // self.nocross == (end - 1) // self.nocross)
            and place >= self.minaddr
            and (self.maxaddr == 0 or end <= self.maxaddr)
        )


def lowest_place(request: Request, free: Segment) -> int | None:
    """The lowest address in ``free`` that the request allows.

    Candidates are the places that the alignment allows, from below. One that crosses a
    boundary rules out all up to that boundary, so two candidates decide.
    """
    place = max(free.start, request.minaddr)
    place += (request.phase - place) % request.align
    end = min(free.end, request.maxaddr or free.end)
    for _ in range(2):
        if place + request.size > end:
            return None
        if request.allows(place):
            return place
        place = (place + request.size - 1) // request.nocross * request.nocross
        place += (request.phase - place) % request.align
    return None


def import_size(request: Request, quantum: int, source_quantum: int) -> int:
    """What has to be imported so that the request fits wherever the span begins."""
    total = request.size + request.align - quantum
    if request.nocross > request.align:
        total += request.size + request.phase
    unit = max(quantum, source_quantum)
    return (total + unit - 1) // unit * unit


@dataclass
class Span:
    start: int
    end: int
    imported: bool
    starts: list[int] = field(default_factory=list)
    sizes: dict[int, int] = field(default_factory=dict)

    def free_segments(self) -> list[Segment]:
        free: list[Segment] = []
        at = self.start
        for start in self.starts:
            if start > at:
                free.append(Segment(at, start - at))
            at = start + self.sizes[start]
        if self.end > at:
            free.append(Segment(at, self.end - at))
        return free


class ArenaModel:
    def __init__(self, quantum: int, source: ArenaModel | None = None) -> None:
        self.quantum = quantum
        self.source = source
        self.spans: list[Span] = []
        self.rotor: tuple[Span, int] | None = None  # None: before the first span
        self.allocs = 0
        self.frees = 0
        self.fails = 0

    def round(self, size: int) -> int:
        return (size + self.quantum - 1) // self.quantum * self.quantum

    # What must hold

    @property
    def allocated(self) -> list[Segment]:
        return [Segment(s, p.sizes[s]) for p in self.spans for s in p.starts]

    @property
    def allocated_by_address(self) -> list[Segment]:
        return sorted(self.allocated)

    @property
    def free(self) -> list[Segment]:
        return [segment for span in self.spans for segment in span.free_segments()]

    @property
    def total(self) -> int:
        return sum(span.end - span.start for span in self.spans)

    @property
    def imported(self) -> list[Segment]:
        return [Segment(p.start, p.end - p.start) for p in self.spans if p.imported]

    # What may be answered

    def feasible(self, request: Request) -> list[tuple[Segment, int]]:
        """Free segments in which the request fits, in order, with the lowest place in each."""
        places = ((segment, lowest_place(request, segment)) for segment in self.free)
        return [(segment, place) for segment, place in places if place is not None]

    def can_import(self, request: Request) -> bool:
        """Must an import for the request succeed? (Asked when nothing fits here.)"""
        if self.source is None or request.bounded:
            return False
        size = import_size(request, self.quantum, self.source.quantum)
        wanted = Request(self.source.round(size), self.source.quantum)
        return bool(self.source.feasible(wanted)) or self.source.can_import(wanted)

    def next_fit(self, request: Request) -> int | None:
        """The first place at or behind the rotor, in the order of spans, then from the front."""
        free = [(i, s) for i, span in enumerate(self.spans) for s in span.free_segments()]
        if self.rotor is None:
            first, address = 0, 0
        else:
            first, address = self.spans.index(self.rotor[0]), self.rotor[1]
        behind: list[Segment] = []
        for i, segment in free:
            if i > first or (i == first and segment.start >= address):
                behind.append(segment)
            elif i == first and segment.end > address:
                behind.append(Segment(address, segment.end - address))
        for segment in behind + [s for _, s in free]:
            place = lowest_place(request, segment)
            if place is not None:
                return place
        return None

    def permitted(self, request: Request, policy: Flag) -> set[int]:
        """All right answers without an import; empty if the request must fail or import."""
        feasible = self.feasible(request)
        if not feasible:
            return set()
        if policy & Flag.NEXTFIT:
            place = self.next_fit(request)
            assert place is not None
            return {place}
        if policy & Flag.BESTFIT:
            least = min(segment.size for segment, _ in feasible)
            smallest = {place for segment, place in feasible if segment.size == least}
            return {min(smallest)} if policy & Flag.FIRSTFIT else smallest
        if policy & Flag.FIRSTFIT:
            return {min(place for _, place in feasible)}
        if not request.bounded and request.nocross == 0:
            # Instant fit: the first power of two at which everything fits, if there is any.
            need = request.size + request.align - self.quantum
            classes = {s.size.bit_length() - 1 for s, _ in feasible}
            sure = [c for c in classes if c >= (need - 1).bit_length()]
            if sure:
                low = min(sure)
                return {place for s, place in feasible if s.size.bit_length() - 1 == low}
        lowest = min(s.size.bit_length() for s, _ in feasible)
        return {place for s, place in feasible if s.size.bit_length() == lowest}

    # What happens

    def add_span(self, span: Segment, *, imported: bool = False) -> Span:
        new = Span(span.start, span.end, imported)
        self.spans.append(new)
        return new

    def extend_span(self, span: Segment) -> None:
        """What is added grows the added span that ends there, if there is one."""
        for before in self.spans:
            if before.end == span.start and not before.imported:
                before.end = span.end
                return
        self.add_span(span)

    def trim(self) -> int:
        """Every imported span is cut down to its allocated runs, in quanta of the source; what was
        given back."""
        given = 0
        for span in [span for span in self.spans if span.imported]:
            given += self._trim_span(span)
        return given

    def _trim_span(self, span: Span) -> int:
        assert self.source is not None
        cuts = [
            Segment(low, high - low)
            for s in span.free_segments()
            if (low := self.source.round(s.start))
            < (high := s.end // self.source.quantum * self.source.quantum)
        ]
        if not cuts:
            return 0
        edges = [span.start, *(edge for cut in cuts for edge in (cut.start, cut.end)), span.end]
        runs = [
            Span(low, high, True, [start for start in span.starts if low <= start < high])
            for low, high in zip(edges[::2], edges[1::2], strict=True)
            if low < high
        ]
        for run in runs:
            run.sizes = {start: span.sizes[start] for start in run.starts}
        self.source.split(span, runs, cuts)
        index = self.spans.index(span)
        self.spans[index : index + 1] = runs
        if self.rotor is not None and self.rotor[0] is span:
            self.rotor = self._rotor_among(runs, self.spans[index + len(runs) :], self.rotor[1])
        return sum(cut.size for cut in cuts)

    @staticmethod
    def _rotor_among(runs: list[Span], following: list[Span], at: int) -> tuple[Span, int] | None:
        """The rotor's place in what is left of its span, or the first place behind it."""
        for run in runs:
            if at <= run.end:
                return run, max(at, run.start)
        return (following[0], following[0].start) if following else None

    def split(self, import_: Span, runs: list[Span], cuts: list[Segment]) -> None:
        """An allocation becomes one for each run; each cut was one too, and is freed."""
        span = self._span_of(import_.start)
        span.starts.remove(import_.start)
        assert span.sizes.pop(import_.start) == import_.end - import_.start
        for run in runs:
            bisect.insort(span.starts, run.start)
            span.sizes[run.start] = run.end - run.start
        self.allocs += len(runs) + len(cuts) - 1
        self.frees += len(cuts)

    def _span_of(self, address: int) -> Span:
        return next(s for s in self.spans if s.start <= address < s.end)

    def take(self, address: int, size: int, policy: Flag) -> None:
        span = self._span_of(address)
        assert any(s.start <= address and address + size <= s.end for s in span.free_segments()), (
            f"[{address:#x}, +{size}) is not free in one span"
        )
        bisect.insort(span.starts, address)
        span.sizes[address] = size
        self.allocs += 1
        if policy & Flag.NEXTFIT:
            self.rotor = (span, address + size)

    def release(self, address: int) -> None:
        """Free; a span that is whole again goes back to the source, which frees it in turn."""
        span = self._span_of(address)
        span.starts.remove(address)
        del span.sizes[address]
        self.frees += 1
        if span.imported and not span.starts:
            assert self.source is not None
            index = self.spans.index(span)
            if self.rotor is not None and self.rotor[0] is span:
                following = self.spans[index + 1 :]
                self.rotor = (following[0], following[0].start) if following else None
            del self.spans[index]
            self.source.release(span.start)
