# SPDX-License-Identifier: Apache-2.0
"""The registry of metrics: what each figure is, how it is computed, and how it is shown.

Every figure of a sample comes from here, and everything else asks here: `bench` computes by it,
the tables and reports take headings, units and columns from it, `compare` the direction and the
noise model, and docs/metrics.md is printed from it.  So a metric is added in one place
(and as a field of `suite.results.Metrics`, which a test holds equal to this list).

A sample is of one of four kinds; the first three, because measuring one thing disturbs another:

    timed     undisturbed: speed, latency, memory
    observed  its persistence events were counted, which slows it: costs alone
    stepped   some of its operations were stepped over: instructions alone
    trial     a script with a beginning and an end, not a rate (workloads/driver/trial.h)

Noise models, which tell `compare` what a difference may be taken for:

    timed    depends on the machine and its neighbours; samples taken amid noise don't count
    counted  events of the program itself: the same work gives (nearly) the same count, whatever
             else the machine does, so that a few samples are enough
    sized    bytes: not disturbed by neighbours, but by how far the sample came in its time
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from suite.latency import percentiles

__all__ = [
    "DERIVED",
    "GROUPS",
    "METRICS",
    "Derived",
    "Direction",
    "Group",
    "Kind",
    "Metric",
    "Model",
    "Reading",
    "figures_of",
    "kind_of",
    "metric_named",
    "positive",
    "present",
]

Direction = Literal["higher", "lower", "neither"]
Group = Literal["throughput", "cost", "latency", "memory", "recovery"]
Model = Literal["timed", "counted", "sized"]
Kind = Literal["timed", "observed", "stepped", "trial"]

GROUPS: dict[Group, str] = {
    "throughput": "Throughput",
    "cost": "Costs of one operation",
    "latency": "Latency of one operation",
    "memory": "Memory",
    "recovery": "Recovery",
}


class Reading:
    """A driver's result (docs/driver-protocol.md), and what several metrics need of it."""

    def __init__(self, result: Mapping[str, Any], kind: Kind) -> None:
        self.result = result
        self.kind = kind

    @cached_property
    def percentiles(self) -> dict[str, float]:
        return percentiles(self.result.get("latency"))

    @cached_property
    def ops(self) -> float:
        return positive(self.result, "ops")

    @cached_property
    def events(self) -> Mapping[str, Any] | None:
        """None where the adapter says that its events can't be seen."""
        if self.result.get("observable") is False:
            return None
        events: Mapping[str, Any] | None = self.result.get("events")
        if not events:
            raise ValueError("no events were counted, although the adapter is observable")
        return events

    def stated(self, name: str) -> float | None:
        """A figure that the driver or the workload states as it is."""
        for place in (self.result, self.result.get("metrics")):
            if isinstance(place, Mapping) and place.get(name) is not None:
                return float(place[name])
        return None

    def per_op(self, name: str) -> float | None:
        """Events of that name for each operation."""
        if self.events is None:
            return None
        return float(self.events.get(name) or 0) / positive(self.events, "ops")


@dataclass(frozen=True)
class Metric:
    """One kind of figure."""

    name: str
    """Key in run.json."""
    heading: str
    """Of a column, with the unit as it is shown."""
    unit: str
    """As it is stored."""
    group: Group
    direction: Direction
    """Which values are the better ones."""
    model: Model
    kinds: tuple[Kind, ...]
    """Kinds of samples that it is computed from."""
    definition: str
    source: str
    """Where the number comes from."""
    compute: Callable[[Reading], float | None]
    scale: float = 1.0
    """Shown: the stored value times this."""
    digits: int = 2
    judged: bool = True
    """Whether `compare` gives a verdict on it; else it is shown only, and `unjudged` says why."""
    unjudged: str = ""
    judged_kinds: tuple[Kind, ...] = ("timed", "observed", "stepped", "trial")
    """Kinds of samples on which a verdict may rest."""
    repeatability: float = 0.0
    """Of a counted or sized figure: by how much (as a logarithm) two runs of the same build with
    the same seed were seen to differ, one on an idle machine and one on a machine with more
    work than CPUs."""
    floor: float = 0.0
    """A difference this small (in the stored unit) doesn't matter, whatever its share."""
    in_tables: bool = True
    weight: int = 5
    """How soon a narrow terminal does without it: the lightest go first."""

    def shown(self, value: float | None) -> str:
        """The value in the unit of the heading."""
        if value is None:
            return "-"
        scaled = value * self.scale
        if self.digits < 0:  # three significant digits
            return f"{scaled:.3g}" if abs(scaled) < 100 else f"{scaled:.0f}"
        return f"{scaled:.{self.digits}f}"


