"""The effort curve as a picture: in scale, without names, the same whatever the names are."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from reports.effort import CheapestView, EffortDocument, EffortPointView, MissingView, UnplacedView
from reports.effort_chart import HEIGHT, LEFT, WIDTH, EffortChart, effort_chart
from reports.effort_json import from_json, json_schema, to_json
from reports.interface import SiteView
from reports.scan import RateView
from reports.site import site_files
from tests.reports.samples import view

NAME = "abl/smollm2-directional@" + "b" * 40


def point(name: str, kind: str, low: float, high: float, loss: float, **changes: object) -> EffortPointView:
    """A fork within the bound of usefulness."""
    made = EffortPointView(
        fork=name,
        kinds=(kind,),
        low=low,
        high=high,
        basis="inferred",
        refusal_loss=RateView(rate=loss, n=72, ci=(max(-1.0, loss - 0.1), min(1.0, loss + 0.1))),
        utility_loss=RateView(rate=0.02, n=60, ci=(0.0, 0.1)),
        within=True,
        on_frontier=False,
        compute=MissingView(name="compute", unmeasured="not known"),
        evidence=(),
        missing=(),
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # the names are checked by replace itself


POINTS = (
    point(NAME, "directional-edit", 1e9, 1e13, 0.9, on_frontier=True),
    point("b/tuned@" + "c" * 40, "full-finetune", 1e15, 1e15, 0.5),
    point("c/useless@" + "d" * 40, "directional-edit", 1e8, 1e8, 1.0, within=False),
    point("d/unchanged@" + "e" * 40, "sparse-patch", 0.0, 0.0, -0.05),
)
CHEAPEST = CheapestView(
    refusal_loss=0.5, utility_loss=0.1, fork=NAME, kinds=("directional-edit",), effort=1e13, basis="inferred"
)
DOCUMENT = EffortDocument(
    release="lab/guarded@" + "a" * 40,
    axis="compute",
    utility_loss=0.1,
    points=POINTS,
    unplaced=(UnplacedView(fork="e/silent@" + "f" * 40, reason="states nothing"),),
    cheapest=(CHEAPEST, replace(CHEAPEST, refusal_loss=0.9, fork=None, kinds=(), effort=None, basis=None)),
    limits=("Observed forks only.",),
)


def chart() -> EffortChart:
    found = effort_chart(DOCUMENT)
    assert found is not None
    return found


def site(document: EffortDocument) -> SiteView:
    made = view()
    return replace(made, releases=tuple(replace(release, effort=document) for release in made.releases))


def test_effort_is_drawn_in_decades() -> None:
    """Powers of ten from the least effort to the most, and a place of its own for none."""
    found = chart()

    assert [label.text for label in found.across] == [
        "0", "10⁸", "10⁹", "10¹⁰", "10¹¹", "10¹²", "10¹³", "10¹⁴", "10¹⁵",
    ]  # fmt: skip
    places = [label.x for label in found.across]
    assert places == sorted(places)
    steps = {round(after - before, 1) for before, after in pairwise(places[1:])}
    assert max(steps) - min(steps) <= 0.11
    assert places[0] > LEFT
    assert places[-1] < WIDTH


def test_nothing_is_drawn_outside() -> None:
    """A loss below 0 sits on the axis; a range reaches from its lower end to its upper one."""
    found = chart()
    by_kind = {mark.title.partition(":")[0]: mark for mark in found.marks}

    assert all(0 <= label.y <= HEIGHT for label in (*found.across, *found.up))
    assert "0% of refusals lost" in by_kind["Sparse patch"].title
    assert by_kind["Full fine-tune"].css == "in"
    assert {mark.css for mark in found.marks} == {"in", "over"}


def test_kinds_differ_by_shape() -> None:
    """No two kinds share a mark, so that nothing hangs on colour; the table says the same in words."""
    found = chart()

    assert len({row.path for row in found.kinds}) == len(found.kinds) == 3
    assert [(row.title, row.forks, row.within) for row in found.kinds] == [
        ("Directional edit", "2 forks", "1 of 2"),
        ("Full fine-tune", "1 fork", "1 of 1"),
        ("Sparse patch", "1 fork", "1 of 1"),
    ]
    assert [row.cells for row in found.grid] == [("1.00×10¹³ (inferred)",), ("none observed",)]
    assert "is 1.00×10¹³, with 90% lost" in found.words


def test_names_change_nothing() -> None:
    """The chart of the same forks under other names is the same: it cannot tell which is which."""
    renamed = tuple(replace(each, fork=f"z/{9 - number}@" + "0" * 40) for number, each in enumerate(POINTS))
    other = replace(
        DOCUMENT, points=renamed[::-1], cheapest=tuple(replace(c, fork=None) for c in DOCUMENT.cheapest)
    )

    assert effort_chart(other) == chart()


def test_a_page_has_the_picture_and_no_document() -> None:
    """Once a release; with a text for those who do not see it; and the site publishes no file of it."""
    files = {path: text for path, text in site_files(site(DOCUMENT)) if isinstance(text, str)}
    page = next(html for path, html in files.items() if path.startswith("releases/"))

    assert page.count('<svg class="effort"') == 1
    assert 'role="img" aria-label="4 forks by effort' in page
    assert "Not placed: 1 fork with measured refusals" in page
    assert not any('"schema": "forkwatch.effort/1"' in text for text in files.values())


def test_nothing_to_draw_is_no_section() -> None:
    """A release without placed forks has no empty chart, which would look like a robust one."""
    empty = replace(DOCUMENT, points=())

    assert effort_chart(empty) is None
    assert all('id="effort"' not in text for path, text in site_files(site(empty)) if path.endswith("html"))


@pytest.mark.parametrize("efforts", [(5.0, 5.0), (1e-3, 1e-3), (0.0, 0.0)])
def test_one_effort_is_enough(efforts: tuple[float, float]) -> None:
    """A single point has an axis to stand on."""
    found = effort_chart(replace(DOCUMENT, points=(point(NAME, "adapter", *efforts, 0.3),)))

    assert found is not None
    assert len(found.across) >= 2


def test_the_document_round_trips() -> None:
    """Text and back; and its schema names it."""
    assert from_json(to_json(DOCUMENT)) == DOCUMENT
    assert json_schema()["title"] == DOCUMENT.schema
