"""Vocabularies and layers: what moved where, and what of it is proved."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from detector.diff import diff_weights
from detector.formats import open_weights
from detector.interface import Certainty, Edit, EditKind
from tests.detector import zoo
from tests.detector.forks import relayered
from tests.detector.zoo import Weights, one_file

SHAPE = zoo.Shape(hidden=64, inter=96, layers=3, heads=4, kv_heads=2, vocab=128)
ROWS = "model.embed_tokens.weight"
Rows = Callable[[torch.Tensor], torch.Tensor]


def edits(fork: Weights) -> dict[EditKind, Edit]:
    diff = diff_weights(open_weights(one_file(zoo.base(1, SHAPE))), open_weights(one_file(fork)))
    return {edit.kind: edit for edit in diff.edits}


def with_rows(change: Rows) -> Weights:
    original = zoo.base(1, SHAPE)
    return {**original, ROWS: change(original[ROWS].float()).to(torch.bfloat16).contiguous()}


def noisy(rows: torch.Tensor, size: float) -> torch.Tensor:
    noise = torch.randn(rows.shape, generator=torch.Generator().manual_seed(3))
    return rows + size * rows.std() * noise


VOCABULARIES: dict[str, tuple[Rows, Certainty, str, str]] = {
    "padded": (
        lambda rows: torch.cat([rows, torch.zeros(8, 64)]),
        Certainty.PROVED,
        "rows-added",
        "all zero: padding",
    ),
    "mean": (
        lambda rows: torch.cat([rows, rows.mean(0, keepdim=True).expand(8, -1)]),
        Certainty.PROVED,
        "rows-added",
        "all the same, such as a mean",
    ),
    "grown": (
        lambda rows: torch.cat([rows, noisy(rows[:8], 2)]),
        Certainty.PROVED,
        "rows-added",
        "each its own",
    ),
    "trained": (
        lambda rows: noisy(torch.cat([rows, rows[:8]]), 0.02),
        Certainty.CONSISTENT,
        "rows-kept-in-place",
        "share of the common rows, nearly the same",
    ),
    "pruned": (
        lambda rows: rows[torch.arange(128) % 4 != 0],
        Certainty.PROVED,
        "rows-found-elsewhere",
        "share of the fork's, equal there",
    ),
    "permuted": (
        lambda rows: rows.roll(5, 0),
        Certainty.PROVED,
        "rows-found-elsewhere",
        "share of all, equal there",
    ),
    "permuted and trained": (
        lambda rows: noisy(rows.roll(5, 0), 0.05),
        Certainty.CONSISTENT,
        "rows-alike-elsewhere",
        "share of 256 rows that are like one at another place",
    ),
}


@pytest.mark.parametrize("name", VOCABULARIES)
def test_vocabularies(name: str) -> None:
    """Rows are found in place, elsewhere, or in likeness; only equal values prove."""
    change, certainty, fact, note = VOCABULARIES[name]
    found = edits(with_rows(change))
    assert {kind: edit.certainty for kind, edit in found.items()} == {EditKind.VOCABULARY_CHANGE: certainty}
    assert note in {e.note for e in found[EditKind.VOCABULARY_CHANGE].evidence if e.name == fact}


@pytest.mark.parametrize(
    ("order", "change", "others", "certainty"),
    [
        pytest.param([0, 1, 1, 2], lambda w: w, {}, Certainty.PROVED, id="plain"),
        pytest.param([0, 2, 1], lambda w: w, {}, Certainty.PROVED, id="swapped"),
        pytest.param(
            [0, 0, 1, 2],
            lambda w: zoo.lora(w, 4, 2, 0.05),
            {EditKind.LOW_RANK_MERGE: Certainty.PROVED},
            Certainty.PROVED,
            id="then-lora",
        ),
        pytest.param(
            [0, 2],
            lambda w: zoo.dense(w, 4, 0.02),
            {EditKind.FULL_FINETUNE: Certainty.CONSISTENT},
            Certainty.CONSISTENT,
            id="then-tuned",
        ),
    ],
)
def test_layer_surgery_and_what_came_after(
    order: list[int],
    change: Callable[[Weights], Weights],
    others: dict[EditKind, Certainty],
    certainty: Certainty,
) -> None:
    """Sources are told layer by layer, other edits beside; only what all follows is proved."""
    found = edits(change(relayered(order)(zoo.base(1, SHAPE), 0)))
    assert {kind: edit.certainty for kind, edit in found.items()} == {
        EditKind.LAYER_SURGERY: certainty,
        **others,
    }
    assert found[EditKind.LAYER_SURGERY].detail.sources == tuple(order)


def test_a_low_rank_merge_states_its_scale() -> None:
    """The scale is the median ‖Δ‖ / ‖W‖ of what was touched."""
    (edit,) = edits(zoo.lora(zoo.base(1, SHAPE), 4, 2, 0.05)).values()
    assert edit.detail.scale == pytest.approx(0.05, rel=0.05)


def test_a_gap_in_the_numbers_is_no_missing_source() -> None:
    """A layer dropped without renumbering: every layer that is left has its source."""
    weights = zoo.base(1)
    fork = {name: value for name, value in weights.items() if ".layers.2." not in name}

    found = diff_weights(open_weights(one_file(weights)), open_weights(one_file(fork)))

    [edit] = [edit for edit in found.edits if edit.kind is EditKind.LAYER_SURGERY]
    assert edit.detail.sources == (0, 1, 3)
