# SPDX-License-Identifier: Apache-2.0
"""Mutants of nvmalloc: what a site is, the reviewed list, and that a sample of mutants is killed."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from project import REPOSITORY, Project
from suite import yaml_source
from suite.mutants import (
    HISTORIES,
    HISTORIES_PER_MUTANT,
    MUTATIONS,
    REVIEWED,
    History,
    Laboratory,
    Mutant,
    Outcome,
    Reviewed,
    compare,
    histories_for,
    mutants_of,
    sample,
)
from suite.persistence_sites import Identity, Site, nvmalloc_sources, scan, scan_file

SOURCE = """\
/* nvm_fence(persist) is what this file calls. */
static void twice(struct nvm_persist *persist,
                  uint64_t *word)
{
    nvm_flush(persist, word,
              sizeof(*word));
    nvm_fence(persist); /* the word first */
    if (more)
        nvm_fence(persist);
}

static inline __attribute__((always_inline)) void
log_one(struct line *line)
{
    nvm_log_line(line, from, unusual);
}
"""
SAMPLE = 10
SEED = 1


def test_sites_are_known_by_text_and_occurrence() -> None:
    sites = list(scan_file("a.c", SOURCE))
    assert [(site.line, site.identity.function, site.events) for site in sites] == [
        (5, "twice", ("flush",)),
        (7, "twice", ("fence",)),
        (9, "twice", ("fence",)),
        (15, "log_one", ("nt-store", "fence")),
    ]
    assert [site.identity.occurrence for site in sites] == [1, 1, 2, 1]
    assert sites[1].identity.text == "nvm_fence(persist);"


def test_an_identity_outlives_edits_above_it() -> None:
    moved = SOURCE.replace("static void twice", "static int other;\n\nstatic void twice")
    before, after = list(scan_file("a.c", SOURCE)), list(scan_file("a.c", moved))
    assert [site.identity for site in before] == [site.identity for site in after]
    assert [site.line + 2 for site in before] == [site.line for site in after]


def test_the_scan_misses_no_call_in_nvmalloc() -> None:
    sources = nvmalloc_sources(REPOSITORY)
    calls = ("nvm_flush(", "nvm_flush_one(", "nvm_fence(", "nvm_store_line(", "nvm_log_line(")
    found = Counter(site.identity.file for site in scan(sources))
    for path in sources:
        code = [line.split("/*")[0] for line in path.read_text().splitlines()]
        code = [line for line in code if not line.lstrip().startswith("*")]
        expected = sum(any(call in line for call in (*calls, "nvm_clwb(")) for line in code)
        assert found[path.name] == expected, path.name


def _site(text: str = "nvm_fence(p);", line: int = 3, events: tuple[str, ...] = ("fence",)) -> Site:
    return Site(Identity("a.c", "f", text), line, events)


def test_each_event_that_was_reached_has_its_mutants() -> None:
    log = _site("nvm_log_line(l);", 9, ("nt-store", "fence"))
    reached = [("a.c:9", "fence"), ("a.c:9", "nt-store"), ("b.c:3", "fence")]
    assert [mutant.argument for mutant in mutants_of([_site(), log], reached)] == [
        "cached:a.c:9",
        "drop-fence:a.c:9",
        "swap-fence:a.c:9",
    ]


def test_a_sample_is_seeded_and_has_each_kind() -> None:
    sites = [
        Site(Identity("a.c", "f", str(i)), i, (event,)) for i in range(30) for event in MUTATIONS
    ]
    mutants = mutants_of(sites, [(site.place, event) for site in sites for event in site.events])
    chosen = sample(mutants, 8, 3)
    assert chosen == sample(mutants, 8, 3)
    assert len(chosen) == 8
    assert {mutant.kind for mutant in chosen} == {kind for of in MUTATIONS.values() for kind in of}
    assert sample(mutants, 8, 4) != chosen


def test_the_list_must_match_what_survived() -> None:
    killed = Outcome(Mutant(_site(), "drop-fence"), verdict="lost")
    survived = Outcome(Mutant(_site(), "swap-fence"))
    entry = {"file": "a.c", "function": "f", "text": "nvm_fence(p);", "reason": "x" * 20}
    reviewed = Reviewed.model_validate({"survivors": [{**entry, "kind": "swap-fence"}]})
    assert compare([killed, survived], [_site()], [], reviewed).agrees
    empty = Reviewed(survivors=[])
    assert len(compare([killed, survived], [_site()], [], empty).unexplained) == 1
    assert len(compare([killed, survived], [_site()], [_site()], reviewed).unexplained) == 1
    stale = compare([killed], [_site()], [], reviewed).stale
    assert stale == ["swap-fence a.c f(): nvm_fence(p);: is killed or reached now"]
    gone = compare([], [], [], reviewed).stale
    assert gone == ["swap-fence a.c f(): nvm_fence(p);: is in the sources no more"]


def test_histories_of_all_modes_take_turns() -> None:
    place = ("a.c:3", "fence")
    busy, idle = History("owned", 1), History("owned", 2)
    other, stranger = History("gc", 1), History("strict", 1)
    reach = {idle: {place: 1}, stranger: {}, busy: {place: 9}, other: {place: 2}}
    assert histories_for(Mutant(_site(), "drop-fence"), reach, 9) == [busy, other, idle]
    assert histories_for(Mutant(_site(), "drop-fence"), reach, 1) == [busy]


def test_the_reviewed_list_names_sites_that_exist() -> None:
    reviewed = yaml_source.load(REPOSITORY / REVIEWED, Reviewed)
    existing = {site.identity for site in scan(nvmalloc_sources(REPOSITORY))}
    assert [str(each.key[0]) for each in reviewed.survivors if each.key[0] not in existing] == []


@pytest.mark.native
def test_a_sample_of_mutants_is_killed_and_nvmalloc_is_not(native: Project, tmp_path: Path) -> None:
    nvlab = native.build / "faults" / "nvlab"
    if not nvlab.is_file():
        pytest.skip("the build has no faults/nvlab: libdw-dev was missing")
    laboratory = Laboratory(
        nvlab, native.build / "allocators" / "nvmalloc.lens.so", tmp_path, native.pm
    )
    pool = ThreadPoolExecutor(2)
    reach = dict(zip(HISTORIES, pool.map(laboratory.reached, HISTORIES), strict=True))
    reviewed = yaml_source.load(REPOSITORY / REVIEWED, Reviewed)
    spared = {each.key for each in reviewed.survivors}
    reached = {place for of in reach.values() for place in of}
    mutants = [
        mutant
        for mutant in mutants_of(scan(nvmalloc_sources(REPOSITORY)), reached)
        if (mutant.site.identity, mutant.kind) not in spared
    ]
    chosen = sample(mutants, SAMPLE, SEED)
    assert {mutant.kind for mutant in chosen} == {kind for of in MUTATIONS.values() for kind in of}

    def kill(mutant: Mutant) -> Outcome:
        return laboratory.kill(mutant, histories_for(mutant, reach, HISTORIES_PER_MUTANT))

    outcomes = list(pool.map(kill, chosen))
    assert [each.mutant.argument for each in outcomes if not each.verdict] == []
    killer = min(
        (each.history for each in outcomes if each.history is not None),
        key=lambda each: each.ops * each.generations,
    )
    assert laboratory.judge(killer)["verdict"] == "ok", killer.name
