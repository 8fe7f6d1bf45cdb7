# SPDX-License-Identifier: Apache-2.0
"""The HTML report, driven in headless Chromium: filters, sorting, samples, two widths, two themes.

NVC_SCREENSHOTS=DIR writes the screenshots that docs/ shows; NVC_SCREENSHOT_RUN=RUN, of that run.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from made_runs import Machine
from project import REPOSITORY, Project
from suite.html_report import render
from suite.html_report.scales import linear, logarithmic, tail
from suite.latency import merged_percentiles
from suite.results import CaseSummary, Metrics, Run, RunFolder, Sample, Verdict, load_run
from suite.summary import summarize

CHROMIUM = "chromium"
NASTY = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"


def latency(around: int) -> dict[str, Any]:
    """A histogram with a tail."""
    counts = [[around, 9000], [around * 2, 950], [around * 10, 45], [around * 100, 5]]
    return {"counts": counts, "max_ns": around * 120}


def made_run(folder: Path) -> Run:
    """Everything that a page can show, nasty texts included."""
    machine = Machine(6)
    run = machine.run(repeats=4)
    for sample in run.samples:
        if sample.metrics.ops_per_s:
            timed = latency(max(20, int(4e8 / sample.metrics.ops_per_s)))
            sample.raw = {"latency": timed}
            sample.metrics.p50_ns = float(timed["counts"][0][0])
            sample.metrics.p99_ns = float(timed["counts"][2][0])
            sample.metrics.peak_bytes = 5e6
    run.samples[0].accepted, run.samples[0].noise = False, 0.4
    run.samples[1].accepted, run.samples[1].error = False, NASTY
    for allocator, scale in (("ours", 1.0), ("theirs", 4.0)):
        for live in (1_000, 100_000, 1_000_000):
            metrics = Metrics(live_objects=live, rebuilt_ms=scale * live / 5000, first_op_ms=scale)
            run.samples.append(
                Sample(
                    allocator=allocator, workload=f"recovery live={live}", family="recovery",
                    threads=1, repeat=0, metrics=metrics, raw={"metrics": {}},
                )
            )  # fmt: skip
        series = [
            {
                "allocated_bytes": i * 10**7,
                "footprint_bytes": int(scale * i * 10**6),
                "live_bytes": 10**7,
            }
            for i in range(1, 20)
        ]
        run.samples.append(
            Sample(
                allocator=allocator, workload="fragmentation mix=w2", family="fragmentation",
                threads=1, repeat=0, metrics=Metrics(footprint_ratio=1.1 * scale),
                raw={"metrics": {}, "series": series},
            )
        )  # fmt: skip
    case = CaseSummary(kind="lost", detail=NASTY, seed=1, path="cases/theirs-sigkill-1")
    (folder / "cases" / "theirs-sigkill-1").mkdir(parents=True)
    run.verdicts = [
        Verdict(allocator="ours", fault="sigkill", cases=9, states=30, passed=9, failed=0),
        Verdict(
            allocator="theirs", fault="sigkill", cases=9, states=30, passed=8, failed=1,
            by_kind={"lost": 1}, failures=[case],
        ),
        Verdict(allocator="theirs", fault="powerfail", cases=5, states=5, passed=5, failed=0),
    ]  # fmt: skip
    return run


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    folder = tmp_path_factory.mktemp("runs") / "20260102T030400Z-made"
    folder.mkdir()
    run = made_run(folder)
    file = folder.parent / "reports" / "report.html"
    file.parent.mkdir()
    file.write_text(render(run, folder, file))
    return run, file


class _Page(HTMLParser):
    """What a browser would fetch, and the document's outline."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        for name in ("src", "srcset", "data", "poster", "background", "formaction"):
            if known.get(name):
                self.fetched.append(f"{tag} {known[name]}")
        if tag == "link" and not (known.get("href") or "").startswith("data:"):
            self.fetched.append(f"link {known.get('href')}")
        if tag not in {"meta", "link", "input", "br", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_file_names_nothing_outside(report: tuple[Run, Path]) -> None:
    text = report[1].read_text()
    page = _Page()
    page.feed(text)
    assert page.fetched == []
    assert page.open == []
    style = text.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    assert "://" not in re.sub(r'id="data">.*?</script>', "", text, flags=re.DOTALL)
    assert NASTY not in text
    assert "default-src 'none'" in text


def test_every_sample_is_in_the_file(report: tuple[Run, Path]) -> None:
    run, file = report
    text = file.read_text()
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    assert len(data["samples"]) == len(run.samples)
    for found, sample in zip(data["samples"], run.samples, strict=True):
        assert found["allocator"] == sample.allocator
        assert found["metrics"] == sample.metrics.model_dump(exclude_none=True)
    # Each number names its samples, and their median is the number.
    cells = re.findall(r'data-v="([^"]+)" data-s="([0-9,]+)" data-m="(\w+)"', text)
    assert len(cells) > 100
    for value, places, metric in cells:
        values = sorted(
            data["samples"][int(place)]["metrics"][metric] for place in places.split(",")
        )
        middle = len(values) // 2
        median = values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2
        assert float(value) == pytest.approx(median, rel=1e-6)


def test_links_lead_to_the_cases(report: tuple[Run, Path]) -> None:
    _, file = report
    links = re.findall(r'<a href="([^"]+)"', file.read_text())
    assert links
    for link in links:
        assert (file.parent / link).is_dir()


def test_axes() -> None:
    axis = logarithmic([0.7, 240.0])
    assert axis.low <= 0.7
    assert axis.high >= 240
    assert axis.place(axis.low) == 0
    assert axis.place(axis.high) == 1
    shares = [share for share, _ in axis.ticks]
    assert shares == sorted(shares)
    assert 3 <= len(shares) <= 10
    assert math.isclose(axis.place(math.sqrt(axis.low * axis.high)), 0.5)
    assert logarithmic([5.0]).high > logarithmic([5.0]).low
    assert linear([0.0, 97.0]).ticks[-1][1] == "100"
    assert linear([]).high > 0
    places, ticks = tail((0.5, 0.9, 0.99))
    assert places[0.5] == 0
    assert places[0.99] == 1
    assert [label for _, label in ticks] == ["50", "90", "99"]


def test_percentiles_of_several_histograms() -> None:
    first, second = {"counts": [[10, 50], [30, 50]]}, {"counts": [[20, 99], [1000, 1]]}
    found = merged_percentiles([first, second], (0.5, 0.99, 0.999))
    assert found == {0.5: 20.0, 0.99: 30.0}  # 200 operations don't tell 99.9 %
    assert merged_percentiles([], (0.5,)) == {}


# Machado, Oliveira, Fernandes: A Physiologically-based Model for Simulation of Color Vision
# Deficiency, IEEE TVCG 15 (2009); severity 1.0, on linear RGB.
VISION = {
    "all cones": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216),
                   (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413),
                     (-0.011820, 0.042940, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602),
                   (0.004733, 0.691367, 0.303900)),
}  # fmt: skip