def positive(document: Mapping[str, Any], key: str) -> float:
    """The number under that key; ValueError unless it is more than 0."""
    value = float(document[key])
    if value <= 0:
        raise ValueError(f"{key} is {document[key]}")
    return value


def _rate(reading: Reading) -> float:
    positive(reading.result, "ops")
    return positive(reading.result, "ops_per_s")


def _cpu_time(reading: Reading) -> float | None:
    seconds = reading.result.get("cpu_seconds")
    return None if seconds is None else float(seconds) * 1e9 / reading.ops


def _counted_instructions(reading: Reading) -> float | None:
    if reading.kind == "stepped":
        return positive(reading.result, "instructions") / positive(reading.result, "stepped_ops")
    instructions = reading.result.get("instructions")
    return None if instructions is None else float(instructions) / reading.ops


def _reflushed(reading: Reading) -> float | None:
    if reading.events is None or not reading.events["flushes"]:
        return None
    return float(reading.events.get("reflushes_within_4") or 0) / float(reading.events["flushes"])


def _percentile(name: str) -> Callable[[Reading], float | None]:
    return lambda reading: reading.percentiles.get(name)


def _stated(name: str) -> Callable[[Reading], float | None]:
    return lambda reading: reading.stated(name)


def _per_op(name: str) -> Callable[[Reading], float | None]:
    return lambda reading: reading.per_op(name)


EVENTS = "counted by the observer in the adapter or by the preloaded probe, in both windows"
HISTOGRAM = "`latency` of the driver: a window of its own in which each operation is timed"
TAIL = "rare events of the whole machine; shown, no verdict"

