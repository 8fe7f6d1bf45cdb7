# SPDX-License-Identifier: Apache-2.0
"""The lane protocol of nvmalloc (lane.h, recover.c), small enough to be explored.

Two lanes with rings of a few records, four blocks, four slots in the roots and one in each
block.  A line of media is the set of values that a crash may leave of it: all that it has held
since the last value that was flushed and then fenced.  Lines are independent of each other, so a
crash leaves one of the product of these sets: every eviction at every step.

A step of an operation is what lies between two instants at which the power may go or the other
lane may run.  `Rules` has a switch for each rule of lane.h; with one off, the explorer finds a
crash after which an acknowledged operation is lost, half done, or undone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from random import Random
from typing import NamedTuple

LANES = 2
RING = 4
BLOCKS = 4
ROOTS = 4
SLOTS = ROOTS + BLOCKS  # slot ROOTS + b lies in block b
ALLOC, FREE, MOVE = "alloc", "free", "move"


@dataclass(frozen=True)
class Rules:
    record_before_effects: bool = True  # theory 1
    one_clock: bool = True  # 2
    room: bool = True  # 3: only history is overwritten
    global_watermark: bool = True  # 3
    stages_wait_for_a_fence: bool = True  # 5
    stages_flush_marks: bool = True  # 5: what they apply, like the slots
    in_flight: bool = True  # 7
    settle_all_lanes: bool = True  # 8: a checkpoint settles the lanes that rest, too
    containers: bool = True  # 9
    whole_groups: bool = True  # a group counts if all of it is there
    torn_groups_are_history: bool = True  # else their seq is drawn again


class Record(NamedTuple):
    op: str
    block: int
    slot: int
    origin: int  # MOVE
    seq: int
    place: int  # in its group
    group: int
    watermark: int
    ordinal: int


Value = int | Record | None


class Media:
    """Lines, each with what the processor sees last in its list of possible values."""

    def __init__(self, lines: dict[object, Value]) -> None:
        self.values: dict[object, list[Value]] = {line: [value] for line, value in lines.items()}
        self.pending: list[list[tuple[object, int]]] = [[] for _ in range(LANES)]
        self.written: dict[object, int] = dict.fromkeys(lines, 0)  # values before the list

    def load(self, line: object) -> Value:
        return self.values[line][-1]

    def store(self, line: object, value: Value) -> None:
        if self.values[line][-1] != value:
            self.values[line].append(value)

    def flush(self, thread: int, line: object) -> None:
        last = self.written[line] + len(self.values[line]) - 1
        self.pending[thread].append((line, last))

    def fence(self, thread: int) -> None:
        for line, last in self.pending[thread]:
            drop = last - self.written[line]
            if drop > 0:
                del self.values[line][:drop]
                self.written[line] += drop
        self.pending[thread] = []

    def crashes(self, most: int, random: Random) -> Iterator[dict[object, Value]]:
        """Every image that a crash may leave, or `most` of them."""
        open_lines = [line for line, values in self.values.items() if len(values) > 1]
        sizes = 1
        for line in open_lines:
            sizes *= len(self.values[line])
        fixed = {line: values[0] for line, values in self.values.items()}
        if sizes <= most and most > 1:
            for choice in itertools.product(*(self.values[line] for line in open_lines)):
                yield {**fixed, **dict(zip(open_lines, choice, strict=True))}
            return
        for _ in range(most):
            yield {**fixed, **{line: random.choice(self.values[line]) for line in open_lines}}


@dataclass
class Lane:
    last: int = 0  # seq of the newest record; 0: in flight
    head: int = 0
    applied: int = 0
    fenced: int = 0
    durable: int = 0
    flushed_seq: int = 0
    carried: int = 0
    room: int = 0
    stages: list[tuple[int, int]] = field(default_factory=list)
    log: list[Record] = field(default_factory=list)


@dataclass(frozen=True)
class Truth:
    """What the application has been told; `slots` also of blocks, while they live."""

    slots: tuple[int, ...] = (-1,) * SLOTS
    live: frozenset[int] = frozenset()
    data: frozenset[int] = frozenset()  # blocks whose slot's place holds data

    def after(self, effects: list[Record]) -> Truth:
        slots, live, data = list(self.slots), set(self.live), set(self.data)
        for effect in effects:
            if effect.op == ALLOC:
                live.add(effect.block)
                slots[effect.slot] = effect.block
            elif effect.op == FREE:
                live.discard(effect.block)
                data.discard(effect.block)
                slots[effect.slot] = -1
                slots[ROOTS + effect.block] = -1
            else:
                slots[effect.origin] = -1
                slots[effect.slot] = effect.block
        return Truth(tuple(slots), frozenset(live), frozenset(data))


DATA = 99  # what the application keeps in a block that it uses for data


def slot_line(slot: int) -> object:
    return ("slot", slot)


class Heap:
    """A session: from an image that was recovered, until the next crash."""

    def __init__(self, rules: Rules, image: dict[object, Value], clock: int, truth: Truth) -> None:
        self.rules = rules
        self.media = Media(image)
        self.clock = [clock] * (1 if rules.one_clock else LANES)
        self.watermark = clock - 1
        self.lanes = [
            Lane(last=clock - 1, durable=clock - 1, flushed_seq=clock - 1) for _ in range(LANES)
        ]
        self.truth = truth
        self.flight: dict[int, list[Record]] = {}
        self.initialised = frozenset(truth.live)
        self.claimed: dict[int, set[object]] = {}  # by the operations that are under way

    # --- lane.c, settle.c ---

    def draw(self, lane: int) -> int:
        which = lane if not self.rules.one_clock else 0
        self.clock[which] += 1
        return self.clock[which] - 1

    def settle_lines(self, lane: Lane, thread: int, start: int) -> None:
        for record in lane.log[lane.applied : lane.head]:
            if record.op != MOVE:
                line = ("mark", record.block)
                self.media.store(line, 1 - int(self.media.load(line) or 0))  # type: ignore[arg-type]
        for record in lane.log[start : lane.head]:
            if record.op == MOVE:
                self.media.flush(thread, slot_line(record.origin))
            elif self.rules.stages_flush_marks:
                self.media.flush(thread, ("mark", record.block))
            self.media.flush(thread, slot_line(record.slot))
        lane.applied = lane.head

    def settle(self, lane: Lane, thread: int) -> None:
        last = lane.last
        self.settle_lines(lane, thread, lane.fenced)
        self.media.fence(thread)
        lane.fenced = lane.head
        if last:
            lane.flushed_seq = lane.durable = last

    def history(self) -> int:
        seq = max(self.clock) - 1
        for lane in self.lanes:
            behind = lane.durable < lane.last
            if self.rules.in_flight:
                behind = behind or lane.last == 0
            if behind and lane.durable < seq:
                seq = lane.durable
        return seq

    def checkpoint(self, thread: int) -> None:
        for number, lane in enumerate(self.lanes):
            if self.rules.settle_all_lanes or number == thread:
                self.settle(lane, thread)
            elif lane.last:
                lane.durable = lane.last
        self.media.store("watermark", self.history())
        self.media.flush(thread, "watermark")
        self.media.fence(thread)
        self.watermark = max(self.watermark, self.history())

    def room_below(self, lane: Lane, watermark: int) -> int:
        for head, seq in reversed(lane.stages):
            if seq <= watermark:
                return head + RING
        return RING

    def stage(self, number: int, count: int) -> bool:
        """False: there is no room as long as another operation is in flight."""
        lane = self.lanes[number]
        lane.stages.append((lane.head, lane.last))
        if lane.head != lane.applied:
            lane.durable = max(lane.durable, lane.flushed_seq)
            lane.fenced = lane.applied
        self.settle_lines(lane, number, lane.applied)
        lane.flushed_seq = lane.last
        if not self.rules.stages_wait_for_a_fence:
            lane.durable = lane.last
        self.watermark = max(self.watermark, self.history())
        if not self.rules.room:
            lane.room = lane.head + RING
            return True
        room = self.room_below(lane, lane.carried)
        if room < lane.head + count:
            self.checkpoint(number)
            line = int(self.media.load("watermark") or 0)  # type: ignore[arg-type]
            room = self.room_below(lane, max(line, lane.carried))
        lane.room = min(room, lane.head + max(count, 1))
        return room >= lane.head + count

    # --- an operation, step by step ---

    def operate(self, number: int, effects: list[Record]) -> Iterator[None]:
        lane, count = self.lanes[number], len(effects)
        while lane.head + count > lane.room and not self.stage(number, count):
            yield
        yield
        lane.last = 0
        seq = self.draw(number)
        if not self.rules.record_before_effects:
            self.make_effects(effects)
            yield
        records = [
            effect._replace(
                seq=seq,
                place=i,
                group=count,
                watermark=self.watermark,
                ordinal=lane.head + i,
            )
            for i, effect in enumerate(effects)
        ]
        self.flight[number] = records
        for record in records:
            line = ("record", number, record.ordinal % RING)
            self.media.store(line, record)
            self.media.flush(number, line)
            yield
        self.media.fence(number)
        lane.carried = records[0].watermark
        self.truth = self.truth.after(records)
        del self.flight[number]
        yield
        for record in records:
            self.make_effects([record])
            lane.log.append(record)
            yield
        lane.head += count
        lane.last = seq

    def make_effects(self, effects: list[Record]) -> None:
        for effect in effects:
            if effect.op == MOVE:
                self.media.store(slot_line(effect.origin), -1)
            self.media.store(slot_line(effect.slot), -1 if effect.op == FREE else effect.block)

    def initialise(self, number: int, block: int, value: int) -> None:
        """The application persists the place in a block: as an empty slot, or as data."""
        self.media.store(slot_line(ROOTS + block), value)
        self.media.flush(number, slot_line(ROOTS + block))
        self.media.fence(number)


# --- recover.c ---


def recover(rules: Rules, image: dict[object, Value]) -> tuple[dict[object, Value], int]:
    """The image after recovery, and the clock that the next session starts from."""
    image = dict(image)
    lines = [image["record", lane, at] for lane in range(LANES) for at in range(RING)]
    owners = [lane for lane in range(LANES) for _ in range(RING)]
    records = [(owner, r) for owner, r in zip(owners, lines, strict=True) if isinstance(r, Record)]
    line = int(image["watermark"] or 0)  # type: ignore[arg-type]
    if rules.global_watermark:
        newest = max([line, *(r.watermark for _, r in records)])
        above = [(o, r) for o, r in records if r.seq > newest]
    else:
        own = [max([0, *(r.watermark for o, r in records if o == lane)]) for lane in range(LANES)]
        newest = max(own)
        above = [(o, r) for o, r in records if r.seq > own[o]]
    if rules.one_clock:
        above.sort(key=lambda item: (item[1].seq, item[1].place))
    else:
        above.sort(key=lambda item: (item[0], item[1].seq, item[1].place))
    log = [r for _, r in above]
    kept = log
    if rules.whole_groups:
        kept = [r for r in log if sum(other.seq == r.seq for other in log) == r.group]
    for position, record in enumerate(kept):
        newer = {r.block for r in kept[position + 1 :] if r.op != MOVE and r.seq != record.seq}
        if record.op != MOVE:
            image["mark", record.block] = int(record.op == ALLOC)
        for slot, value in (
            (record.slot, -1 if record.op == FREE else record.block),
            (record.origin, -1),
        ):
            contained = rules.containers and slot >= ROOTS and slot - ROOTS in newer
            if slot >= 0 and not contained:
                image[slot_line(slot)] = value
    history = log if rules.torn_groups_are_history else kept
    last = max([newest, *(r.seq for r in history)])
    image["watermark"] = last
    return image, last + 1


def blank() -> dict[object, Value]:
    image: dict[object, Value] = {slot_line(slot): -1 for slot in range(SLOTS)}
    image |= {("mark", block): 0 for block in range(BLOCKS)}
    image |= {("record", lane, at): None for lane in range(LANES) for at in range(RING)}
    image["watermark"] = 0
    return image


# --- exploring ---


def reads(image: dict[object, Value], initialised: frozenset[int]) -> object:
    live = frozenset(b for b in range(BLOCKS) if image["mark", b])
    inner = tuple(
        image[slot_line(ROOTS + b)] if b in live and b in initialised else None
        for b in range(BLOCKS)
    )
    return tuple(image[slot_line(s)] for s in range(ROOTS)), inner, live


def possible(heap: Heap) -> list[Truth]:
    """What may be true after a crash now: each operation in flight whole, or not at all."""
    truths = [heap.truth]
    for records in heap.flight.values():
        truths += [truth.after(records) for truth in truths]
    return truths


def shown(truth: Truth, initialised: frozenset[int]) -> object:
    """What an image that holds the truth reads as."""
    inner: list[int | None] = [None] * BLOCKS
    for block in truth.live & initialised:
        inner[block] = DATA if block in truth.data else truth.slots[ROOTS + block]
    return truth.slots[:ROOTS], tuple(inner), truth.live


def violation(heap: Heap, most: int, random: Random) -> str | None:
    allowed = [shown(truth, heap.initialised) for truth in possible(heap)]
    for image in heap.media.crashes(most, random):
        found = reads(recover(heap.rules, image)[0], heap.initialised)
        if found not in allowed:
            return f"found {found}, allowed {allowed}"
    return None


def plan(heap: Heap, random: Random) -> list[Record] | None:
    """The effects of some operation that the application may ask for now."""
    truth = heap.truth
    busy: set[object] = set().union(*heap.claimed.values())

    def usable(slot: int) -> bool:
        owner = slot - ROOTS
        inside = owner < 0 or (
            owner in truth.live and owner in heap.initialised and owner not in truth.data
        )
        return inside and slot_line(slot) not in busy and ("block", owner) not in busy

    empty = [s for s in range(SLOTS) if usable(s) and truth.slots[s] < 0]
    full = [s for s in range(SLOTS) if usable(s) and truth.slots[s] >= 0]
    full = [s for s in full if ("block", truth.slots[s]) not in busy]
    free = [b for b in range(BLOCKS) if b not in truth.live and ("block", b) not in busy]
    blank_record = Record("", -1, -1, -1, 0, 0, 1, 0, 0)
    kind = random.choice([ALLOC, ALLOC, FREE, FREE, MOVE, "pair"])
    if kind == ALLOC and empty and free:
        return [
            blank_record._replace(op=ALLOC, block=random.choice(free), slot=random.choice(empty))
        ]
    if kind == "pair" and len(empty) > 1 and len(free) > 1:
        blocks, slots = random.sample(free, 2), random.sample(empty, 2)
        return [
            blank_record._replace(op=ALLOC, block=b, slot=s)
            for b, s in zip(blocks, slots, strict=True)
        ]
    if kind == FREE and full:
        slot = random.choice(full)
        block = truth.slots[slot]
        if truth.slots[ROOTS + block] < 0 and slot_line(ROOTS + block) not in busy:
            return [blank_record._replace(op=FREE, block=block, slot=slot)]
    if kind == MOVE and full and empty:
        origin, slot = random.choice(full), random.choice(empty)
        if slot - ROOTS != truth.slots[origin]:
            return [
                blank_record._replace(op=MOVE, block=truth.slots[origin], slot=slot, origin=origin)
            ]
    return None


def claims(effects: list[Record]) -> set[object]:
    found: set[object] = set()
    for effect in effects:
        found |= {("block", effect.block), slot_line(effect.slot), slot_line(ROOTS + effect.block)}
        if effect.origin >= 0:
            found.add(slot_line(effect.origin))
    return found


def explore(rules: Rules, seed: int, steps: int = 60, most: int = 24) -> str | None:
    """One random history, with its crashes; the first that breaks the contract."""
    random = Random(seed)
    heap = Heap(rules, blank(), 1, Truth())
    running: dict[int, tuple[Iterator[None], list[Record]]] = {}
    for step in range(steps):
        number = random.randrange(LANES)
        if number not in running:
            effects = plan(heap, random)
            if effects is None:
                continue
            heap.claimed[number] = claims(effects)
            running[number] = (heap.operate(number, effects), effects)
        operation, effects = running[number]
        for _ in range(random.randrange(1, 12)):
            if next(operation, step) is not None:
                del running[number]
                finish(heap, number, effects, random)
                break
            fault = violation(heap, most, random)
            if fault is not None:
                return f"seed {seed}, step {step}: {fault}"
        if random.randrange(12) == 0:
            following = crash(heap, random)
            if following is None:
                return f"seed {seed}, step {step}: the next session begins wrong"
            heap, running = following, {}
    return None


def finish(heap: Heap, number: int, effects: list[Record], random: Random) -> None:
    """The call has returned: the application uses what it got."""
    del heap.claimed[number]
    for effect in effects:
        if effect.op == FREE:
            heap.initialised -= {effect.block}
        if effect.op == ALLOC:
            data = random.randrange(2) == 0
            heap.initialise(number, effect.block, DATA if data else -1)
            heap.initialised |= {effect.block}
            if data:
                heap.truth = replace(heap.truth, data=heap.truth.data | {effect.block})


def crash(heap: Heap, random: Random) -> Heap | None:
    """The next session, from an image that a crash may leave now; None: it is a wrong one."""
    image = next(heap.media.crashes(1, random))
    recovered, clock = recover(heap.rules, image)
    found = reads(recovered, heap.initialised)
    truth = next((t for t in possible(heap) if shown(t, heap.initialised) == found), None)
    if truth is None:
        return None
    following = Heap(heap.rules, recovered, clock, truth)
    for block in truth.live - heap.initialised:
        following.initialise(0, block, -1)
    following.truth = replace(truth, data=truth.data & heap.initialised)
    return following
