# SPDX-License-Identifier: Apache-2.0
"""A comparison as tables, and in words what it could have shown."""

from __future__ import annotations

from suite.comparison import ALPHA, Comparison, Finding
from suite.metrics import METRICS
from suite.tables import REMARKS, Grid

__all__ = ["comparison_grid", "power_lines", "summary_grid"]

ORDER = {"regressed": 0, "inconclusive": 1, "ok": 2}
BY_NAME = {metric.name: metric for metric in METRICS}


def summary_grid(found: Comparison) -> Grid:
    """A row for each allocator."""
    names = list(dict.fromkeys(finding.allocator for finding in found.findings))
    rows = []
    for name in names:
        own = [finding for finding in found.findings if finding.allocator == name]
        counts = [sum(1 for each in own if each.verdict == verdict) for verdict in ORDER]
        worst = max((_median(each) for each in own), default=1.0)
        rows.append([name, *map(str, counts), f"{100 * (worst - 1):+.1f} %"])
    return Grid(
        title=f"Compared with the base (regressed: worse by more than {100 * found.fail_on:g} %)",
        columns=["allocator", "regressed", "inconclusive", "ok", "worst figure"],
        rows=rows,
        left=1,
        strong=set(),
        alarming={index for index, row in enumerate(rows) if row[1] != "0"},
        group=0,
    )


def _median(finding: Finding) -> float:
    return 1.0 if finding.factor is None else finding.factor.median


def comparison_grid(found: Comparison, *, everything: bool) -> Grid:
    """The figures, the worst first; unless `everything`, without those that are ok."""
    shown = [each for each in found.findings if everything or each.verdict != "ok"]
    shown.sort(key=lambda each: (ORDER[each.verdict], -_median(each)))
    hidden = len(found.findings) - len(shown)
    return Grid(
        title="Figures" if everything else "Figures that are not ok",
        columns=[
            "verdict", "workload", "threads", "allocator", "metric", "base", "new", "worse by",
            "95 % interval", "p (Holm)", "samples", REMARKS,
        ],
        rows=[_cells(each) for each in shown],
        left=5,
        strong=set(),
        alarming={i for i, each in enumerate(shown) if each.verdict == "regressed"},
        group=1,
        caption=f"{hidden} more are ok; --all shows them." if hidden else "",
        optional=("samples", "p (Holm)", "95 % interval", "base", "new"),
    )  # fmt: skip


def _cells(finding: Finding) -> list[str]:
    metric = BY_NAME.get(finding.metric)
    heading = metric.heading if metric else finding.metric
    base, new = (
        metric.shown(value) if metric else "-" if value is None else f"{value:.3g}"
        for value in (finding.base, finding.new)
    )
    factor = finding.factor
    interval = "-"
    if factor is not None:
        interval = f"{100 * (factor.low - 1):+.1f} .. {100 * (factor.high - 1):+.1f} %"
    return [
        finding.verdict,
        " ".join(filter(None, (finding.workload, finding.case))),
        str(finding.threads or "-"),
        finding.allocator,
        heading,
        base,
        new,
        "-" if factor is None else f"{100 * (factor.median - 1):+.1f} %",
        interval,
        "-" if finding.p_adjusted is None else f"{finding.p_adjusted:.2g}",
        f"{finding.counts[0]}, {finding.counts[1]}",
        finding.reason,
    ]


def power_lines(found: Comparison) -> list[str]:
    """What these runs could have shown at all."""
    power = found.power
    if not power.tests:
        return [
            "No timed figure could be tested: too few clean samples. Counted figures are judged."
        ]
    first = (
        f"{power.tests} timed figures are tested at once (Holm, alpha {ALPHA:g}): that takes at least "
        f"{power.samples_needed} clean samples a side; {power.short} of them have fewer and can't be "
        "called regressed by their time."
    )
    if power.short:
        first += (
            f" Run both with --repeat {power.samples_needed} or more, or compare fewer with -a."
        )
    lines = [first]
    if power.median_detectable is not None and power.poor_detectable is not None:
        lines.append(
            f"Nine times in ten, half of the cells would have shown a slowdown of "
            f"{100 * (power.median_detectable - 1):.0f} % or more as being beyond "
            f"{100 * found.fail_on:g} %, and nine cells in ten one of "
            f"{100 * (power.poor_detectable - 1):.0f} %."
        )
    return lines
