# SPDX-License-Identifier: Apache-2.0
"""Whoever begins at the README finds every page, and no link leads nowhere."""

from __future__ import annotations

import re
from pathlib import Path

from project import REPOSITORY

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
README = REPOSITORY / "README.md"


def links(page: Path) -> list[Path]:
    """The files and folders that a page links to, without anchors and the web."""
    targets = [found.partition("#")[0] for found in LINK.findall(page.read_text(encoding="utf-8"))]
    return [(page.parent / each).resolve() for each in targets if each and "://" not in each]


def reachable(start: Path) -> set[Path]:
    found, left = {start}, [start]
    while left:
        page = left.pop()
        for target in links(page):
            if target.suffix == ".md" and target not in found and target.is_file():
                found.add(target)
                left.append(target)
    return found


def test_every_page_is_reachable_from_the_readme() -> None:
    pages = set((REPOSITORY / "docs").rglob("*.md"))
    assert len(pages) >= 15
    lost = sorted(str(page.relative_to(REPOSITORY)) for page in pages - reachable(README))
    assert not lost, f"no page that the README leads to links to: {', '.join(lost)}"


def test_no_link_leads_nowhere() -> None:
    dead = [
        f"{page.relative_to(REPOSITORY)}: {target}"
        for page in sorted(reachable(README))
        for target in links(page)
        if not target.exists()
    ]
    assert not dead