def rgb(colour: str) -> tuple[float, ...]:
    """Linear."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return tuple(p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)


def lab(colour: tuple[float, ...], matrix: tuple[tuple[float, ...], ...]) -> tuple[float, ...]:
    seen = [min(1, max(0, sum(a * b for a, b in zip(row, colour, strict=True)))) for row in matrix]
    to_xyz = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    xyz = [sum(a * b for a, b in zip(row, seen, strict=True)) for row in to_xyz]
    x, y, z = (
        t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116
        for t in (xyz[0] / 0.95047, xyz[1], xyz[2] / 1.08883)
    )
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def themes() -> dict[str, dict[str, str]]:
    """The colours of style.css."""
    text = (REPOSITORY / "suite" / "html_report" / "style.css").read_text()
    light, rest = text.split('[data-theme="dark"]', 1)
    dark, rest = rest.split("@media", 1)
    found = {"light": light, "dark": dark, "dark by itself": rest.split("* {", 1)[0]}
    return {name: dict(re.findall(r"--(\w+): (#\w{6})", part)) for name, part in found.items()}


@pytest.mark.parametrize("vision", VISION)
def test_no_two_lines_look_alike_to_anybody(vision: str) -> None:
    known = themes()
    assert known["dark"] == known["dark by itself"]
    for theme in ("light", "dark"):
        colours = [known[theme][f"c{number}"] for number in range(7)]
        seen = [lab(rgb(colour), VISION[vision]) for colour in colours]
        for a, b in itertools.combinations(seen, 2):
            assert math.dist(a, b) > 12, theme


def test_text_stands_out() -> None:
    def luminance(colour: str) -> float:
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), rgb(colour), strict=True))

    for colours in themes().values():
        for ground in ("page", "card"):
            for text in ("text", "muted", "good", "bad", "known"):
                pair = sorted((luminance(colours[text]), luminance(colours[ground])))
                assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, (text, ground)


# ---- in the browser ----


def need(reason: str) -> None:
    """Skips with the reason, or fails where everything must be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@dataclass
