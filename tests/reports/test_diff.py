"""The comparison document, its grid, and the SVG made of it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import jsonschema
import pytest

from reports.diff import DiffDocument, from_json, json_schema, to_json
from reports.edit_words import detail_words, source_words
from reports.grid import State, columns, grid, in_words, level_of
from reports.scan import EditView, ParentView
from reports.spectra import spectra
from reports.svg import render_svg, write_svg
from tests.reports import sample_diffs as samples
from tests.reports.hostile import HIDDEN, poisoned
from tests.reports.test_style import contrast

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("document", [samples.llama(4), samples.sketch()], ids=["full", "sketch"])
def test_document_survives_json(document: DiffDocument) -> None:
    """A document is what it was after JSON, and follows the published schema."""
    text = to_json(document)

    assert from_json(text) == document
    jsonschema.validate(json.loads(text), json_schema())


def test_experts_are_pooled_beside_the_shared_feed_forward() -> None:
    """All experts of a layer make one cell, which says how many changed; the dense module keeps its own."""
    seen = grid(samples.llama(2, experts=8))

    spot = seen.spots[1, "experts.down_proj"]
    assert (spot.changed, spot.tensors) == (1, 8)
    assert spot.level == level_of(0.01)
    assert seen.spots[1, "down_proj"].tensors == 1
    assert "1 of 8 tensors" in spot.words()


def test_no_two_states_look_alike() -> None:
    """Unmeasured, unseen, cast and identical have characters of their own, in words and in the SVG."""
    assert len({state.mark for state in State}) == len(State)
    text = render_svg(samples.sketch()) + render_svg(samples.llama(2))
    for state in ("unread", "unseen", "added", "missing", "reshaped", "cast", "identical"):
        assert f'class="s-{state}"' in text


def test_smallest_change_is_not_identical() -> None:
    """A change of one bit has a shade; only no change has none."""
    assert level_of(1e-30) == level_of(0.0) == 1
    assert level_of(float("inf")) == 9


def test_layers_are_pooled_only_where_they_do_not_fit() -> None:
    """Columns are single layers while there is room, then equally many adjoining ones; none is lost."""
    seen = grid(samples.llama(100))

    assert [column.first for column in columns(seen, 100)] == list(range(100))
    narrow = columns(seen, 40)
    assert len(narrow) <= 40
    assert [layer for column in narrow for layer in range(column.first, column.last + 1)] == list(range(100))
    assert sum(spot.tensors for column in narrow for spot in column.spots if spot) == 600


def test_hostile_number_of_modules_is_bounded() -> None:
    """Ten thousand module names make no picture of ten thousand rows, and the picture says so."""
    many = [samples.tensor(f"model.layers.0.m{index}.weight", 0, by=0.1) for index in range(10_000)]
    towers = [samples.tensor(f"tower{index}.layers.0.a.weight") for index in range(1000)]

    text = render_svg(samples.full(*many, *towers))

    assert len(text) < 100_000
    assert "further modules are not shown" in text


def test_picture_in_words() -> None:
    """The description says how much changed, where, and where most."""
    assert in_words(grid(samples.llama(4))) == (
        "4 of the 26 tensors shown changed (o_proj, down_proj); "
        "the largest relative change is 0.01, in layer 3, o_proj."
    )
    assert "None of the 1 tensors" in in_words(grid(samples.full(samples.tensor("a.b.weight"))))


def test_spectra_show_what_rounding_leaves() -> None:
    """What is left of a change falls from 1, and the floor is the share that rounding explains."""
    found = spectra(samples.llama(4), 3)

    assert [round(left, 4) for left in found[0].left] == [1.0, 0.02, 0.015, 0.01]
    assert found[0].floor == 0.01
    assert {spectrum.name.split(".")[-2] for spectrum in found} == {"o_proj", "down_proj"}


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        ([0, 1, 2, 3], "the original's layers 0–3"),
        ([0, 1, 2, 1, 2, 3], "the original's layers 0–2, 1–3"),
        ([5, -1, -1, 0], "the original's layers 5, 2 new, 0"),
        ([0, 0, 0], "the original's layers 0, 0, 0"),
        ([3, 2, 1], "the original's layers 3, 2, 1"),
    ],
)
def test_sources_as_runs(sources: list[int], words: str) -> None:
    """Layer surgery is told as runs of the original's layers, in the fork's order."""
    assert source_words(sources) == words


def test_merge_in_words() -> None:
    """A merge names its other parents and their shares."""
    parents = [ParentView("lab/math", (0.25, 0.5)), ParentView("lab/code", (0.3, 0.3))]
    edit = EditView(kind="merge", certainty="proved", detail={"parents": parents, "scale": 0.0123})

    words = detail_words(edit)

    assert "lab/math: 25% to 50% by layer; lab/code: 30%" in words
    assert "median relative change 0.0123" in words


def test_svg_is_accessible_and_inert() -> None:
    """A title and a description that its root names, text for every row, and nothing that runs or loads."""
    root = ET.fromstring(render_svg(samples.llama(4)))

    named = {root.find(f"{SVG}{tag}").get("id") for tag in ("title", "desc")}  # type: ignore[union-attr]
    assert set(root.get("aria-labelledby", "").split()) == named
    assert root.get("role") == "img"
    texts = {element.text for element in root.iter(f"{SVG}text")}
    assert {"q_proj", "o_proj", "embed_tokens", "identical", "not measured", "≤ 0.01", "rounding"} <= texts
    tags = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert tags <= {"svg", "title", "desc", "style", "defs", "pattern", "rect", "path", "text"}
    assert not [
        key for element in root.iter() for key in element.attrib if key.startswith("on") or "href" in key
    ]


def test_svg_of_hostile_text() -> None:
    """Every free text may be an attack: the file stays well-formed and without hidden characters."""
    for document in (samples.llama(2), samples.sketch()):
        text = render_svg(poisoned(document))  # type: ignore[arg-type]  # poisoned keeps the type

        ET.fromstring(text)
        assert "<script" not in text
        assert "<img" not in text
        assert not set(HIDDEN) & set(text)


def test_svg_is_deterministic() -> None:
    """The same document gives the same bytes; what it cost is no part of them."""
    document = samples.llama(6)
    slower = replace(document, cost=replace(document.cost, seconds=99.0))

    assert render_svg(document) == render_svg(slower)


def test_svg_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """A file that cannot be replaced stays as it was, and nothing half-written remains."""
    (tmp_path / "folder").mkdir()

    with pytest.raises(IsADirectoryError):
        write_svg(samples.llama(2), tmp_path / "folder")

    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    write_svg(samples.llama(2), tmp_path / "picture.svg")
    assert (tmp_path / "picture.svg").read_text() == render_svg(samples.llama(2))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_svg_can_be_read_in_both_schemes(dark: bool) -> None:
    """Text has WCAG AA contrast on its ground, and the shades grow in lightness or darkness step by step."""
    light, _, after = render_svg(samples.llama(2)).partition("@media (prefers-color-scheme:dark)")
    css = after.partition("</style>")[0] if dark else light
    paper, ink, quiet = (
        re.search(rf"{selector}\{{fill:(#\w{{6}})", css)[1]  # type: ignore[index]  # a missing one is a failure
        for selector in (r"\.paper(?:,\.bare)?", "text", r"\.quiet,[^{]*")
    )
    shades = dict(re.findall(r"\.(h\d)\{fill:(#\w{6})\}", css))

    assert contrast(ink, paper) >= 4.5
    assert contrast(quiet, paper) >= 4.5
    steps = [contrast(shades[f"h{level}"], paper) for level in range(1, 10)]
    assert steps == sorted(steps)
