# SPDX-License-Identifier: Apache-2.0
"""Tables of what stands behind the figures: the calibration, each operation's time against its
fences, and what the allocators are."""

from __future__ import annotations

from suite.residual import ResidualRow, residuals
from suite.results import Run
from suite.summary import KINDS, safety_of
from suite.tables import REMARKS, Grid

__all__ = ["allocator_grid", "calibration_grid", "residual_grid"]


def _ns(value: object, digits: int = 0) -> str:
    return f"{value:.{digits}f}" if isinstance(value, int | float) else "-"


def calibration_grid(run: Run) -> Grid | None:
    """The machine's own limits; None when they were not measured."""
    calibration = run.environment.calibration
    if not calibration:
        return None
    entries = calibration.get("by_threads") or []
    flush = str(calibration.get("flush", "flush"))
    columns = ["what", *(f"x{entry['threads']}" for entry in entries), "read again"]
    blank = [""] * max(0, len(entries) - 1)

    def alone(what: str, key: str, reread: str | None, digits: int = 0) -> list[str]:
        again = "" if reread is None else _ns(calibration.get(reread))
        return [what, _ns(calibration.get(key), digits), *blank, again]

    def each(what: str, key: str, reread: str) -> list[str]:
        figures = [_ns(entry.get(key)) for entry in entries] or [_ns(calibration.get(key))]
        return [what, *figures, _ns(calibration.get(reread))]

    if not entries:
        columns = ["what", "x1", "read again"]
    noise = calibration.get("noise")
    caption = (
        f"ns, median of batches, while so many threads do the same; in {run.environment.nvm.path}."
    )
    caption += " 'Read again': the line just written, by a load that waits for it."
    if isinstance(noise, float) and noise > 0:
        caption += f" Others took {100 * noise:.0f} % of the CPUs meanwhile."
    return Grid(
        title="Calibration (what this machine takes)",
        columns=columns,
        rows=[
            alone("fence, nothing pending", "fence_idle_ns", "reread_idle_ns", 1),
            each(f"8 bytes stored, {flush}, fence", "flush_fence_ns", "reread_flush_ns"),
            alone(f"each further {flush} under it", "extra_flush_ns", None, 1),
            each("non-temporal line, fence", "nt_fence_ns", "reread_nt_ns"),
        ],
        left=1,
        strong=set(),
        alarming=set(),
        group=0,
        caption=caption,
    )


def residual_grid(run: Run) -> Grid | None:
    """Each durable allocator's time of an operation against its fences; None: nothing to show."""
    rows = residuals(run)
    if not rows:
        return None
    emulated = any(row.emulated_ns is not None for row in rows)
    columns = ["workload", "threads", "allocator", "cpu ns", "eff. fences", "fence ns", "fences ns"]
    columns += [*(["device ns"] if emulated else []), "residual", "fences' share", "x limit"]
    return Grid(
        title="Time of one durable operation (measured, and what its fences take)",
        columns=columns,
        rows=[_residual_cells(row, emulated) for row in rows],
        left=3,
        strong=set(),
        alarming=set(),
        group=2,
        caption="fences ns: effective fences x what one takes here (calibrated in this run). residual: "
        "the rest, the allocator's own work. x limit: how many times its throughput this machine's limit "
        "is, one durable line an operation.",
        optional=("fence ns", "fences' share"),
    )


def _residual_cells(row: ResidualRow, emulated: bool) -> list[str]:
    share = "-" if row.share is None else f"{100 * row.share:.0f} %"
    return [
        row.workload,
        str(row.threads),
        row.allocator,
        _ns(row.measured_ns),
        _ns(row.fences, 2),
        _ns(row.fence_ns),
        _ns(row.expected_ns),
        *([_ns(row.emulated_ns)] if emulated else []),
        _ns(row.residual_ns),
        share,
        "-" if row.multiple is None else f"{row.multiple:.2f}",
    ]


def allocator_grid(run: Run) -> Grid | None:
    """Version, build and consistency model of every allocator of the run; durable ones first."""
    if not run.environment.allocators:
        return None
    known = [*run.environment.allocators, *run.environment.unsupported]
    names = sorted(known, key=lambda name: KINDS.index(safety_of(run, name)))
    return Grid(
        title="Allocators (of this run)",
        columns=["kind", "allocator", "consistency", "version", REMARKS],
        rows=[_allocator_cells(run, name) for name in names],
        left=4,
        strong=set(),
        alarming=set(),
        group=1,
        caption="Consistency: what makes an interrupted operation whole again after a crash. What is not "
        "crash-safe keeps its heap over a clean close only; volatile allocators promise nothing and are "
        "the upper bound. Remarks: options, and how it was built.",
    )


def _allocator_cells(run: Run, name: str) -> list[str]:
    unsupported = run.environment.unsupported.get(name)
    facts = run.environment.allocators[name] if unsupported is None else unsupported
    options = facts.get("fault_options" if run.command == "fault" else "options")
    reason = facts.get("reason") and f"not supported here: {facts['reason']}"
    remarks = [str(each) for each in (reason, options, facts.get("built")) if each]
    version = str(facts.get("library_version") or "-")
    return [
        safety_of(run, name),
        name,
        str(facts.get("consistency") or "-"),
        version,
        "; ".join(remarks),
    ]