class Tab:
    """A page and everything that it said or asked for."""

    page: Any
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    program = shutil.which(CHROMIUM)
    if program is None:
        need("there is no chromium here (Debian package: chromium)")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        need("the Python package playwright is missing: pip install -e '.[dev]'")
    with sync_playwright() as play:
        # As root there is no sandbox; the page is our own, and it may load nothing.
        found = play.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield found
        found.close()


def opened(browser: Any, file: Path, width: int = 1280, scheme: str = "light") -> Tab:
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
    )
    tab = Tab(context.new_page())
    tab.page.on("console", lambda message: tab.said.append(f"{message.type}: {message.text}"))
    tab.page.on("pageerror", lambda error: tab.said.append(str(error)))
    tab.page.on("request", lambda request: tab.asked.append(request.url))
    tab.page.goto(file.as_uri())
    return tab


def settled(tab: Tab, file: Path) -> None:
    """Nothing was said, nothing was asked for, nothing was injected."""
    assert tab.said == []
    assert tab.asked == [file.as_uri()]
    assert tab.page.evaluate("window.hacked") is None


def visible(tab: Tab, selector: str) -> int:
    return sum(each.is_visible() for each in tab.page.query_selector_all(selector))


def test_filter_an_allocator(browser: Any, report: tuple[Run, Path]) -> None:
    _, file = report
    tab = opened(browser, file)
    page = tab.page
    theirs, ours = '[data-allocator="theirs"]', '[data-allocator="ours"]'
    before = visible(tab, f"tr{theirs}"), visible(tab, f".bar{theirs}"), visible(tab, f"tr{ours}")
    assert min(before) > 5
    page.click('.chip:has(input[value="theirs"])')
    for kind in ("tr", ".bar", "g"):
        assert visible(tab, f"{kind}{theirs}") == 0
    assert visible(tab, f"tr{ours}") == before[2]
    page.click('.chip:has(input[value="theirs"])')
    assert visible(tab, f"tr{theirs}") == before[0]
    page.click('button[data-preset="volatile"]')
    assert visible(tab, f"tr{ours}") == 0
    assert visible(tab, '.bar[data-allocator="fast"]') == 10
    page.click('button[data-preset="all"]')
    page.select_option("#threads", "2")
    assert visible(tab, '.bar[data-threads="1"]') == 0
    assert visible(tab, '.bar[data-allocator="fast"]') == 5
    settled(tab, file)


def test_sort_a_table(browser: Any, report: tuple[Run, Path]) -> None:
    run, file = report
    tab = opened(browser, file)
    table = 'table[data-table="throughput-table"]'

    def column(number: int) -> list[str]:
        script = f"rows => rows.map(row => row.cells[{number}].dataset.v ?? row.cells[{number}].textContent)"
        return list(tab.page.eval_on_selector_all(f"{table} tbody tr", script))

    tab.page.click(f"{table} th:nth-child(5) button")
    falling = [float(value) for value in column(4) if value]
    assert falling == sorted(falling, reverse=True)
    assert len(falling) == len([row for row in summarize(run).rates if row.rate])
    tab.page.click(f"{table} th:nth-child(5) button")
    assert [float(value) for value in column(4) if value] == falling[::-1]
    assert tab.page.get_attribute(f"{table} th:nth-child(5)", "aria-sort") == "ascending"
    tab.page.click(f"{table} th:nth-child(3) button")
    names = column(2)
    assert names == sorted(names)
    assert tab.page.get_attribute(f"{table} th:nth-child(5)", "aria-sort") is None
    settled(tab, file)


