# SPDX-License-Identifier: Apache-2.0
"""A run as one HTML file that needs nothing else: no network, no library, no other file.

    page.py        the run as what the template shows: sections, cards, tables, raw samples
    charts.py      line charts as inline SVG
    scales.py      axes: where a value lies, where the ticks are
    template.html.j2, style.css, script.js

Rejected: a plotting library.  Those that make self-contained HTML inline megabytes of
script, draw fixed pixels that a phone can't read, and know nothing of our themes; what we draw are bars
(HTML, so that their text keeps its size at any width) and lines (SVG coloured by the page's own
variables, so that light and dark are one chart).

Every number on the page carries the places of its samples (`data-s`), and the page carries all
samples: a click shows what a median is made of.  A policy in the page's head forbids it to load
anything.
"""

from suite.html_report.page import render

__all__ = ["render"]
