"""Parts of pages: lists in pages, trends, family, disputes, methodology, search index, size."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from reports import charts
from reports.family import SIBLINGS, family
from reports.interface import SiteView, VerdictChange
from reports.matrix import fall_class, matrix, points
from reports.methods import methods
from reports.plan import Entry
from reports.scan import HeatmapView, TopicLanguageView, UnmeasuredView
from reports.search import SearchRow, search_index
from reports.site import entries as site_entries
from reports.tree import TreeEdge, TreeNode
from reports.trends import first_loss, first_verdicts, last_weeks, shift, trend
from tests.reports import hostile, samples
from tests.reports.html_tools import Page, parse
from tests.reports.sample_scans import rate

FOLDER = "releases/demo/smollm2-135m-guarded"
LIMIT = 200_000


def entries(view: SiteView) -> dict[str, Entry]:
    """The plan, by path."""
    return {entry.path: entry for entry in site_entries(view)}


def text_of(planned: dict[str, Entry], path: str) -> str:
    """One page, rendered."""
    content = planned[path].render()
    assert isinstance(content, str)
    return content


def words(page: Page) -> str:
    """Its text, with single spaces."""
    return " ".join(page.text.split())


@pytest.fixture(scope="module")
def lived() -> dict[str, Entry]:
    """The plan of forks with a past."""
    return entries(samples.lived())


def test_a_long_list_comes_in_pages() -> None:
    """Every fork once, by name over all pages, each page small; and once more under its verdict."""
    many = [samples.Fork(f"many/fork-{number:03d}", "unrelated", (), "Other.") for number in range(230)]
    planned = entries(samples.view(*many))
    names: list[str] = []
    for path in (f"{FOLDER}/index.html", f"{FOLDER}/forks-2.html", f"{FOLDER}/forks-3.html"):
        html = text_of(planned, path)
        assert len(html) < LIMIT
        names += [attrs["data-name"] for attrs in parse(html).all("tr") if "data-name" in attrs]
    assert names == sorted(names)
    assert len(names) == 230 + len(samples.FORKS)
    assert f"{FOLDER}/forks-4.html" not in planned
    last = parse(text_of(planned, f"{FOLDER}/verdict-unrelated-3.html"))
    assert {attrs["data-verdict"] for attrs in last.all("tr") if "data-verdict" in attrs} == {"unrelated"}


def test_a_deep_model_has_a_small_page() -> None:
    """126 layers of 14 modules: several layers share a column, which shows the largest change."""
    layers, modules = tuple(range(126)), tuple(f"module_{number}" for number in range(14))
    values = tuple(tuple(0.001 * (layer + 1) for _ in modules) for layer in layers)
    view = HeatmapView(layers=layers, modules=modules, values=values)
    heat = charts.heatmap(view)
    assert (heat.pooled, len(heat.cells)) == (3, 42 * 14)
    assert heat.cells[0].title == "layers 0–2, module_0: 0.003"
    sample = samples.lived()
    (release,) = sample.releases
    scans = tuple(replace(scan, heatmap=view) for scan in release.scans)
    planned = entries(replace(sample, releases=(replace(release, scans=scans),)))
    assert len(text_of(planned, "forks/abl/smollm2-directional/index.html")) < LIMIT


def test_weeks_are_iso_weeks() -> None:
    """Over the turn of a year with 53 weeks; new forks are counted in the week of their first verdict."""
    assert last_weeks("2027-W01", 3) == ("2026-W52", "2026-W53", "2027-W01")

    def change(day: str, before: str | None, after: str) -> VerdictChange:
        return VerdictChange(repo="a/b", commit="c", at=f"{day}T00:00:00Z", before=before, after=after)

    changes = [
        change("2027-01-03", None, "authentic"),
        change("2027-01-04", None, "safety-removed"),
        change("2027-01-05", "authentic", "safety-degraded"),
    ]
    release = replace(samples.view().releases[0], changes=tuple(changes))
    found = trend(first_verdicts([release]), "2027-W01")
    assert [(row.name, row.total) for row in found.rows[-2:]] == [("2026-W53", 1), ("2027-W01", 1)]
    assert len(found.rows) == 12
    assert shift(changes, "2027-W01").lost_safety() == 2
    assert first_loss(changes, "2027-01-01T00:00:00Z").days == 3
    assert first_loss(changes, "2027-02-01T00:00:00Z").days is None
    assert first_loss(changes[:1], None) is None


class _Balance(HTMLParser):
    """Which elements are open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("ul", "ol", "li", "div", "section", "table", "details"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("ul", "ol", "li", "div", "section", "table", "details") and self.open.pop() != tag:
            self.wrong.append(tag)


def test_the_family_is_one_well_formed_list() -> None:
    """Nested as deep as the claims go; the fifty-first child of a node, and all below it, are counted."""
    (release,) = samples.lived().releases
    base = samples.DELETED
    names = [f"kids/k{number:03d}" for number in range(SIBLINGS + 5)]
    nodes = tuple(TreeNode(repo=name, role="fork") for name in (*names, "kids/k054-child"))
    edges = tuple(TreeEdge(child=name, base=base, kind="claimed") for name in names)
    below = TreeEdge(child="kids/k054-child", base="kids/k054", kind="claimed")
    grown = replace(
        release.tree,
        nodes=(*release.tree.nodes, *nodes),
        edges=(*release.tree.edges, *edges, below),
    )
    lines = family(grown).lines
    (counted,) = [line for line in lines if line.branch is None]
    # The sample's own quantisation of that fork is a child as well, the last by name.
    assert counted.hidden == ((None, 7),)
    sample = samples.lived()
    planned = entries(replace(sample, releases=(replace(release, tree=grown),)))
    balance = _Balance()
    balance.feed(text_of(planned, f"{FOLDER}/family.html"))
    assert (balance.open, balance.wrong) == ([], [])


def test_a_withdrawn_verdict_is_not_repeated(lived: dict[str, Entry]) -> None:
    """Not in the headline, not in the table, not among what needs a decision; what was measured stays."""
    page = words(parse(text_of(lived, "forks/official-mirror/smollm2-135m-guarded/index.html")))
    assert "Verdict withdrawn" in page
    assert "The card was quoted wrongly by us." in page
    assert "Says it is an exact copy" not in page.split("Why we think so")[0]
    home = words(parse(text_of(lived, "index.html"))).split("Guarded releases")[0]
    assert samples.WITHDRAWN not in home


def test_a_dispute_stands_beside_the_verdict(lived: dict[str, Entry]) -> None:
    """Open and decided ones, with what both sides say; also in the table and in the week."""
    page = words(parse(text_of(lived, "forks/freeform/smollm2-unlocked-delta/index.html")))
    assert "D-2 open: it is being looked at" in page
    assert "It was only merged with a style adapter." in page
    assert "Answer: Measured again with another seed: the same result." in page
    assert "Safety removed" in page
    assert "disputed" in words(parse(text_of(lived, f"{FOLDER}/index.html")))
    assert "D-1" in words(parse(text_of(lived, "changes/2026-W46.html")))


def test_an_old_scan_and_a_gated_fork_say_so() -> None:
    """Old by the newest result of the site, so that the same store gives the same page tomorrow."""
    view = samples.lived()
    gated = "forks/broken/smollm2-guarded-v2/index.html"
    now = words(parse(text_of(entries(view), gated)))
    assert "gated" in now
    assert "old scan" not in now
    later = entries(replace(view, generated_at="2026-12-30T00:00:00Z"))
    assert "old scan" in words(parse(text_of(later, gated)))


def test_topics_and_languages() -> None:
    """A cell that was not asked is not 0; shades follow the fall, and a rise is none."""
    cells = (
        TopicLanguageView(topic="fraud", language="en", original=rate(1.0, 8), fork=rate(0.25, 8)),
        TopicLanguageView(
            topic="malware", language="de", original=rate(1.0, 8), fork=UnmeasuredView(unmeasured="x")
        ),
    )
    found = matrix(cells)
    assert found is not None
    assert [[cell and cell.css for cell in row] for _, row in found.rows] == [["d4", None], [None, "dx"]]
    assert (fall_class(-0.3), points(-0.3), points(0.001), points(0.01)) == (
        "d0", "+30 points", "0 points", "1 point",
    )  # fmt: skip
    assert matrix(()) is None


def test_the_methodology_is_the_documentation() -> None:
    """Every page of docs/methodology, and the limits first; a link to another of them stays a link."""
    docs = Path(__file__).parents[2] / "docs"
    assert {method.name for method in methods()} == {
        "index", *(path.stem for path in (docs / "methodology").glob("*.md"))
    }  # fmt: skip
    planned = entries(samples.view())
    first = parse(text_of(planned, "methodology/index.html"))
    assert "Limits" in words(first)
    assert "weights.html" in first.links


def test_the_search_index_is_data_whatever_names_say() -> None:
    """One row a line, ASCII, and nothing in it ends the string that it is in."""
    evil = SearchRow(
        repo=hostile.PAYLOAD, page="p.html", note="n", names=("\u2028</script>",), hashes=("ab",)
    )
    text = search_index([evil, SearchRow(repo="a/b", page="q.html", note="n", hashes=("f" * 64, "f" * 64))])
    assert text.isascii()
    head, _, rest = text.partition("window.forkwatchIndex = ")
    assert head == '"use strict";\n'
    rows = json.loads(rest.rstrip().removesuffix(";"))
    assert [row[0] for row in rows if row[1] == "q.html"] == ["a/b"]
    assert [row[4] for row in rows if row[1] == "q.html"] == ["f" * 16]
    assert not set(rows[0][0] + rows[1][0]) & set(hostile.HIDDEN)
