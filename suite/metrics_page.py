# SPDX-License-Identifier: Apache-2.0
"""docs/metrics.md, printed from the registry: `python -m suite.metrics_page docs/metrics.md`."""

from __future__ import annotations

import sys
from pathlib import Path

from suite.metrics import DERIVED, GROUPS, METRICS, Metric

__all__ = ["page"]

HEAD = """\
# Metrics

Every figure that the tables and reports show, as `suite/metrics.py` computes it. This page is
printed from there: `make metrics-page`; a test fails when it is stale.

Three noise models tell `nvcrucible compare` what a difference may be taken for. *timed*: depends on
the machine and its neighbours; only undisturbed samples count, and several of them are needed.
*counted*: events of the program itself; the same work gives nearly the same count whatever
else the machine does, so that one sample may do. *sized*: bytes.

A sample is *timed* (undisturbed), *observed* (its persistence events were counted, which slows
it), *stepped* (some of its operations were stepped over, instruction by instruction) or a *trial* (a
script with a beginning and an end).
"""


TAIL = """
Standalone workloads (docs/standalone-workloads.md) name figures of their own in their YAML
files; `config.workloads` of a run holds them.
"""


def page() -> str:
    """The page, as Markdown."""
    parts = [HEAD]
    for group, title in GROUPS.items():
        parts.append(f"\n## {title}\n")
        parts += [_entry(metric) for metric in METRICS if metric.group == group]
    parts.append("\n# Columns that are computed from them\n")
    for table, columns in DERIVED.items():
        parts.append(
            f"\n## {table}\n\n| column | unit | what it is | source |\n|---|---|---|---|\n"
        )
        for each in columns:
            parts.append(f"| {each.heading} | {each.unit} | {each.definition} | {each.source} |\n")
    return "".join([*parts, TAIL])


def _entry(metric: Metric) -> str:
    better = {"higher": "higher is better", "lower": "lower is better", "neither": "no direction"}
    shown = f"shown as *{metric.heading}*" if metric.in_tables else "in no table"
    facts = [
        metric.unit,
        shown,
        better[metric.direction],
        f"{metric.model}, from {' and '.join(metric.kinds)} samples",
    ]
    return (
        f"\n### `{metric.name}`\n\n{metric.definition}\n\n- {'; '.join(facts)}\n"
        f"- source: {metric.source}\n- `compare`: {_judgement(metric)}\n"
    )


def _judgement(metric: Metric) -> str:
    if not metric.judged:
        return f"no verdict ({metric.unjudged})"
    text = "judged"
    if metric.unjudged:
        text += f" on {' and '.join(metric.judged_kinds)} samples only ({metric.unjudged})"
    if metric.repeatability:
        text += f"; two runs of one build were seen to differ by {100 * metric.repeatability:g} %"
    if metric.floor:
        text += f"; differences up to {metric.floor:g} don't count"
    return text


def main() -> int:
    """Writes the page to the file that is named, or prints it."""
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(page(), encoding="utf-8")
    else:
        sys.stdout.write(page())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