METRICS: tuple[Metric, ...] = (
    Metric(
        "ops_per_s", "Mops/s", "operations/s", "throughput", "higher", "timed", ("timed",),
        "Operations of all threads together in the throughput window, over its wall-clock time. "
        "Each malloc and each free counts; an allocation that failed does not. In the workloads "
        "of a key-value store an operation is one request.",
        "`ops_per_s` of the driver: first worker's start to last one's end",
        _rate, scale=1e-6, digits=-1, weight=9,
    ),
    Metric(
        "cpu_ns_per_op", "cpu ns", "ns/operation", "cost", "lower", "timed", ("timed",),
        "CPU time that the workers used in the throughput window, for each operation. Time in "
        "which a worker waited for a CPU is not in it, nor is sleeping; spinning is.",
        "`cpu_seconds` / `ops` of the driver (CLOCK_THREAD_CPUTIME_ID of each worker)",
        _cpu_time, digits=0, weight=3,
        judged=False, unjudged="it tells what `ops_per_s` tells, as long as nobody sleeps",
    ),
    Metric(
        "flushes_per_op", "flushes", "flushes/operation", "cost", "lower", "counted",
        ("observed",),
        "Cache-line flush instructions (clwb, clflushopt, clflush) for each operation.",
        EVENTS, _per_op("flushes"), repeatability=0.1, floor=0.25, weight=8,
    ),
    Metric(
        "fences_per_op", "eff. fences", "fences/operation", "cost", "lower", "counted",
        ("observed",),
        "Effective fences for each operation: store fences, and instructions that act as one, "
        "with a flush or a non-temporal store of the same thread pending. Only these wait for "
        "the medium.",
        EVENTS, _per_op("effective_fences"), repeatability=0.02, floor=0.05, weight=9,
    ),
    Metric(
        "fences_all_per_op", "all fences", "fences/operation", "cost", "lower", "counted",
        ("observed",),
        "All store fences for each operation, those with nothing pending included.",
        EVENTS, _per_op("fences"), weight=2,
        judged=False, unjudged="a fence with nothing pending takes 2 ns",
    ),
    Metric(
        "nt_lines_per_op", "nt lines", "lines/operation", "cost", "lower", "counted",
        ("observed",),
        "64-byte lines written past the caches by non-temporal stores, for each operation.",
        EVENTS, _per_op("nt_lines"), weight=3,
        judged=False, unjudged="neither good nor bad by itself: it stands in for a flush",
    ),
    Metric(
        "reflush_ratio", "reflushed %", "share", "cost", "lower", "counted", ("observed",),
        "Share of the flushes whose line had been flushed within the same thread's last 4 flushes. "
        "On Optane such a flush waits several times longer.",
        EVENTS, _reflushed, scale=100, digits=0, weight=2,
        judged=False, unjudged="a ratio: fewer flushes of other lines raise it",
    ),
    Metric(
        "xpline_writes_per_op", "XPLines", "units/operation", "cost", "lower", "counted",
        ("observed",),
        "256-byte units (XPLines) that the medium writes for each operation, by a model of Optane's "
        "write-combining buffer; workloads/driver/events.h states the model. An emulated figure.",
        EVENTS, _per_op("xpline_writes"), repeatability=0.15, floor=0.15, weight=4,
    ),
    Metric(
        "instructions_per_op", "instr.", "instructions/operation", "cost", "lower", "counted",
        ("timed", "stepped"),
        "User-space instructions for each operation, the workload's own loop included.",
        "perf_event_open over the throughput window (`perf`); where the kernel counts none, the "
        "mean over some hundred operations that were stepped over (`stepped`; "
        "workloads/driver/stepping.h)",
        _counted_instructions, digits=0, repeatability=0.04, floor=5, weight=6,
    ),
    Metric(
        "instructions_deviation", "instr. s.e.", "instructions/operation", "cost", "neither",
        "counted", ("stepped",),
        "Standard error of a stepped `instructions_per_op`, as far as the sample can know it.",
        "`stepped_deviation` of the driver",
        lambda reading: float(reading.result["stepped_deviation"]), digits=1, weight=1,
        judged=False, unjudged="the error of another figure",
    ),
    Metric(
        "driver_instructions_per_op", "driver instr.", "instructions/operation", "cost",
        "neither", "counted", ("stepped",),
        "What the workload's own loop takes of `instructions_per_op`; subtract it for the "
        "allocator's own.",
        "the same operations stepped over with an allocator that does nothing",
        lambda reading: positive(reading.result, "driver_instructions_per_op"), digits=0, weight=1,
        judged=False, unjudged="not the allocator's",
    ),
    Metric(
        "p50_ns", "p50 ns", "ns", "latency", "lower", "timed", ("timed",),
        "Median time of one operation. The clock's own cost (`clock_overhead_ns`, some 20 ns) is "
        "contained.",
        HISTOGRAM, _percentile("p50_ns"), digits=0, weight=5,
        judged=False, unjudged="it tells what `ops_per_s` tells, from a shorter window",
    ),
    Metric(
        "p99_ns", "p99 ns", "ns", "latency", "lower", "timed", ("timed",),
        "Time that 99 % of the operations stay within.",
        HISTOGRAM, _percentile("p99_ns"), digits=0, weight=6, judged=False, unjudged=TAIL,
    ),
    Metric(
        "p999_ns", "p99.9 ns", "ns", "latency", "lower", "timed", ("timed",),
        "Time that 99.9 % of the operations stay within.",
        HISTOGRAM, _percentile("p999_ns"), digits=0, weight=4, judged=False, unjudged=TAIL,
    ),
    Metric(
        "max_ns", "max us", "ns", "latency", "lower", "timed", ("timed",),
        "The longest time of one operation in a sample.",
        HISTOGRAM, _percentile("max_ns"), scale=1e-3, digits=0, weight=3,
        judged=False, unjudged=TAIL,
    ),
    Metric(
        "peak_bytes", "peak MB", "bytes", "memory", "lower", "sized", ("timed", "trial"),
        "Most bytes of the heap in use at the throughput window's ends; for a volatile allocator "
        "that does not tell, resident memory at the peak, above what was resident before.",
        "`peak_bytes` of the driver", _stated("peak_bytes"), scale=1e-6, digits=1, weight=5,
        judged=False, unjudged="it grows with the operations that fit into the window",
    ),
    Metric(
        "live_bytes", "live MB", "bytes", "memory", "neither", "sized", ("timed",),
        "Usable bytes of all live blocks at the throughput window's end.",
        "`live_bytes` of the driver: the adapter's figure, else summed over the slots",
        _stated("live_bytes"), scale=1e-6, digits=1, weight=3,
        judged=False, unjudged="what the workload keeps, not what the allocator costs",
    ),
    Metric(
        "footprint_ratio", "footprint x", "ratio", "memory", "lower", "sized", ("timed", "trial"),
        "Bytes that the allocator has taken for each byte that the application asked for and holds, "
        "at the throughput window's end. Taken: heap bytes that can't serve a request of another "
        "size; where the adapter can't tell, resident memory above what it was before.",
        "`footprint_ratio` of the driver (workloads/driver/footprint.h)",
        _stated("footprint_ratio"), repeatability=0.03, floor=0.02, weight=6,
        judged_kinds=("trial",),
        unjudged="outside trials it grows with the operations that fit into the window",
    ),
    Metric(
        "refill_ratio", "refill x", "ratio", "memory", "lower", "sized", ("trial",),
        "The part of the heap that can't be filled with 100-byte blocks after the sizes have "
        "changed, over the bytes asked for and held: the footprint as an application meets it.",
        "`refill_ratio` of the workload `fragmentation`", _stated("refill_ratio"),
        repeatability=0.03, floor=0.02, weight=4,
    ),
    Metric(
        "defragmented_ratio", "defrag x", "ratio", "memory", "lower", "sized", ("trial",),
        "Memory that can serve no request of another size, over the bytes asked for and held, "
        "after the allocator has moved blocks to make room (where it can).",
        "`defragmented_ratio` of the workload `fragmentation`",
        _stated("defragmented_ratio"), repeatability=0.03, floor=0.02, weight=7,
    ),
    Metric(
        "file_ratio", "file x", "ratio", "memory", "lower", "sized", ("trial",),
        "What the file system has allocated for the heap's file, over the bytes asked for and "
        "held, after the allocator has been asked to give back what it can.",
        "`file_ratio` of the workload `fragmentation`: st_blocks of the heap's file",
        _stated("file_ratio"), repeatability=0.03, floor=0.02, weight=3,
    ),
    Metric(
        "failed_allocs_per_op", "failed", "allocations/operation", "memory", "lower", "counted",
        ("timed",),
        "Allocations for which there was no memory, for each operation that succeeded.",
        "`failed_allocs` / `ops` of the driver",
        lambda reading: float(reading.result.get("failed_allocs") or 0) / reading.ops,
        digits=3, weight=4, judged=False, unjudged="a heap that is too small is no regression",
    ),
    Metric(
        "live_objects", "objects", "objects", "recovery", "neither", "counted", ("trial",),
        "Live objects in the heap that is recovered.",
        "`live_objects` of the workload `recovery`", _stated("live_objects"), digits=0, weight=4,
        judged=False, unjudged="what the workload keeps",
    ),
    Metric(
        "open_ms", "open ms", "ms", "recovery", "lower", "timed", ("trial",),
        "Wall-clock time of opening, in a fresh process, the heap of a process that was killed, "
        "until the open returns.",
        "`open_ms` of the workload `recovery`", _stated("open_ms"), digits=-1, weight=8,
    ),
    Metric(
        "first_op_ms", "first op ms", "ms", "recovery", "lower", "timed", ("trial",),
        "From the beginning of that open until the first allocation has returned.",
        "`first_op_ms` of the workload `recovery`", _stated("first_op_ms"), digits=-1, weight=7,
    ),
    Metric(
        "rebuilt_ms", "rebuilt ms", "ms", "recovery", "lower", "timed", ("trial",),
        "From the beginning of that open until everything that is rebuilt later or lazily has "
        "been rebuilt.",
        "`rebuilt_ms` of the workload `recovery`", _stated("rebuilt_ms"), digits=-1, weight=6,
    ),
    Metric(
        "recovery_ms", "recovery ms", "ms", "recovery", "lower", "timed", ("trial",),
        "The same as `rebuilt_ms`, under the name that scripts know.",
        "`rebuilt_ms` of the workload `recovery`", _stated("rebuilt_ms"), digits=-1,
        judged=False, unjudged="it is `rebuilt_ms`", in_tables=False,
    ),
    Metric(
        "objects_per_s", "M objects/s", "objects/s", "recovery", "higher", "timed", ("trial",),
        "Live objects over `rebuilt_ms`: the pace of a recovery that looks at each of them.",
        "`objects_per_s` of the workload `recovery`", _stated("objects_per_s"), scale=1e-6,
        digits=-1, weight=3,
        judged=False, unjudged="it tells what `rebuilt_ms` tells",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Derived:
    """A column that is computed from metrics, or counted by the suite itself."""

    heading: str
    unit: str
    definition: str
    source: str


DERIVED: dict[str, tuple[Derived, ...]] = {
    "In several tables": (
        Derived(
            "95 % interval", "the figure's own",
            "What the median would be, 95 times in 100, had other samples been drawn: percentile "
            "bootstrap over the samples.",
            "`suite/statistics.py`, estimate()",
        ),
        Derived(
            "x BASELINE", "ratio", "The median over the baseline's, in the same cell.",
            "`suite/statistics.py`, ratio()",
        ),
        Derived(
            "instr. by", "-", "Who counted the instructions: `perf` or `stepped`.",
            "`instructions_source` of run.json",
        ),
    ),
    "Time of one durable operation": (
        Derived(
            "ns/op", "ns/operation", "Measured time of an operation of one thread: threads over "
            "`ops_per_s`.",
            "`suite/residual.py`",
        ),
        Derived(
            "fence ns", "ns", "What one effective fence takes on this machine, with so many threads "
            "at it.",
            "the calibration of the same run",
        ),
        Derived(
            "fences ns", "ns/operation", "`fences_per_op` times fence ns: what the fences of an "
            "operation take.",
            "`suite/residual.py`",
        ),
        Derived(
            "device ns", "ns/operation", "What a device model (`--pm-model`) added; emulated.",
            "`suite/residual.py`, from the driver's account of the model",
        ),
        Derived(
            "residual", "ns/operation", "ns/op less fences ns less device ns: the allocator's own "
            "work, cache misses, locks, and the driver's loop.",
            "`suite/residual.py`",
        ),
        Derived("fences' share", "%", "fences ns over ns/op.", "`suite/residual.py`"),
        Derived(
            "x limit", "ratio", "Time of an operation over that of one durable line, than which "
            "nothing can be faster that is durable operation by operation.",
            "`suite/residual.py`, `suite/calibration.py`",
        ),
    ),
    "Calibration": (
        Derived(
            "x1, x2, ...", "ns", "Median time of the step in the first column while so many threads "
            "do the same.",
            "`nvdrive calibrate` on the NVM directory of the run (docs/driver-protocol.md)",
        ),
        Derived(
            "read again", "ns", "A load of the line just written that waits for it.",
            "`nvdrive calibrate`",
        ),
    ),
    "Survival": (
        Derived("cases", "cases", "Judged cases: passed and failed.", "the fault campaign"),
        Derived(
            "passed", "cases", "Cases in which every recovery kept the contract "
            "(docs/sigkill-campaign.md).",
            "`nvdrive history`, `nvdrive verify`",
        ),
        Derived("failed", "cases", "Cases in which one did not.", "`nvdrive history`, `nvdrive verify`"),
        Derived(
            "states", "crash states", "Crashes that were recovered and checked, several a case.",
            "`recoveries` of the driver",
        ),
    ),
    "Comparison": (
        Derived(
            "worse by", "%", "The factor of worsening less 1: base over new where higher is better, "
            "new over base where lower is; of medians, at the same pace of the machine.",
            "`suite/comparison.py`",
        ),
        Derived(
            "p (Holm)", "probability", "One-sided Mann-Whitney test that the new values are worse, "
            "adjusted for the number of tests.",
            "`suite/statistics.py`, mann_whitney() and holm()",
        ),
        Derived(
            "noise", "share of all CPU time", "CPU time that neither the sample nor the suite used, "
            "while it ran.",
            "`suite/noise.py`: /proc/stat",
        ),
        Derived(
            "pace ns", "ns", "One round of a fixed loop beside the sample: how fast the machine was.",
            "`suite/speed.py`",
        ),
    ),
}  # fmt: skip


_BY_NAME = {metric.name: metric for metric in METRICS}


def metric_named(name: str) -> Metric:
    """The metric; KeyError if there is none of that name."""
    return _BY_NAME[name]


def kind_of(result: Mapping[str, Any], *, observed: bool, stepped: bool) -> Kind:
    """What kind of sample a driver's result is of."""
    if stepped:
        return "stepped"
    if observed:
        return "observed"
    return "trial" if isinstance(result.get("metrics"), Mapping) else "timed"


def figures_of(result: Mapping[str, Any], kind: Kind) -> dict[str, float]:
    """Every figure that a driver's result of that kind tells; raises ValueError, TypeError or
    KeyError where the result can't be right."""
    reading = Reading(result, kind)
    figures = {metric.name: metric.compute(reading) for metric in METRICS if kind in metric.kinds}
    return {name: value for name, value in figures.items() if value is not None}


def present(names: Iterable[str], group: Group | None = None) -> list[Metric]:
    """Those metrics, in the registry's order; with `group`, of that group only."""
    known = set(names)
    return [
        metric
        for metric in METRICS
        if metric.name in known and (group is None or metric.group == group)
    ]