def test_a_number_shows_its_samples(browser: Any, report: tuple[Run, Path]) -> None:
    run, file = report
    tab = opened(browser, file)
    cell = tab.page.query_selector('table[data-table="throughput-table"] td[data-s]')
    places = [int(place) for place in cell.get_attribute("data-s").split(",")]
    cell.click()
    dialog = tab.page.locator("#samples")
    assert dialog.is_visible()
    rows = dialog.locator("tbody tr:not(.unused)").all_inner_texts()
    assert [row.split("\t")[0] for row in rows] == [f"samples[{place}]" for place in places]
    assert str(run.samples[places[0]].seed) in rows[0]
    dialog.locator("button").click()
    assert not dialog.is_visible()
    # A sample that did not count is shown, too, and why.
    first = run.samples[0]
    key = f'[data-allocator="{first.allocator}"][data-threads="{first.threads}"]'
    tab.page.locator(f".card:has(h3:text-is('{first.workload}')) .bar{key}").click()
    assert "repeated: noisy" in dialog.locator("tr.unused").first.inner_text()
    tab.page.keyboard.press("Escape")
    tab.page.locator("svg g.point").first.click(force=True)
    assert dialog.is_visible()
    settled(tab, file)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_legible(browser: Any, report: tuple[Run, Path], width: int, scheme: str) -> None:
    _, file = report
    tab = opened(browser, file, width, scheme)
    page = tab.page
    assert page.evaluate("document.documentElement.scrollWidth") == width
    small = page.evaluate(
        """() => [...document.querySelectorAll("main *, header *")].filter(e => e.getClientRects().length
             && [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()))
           .map(e => { const svg = e.closest("svg");
             const scale = svg ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1;
             return [parseFloat(getComputedStyle(e).fontSize) * scale, e.textContent.slice(0, 30)]; })
           .filter(([size]) => size < 9.5)"""
    )
    assert small == []
    charts = page.locator(".card > svg")
    assert charts.count() >= 5 + 10 + 1 + 2  # scaling, latency, footprint, recovery
    assert all(box["width"] > 250 for box in (each.bounding_box() for each in charts.all()))
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
    page.click("#theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != ground
    assert page.locator("h2").all_inner_texts()[:5] == [
        "Throughput", "Survival", "Scaling over threads", "Latency", "Footprint over time",
    ]  # fmt: skip
    settled(tab, file)


def test_the_command(project: Project, tmp_path: Path) -> None:
    folder = tmp_path / "20260102T030400Z-made"
    folder.mkdir()
    run = made_run(folder)
    RunFolder(folder, run).save()
    file = tmp_path / "report.html"
    result = project.invoke("report", str(folder), "--html", str(file))
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert "complete in itself" in result.stderr
    assert file.read_text() == render(load_run(folder), folder, file)
    gone = project.invoke("report", str(folder), "--html", str(tmp_path / "none" / "x.html"))
    assert gone.exit_code == 3


def test_screenshots(browser: Any, report: tuple[Run, Path], tmp_path: Path) -> None:
    """Of a run that is named, else only that they can be made."""
    run, file = report
    target = Path(os.environ.get("NVC_SCREENSHOTS") or tmp_path)
    stated = os.environ.get("NVC_SCREENSHOT_RUN")
    if stated:
        run = load_run(Path(stated))
        file = tmp_path / "report.html"
        file.write_text(render(run, Path(stated), file))
    for width, scheme in ((1280, "light"), (1280, "dark"), (390, "light")):
        tab = opened(browser, file, width, scheme)
        shot = target / f"report-{width}-{scheme}.png"
        tab.page.screenshot(path=shot)
        assert shot.stat().st_size > 20_000
        assert shot.read_bytes()[:4] == b"\x89PNG"
        settled(tab, file)
