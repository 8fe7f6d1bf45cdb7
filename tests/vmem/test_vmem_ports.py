# SPDX-License-Identifier: Apache-2.0
"""The five faults that ports of vmem have, each provoked on purpose and judged by the model."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmem_binding import Flag, Library, Segment, Type
from vmem_driver import POLICIES, Level

policies = st.sampled_from(POLICIES)


def pair(library: Library) -> tuple[Level, Level]:
    parent = Level(library, "parent", 16, Segment(16, 1 << 16), None)
    return parent, Level(library, "child", 16, None, parent)


@settings(deadline=None)
@given(
    skew=st.integers(1, 300),
    align=st.integers(0, 8),
    phase=st.integers(0, 255),
    size=st.integers(1, 40),
    cross=st.booleans(),
    policy=policies,
)
def test_aligned_import_stays_within_its_span(
    library: Library, skew: int, align: int, phase: int, size: int, cross: bool, policy: Flag
) -> None:
    parent, child = pair(library)
    parent.allocate(16 * skew)  # so that the import begins at an awkward place
    alignment = 16 << align
    request = child.request(16 * size, alignment, 16 * phase % alignment, 0 if cross else 1 << 13)
    piece = child.allocate(16 * size, request, policy)  # settle() checks the place in the span
    assert piece is not None
    assert child.arena.contains(piece.address, piece.size)
    child.check()
    parent.check()
    child.free(0)
    assert child.arena.size(Type.SPAN) == 0
    assert (child.arena.destroy(), parent.arena.destroy()) == (0, 16 * skew)


@settings(deadline=None)
@given(sizes=st.lists(st.integers(1, 100), min_size=1, max_size=40), data=st.data())
def test_imported_span_returns_when_whole(
    library: Library, sizes: list[int], data: st.DataObject
) -> None:
    parent, child = pair(library)
    for size in sizes:
        child.allocate(size, None, data.draw(policies))
    for last in range(len(child.pieces) - 1, -1, -1):
        child.free(data.draw(st.integers(0, last)))
        child.check()
        parent.check()
    assert child.arena.size(Type.SPAN) == 0
    assert parent.arena.walk(Type.FREE) == [Segment(16, 1 << 16)]
    assert child.arena.destroy() == parent.arena.destroy() == 0


@settings(deadline=None)
@given(size=st.integers(1, 1 << 20), smaller=st.lists(st.integers(0, 5), max_size=5))
def test_instant_fit_finds_an_exact_fit(library: Library, size: int, smaller: list[int]) -> None:
    source = Level(library, "source", 1, Segment(1, 1 << 30), None)
    level = Level(library, "exact", 1, None, source)
    spans = [max(1, size - s) for s in smaller if s] + [size]
    for i, length in enumerate([*spans, *[max(1, size - 1)] * 3]):
        span = Segment((1 << 50) + (i << 30), length)
        level.arena.add(span)
        level.model.add_span(span)
    assert level.allocate(size) is not None  # settle(): NULL or an import would be wrong
    assert level.arena.counters().value("mem_import") == 0
    level.check()
    level.arena.destroy()
    source.arena.destroy()


@settings(deadline=None)
@given(align=st.integers(1, 1 << 20))
def test_alignment_must_be_a_power_of_two(library: Library, align: int) -> None:
    level = Level(library, "align", 16, Segment(16, 1 << 22), None)
    if align >= 16 and align & (align - 1) == 0:
        assert level.allocate(16, level.request(16, align)) is not None
    else:
        with pytest.raises(OSError, match="vmem allocation"):
            level.arena.xalloc(16, align)
    level.check()
    level.arena.destroy()


@settings(deadline=None)
@given(
    before=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    after=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    data=st.data(),
)
def test_rotor_does_not_keep_neighbours_apart(
    library: Library, before: list[int], after: list[int], data: st.DataObject
) -> None:
    total = sum(before) + sum(after)
    level = Level(library, "rotor", 1, Segment(1, total), None)
    for size in before:
        assert level.allocate(size, None, Flag.NEXTFIT) is not None
    for size in after:  # the rotor stays where it is for ever
        assert level.allocate(size, None, Flag.SLEEP) is not None
    for last in range(len(level.pieces) - 1, -1, -1):
        level.free(data.draw(st.integers(0, last)))
        level.check()
    assert level.arena.walk(Type.FREE) == [Segment(1, total)]
    assert level.arena.destroy() == 0
