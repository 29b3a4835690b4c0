"""Benign forks of a model that was trained, not drawn, are never called a directional edit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from detector.diff import diff_weights
from detector.formats import open_weights
from detector.interface import Certainty, EditKind
from tests.detector import trained, zoo
from tests.detector.zoo import Weights, one_file

WRITERS = ("o_proj", "down_proj")

BENIGN: dict[str, tuple[Callable[[], Weights], set[EditKind]]] = {
    "adamw": (lambda: trained.finetuned(2, 3e-4), {EditKind.FULL_FINETUNE}),
    "adamw-light": (lambda: trained.finetuned(3, 3e-5), {EditKind.FULL_FINETUNE}),
    "adamw-writers": (lambda: trained.finetuned(4, 1e-3, where="down_proj"), {EditKind.PARTIAL_FINETUNE}),
    "adamw-embedding": (lambda: trained.finetuned(5, 1e-3, where="embed"), {EditKind.PARTIAL_FINETUNE}),
    "lora": (lambda: trained.adapted(6, 4), {EditKind.LOW_RANK_MERGE}),
    "lora-rank-1-writers": (lambda: trained.adapted(7, 1, WRITERS), {EditKind.LOW_RANK_MERGE}),
    "decayed": (
        lambda: {name: (value.float() * 0.98).to(torch.bfloat16) for name, value in trained.base().items()},
        {EditKind.FULL_FINETUNE},
    ),
}


def _edits(fork: Weights) -> dict[EditKind, Certainty]:
    diff = diff_weights(open_weights(one_file(trained.base())), open_weights(one_file(fork)))
    return {edit.kind: edit.certainty for edit in diff.edits}


@pytest.mark.parametrize("name", BENIGN)
def test_training_is_not_a_directional_edit(name: str) -> None:
    """Weights of trained models have directions of their own; what training does along them is training."""
    build, kinds = BENIGN[name]
    assert set(_edits(build())) == kinds


def test_dora_is_a_low_rank_merge() -> None:
    """A merged DoRA scales rows too, so that its rank is full: it is no direction, and nothing is proved."""
    assert _edits(trained.adapted(8, 2, dora=True)) == {EditKind.LOW_RANK_MERGE: Certainty.CONSISTENT}


def test_a_direction_is_found_in_a_trained_model() -> None:
    """The same model with a direction projected out is proved to be so."""
    edited = zoo.project(
        {**trained.base(), "model.norm.weight": torch.ones(trained.HIDDEN)}, 9, where=zoo.is_writer
    )
    edited.pop("model.norm.weight")
    assert _edits(edited) == {EditKind.DIRECTIONAL_EDIT: Certainty.PROVED}
