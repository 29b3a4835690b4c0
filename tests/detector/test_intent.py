"""How a change lies to a direction: found when it acts on it, and not because both share outlier
dimensions."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from detector.errors import MalformedWeightsError
from detector.formats import open_weights
from detector.intent import ALPHA, Directions, Intent, NoIntent, load_directions, measure_intent
from detector.interface import Certainty
from tests.detector import zoo
from tests.detector.zoo import SMALL, Weights, one_file

SEED = 5
OUTLIER = 7
"""A residual dimension that carries far more than the others, as in real models."""


def direction(seed: int) -> torch.Tensor:
    """The one that `zoo.project` takes out with this seed, (hidden)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(SMALL.hidden, 1, generator=generator))[0][:, 0]


def harmless(seed: int, outlier: float = 1.0) -> torch.Tensor:
    """Activations of 60 harmless prompts, (60, layers, hidden)."""
    rows = torch.randn(60, SMALL.layers, SMALL.hidden, generator=torch.Generator().manual_seed(seed))
    rows[:, :, OUTLIER] *= outlier
    return rows - rows.mean(0)


def directions(one: torch.Tensor, original: Weights, *, outlier: float = 1.0) -> Directions:
    """The same direction in every layer, with inputs on which the original writes it."""
    inputs = {
        name: value.float().T @ one
        for name, value in original.items()
        if zoo.is_writer(name) and ".layers." in name
    }
    written = sum((one @ (original[name].float() @ given)).item() for name, given in inputs.items())
    layers = tuple(range(SMALL.layers))
    return Directions(one.repeat(SMALL.layers, 1), harmless(1, outlier), inputs, layers, 1, written)


def measure(original: Weights, fork: Weights, known: Directions) -> Intent:
    found = measure_intent(
        open_weights(one_file(original)), open_weights(one_file(fork)), known, frozenset(fork)
    )
    assert isinstance(found, Intent)
    return found


def test_an_edit_of_the_direction_aligns_with_it() -> None:
    """All of the change lies along it, nothing is written along it any more, and chance does not do that."""
    original = zoo.base(SEED)

    found = measure(original, zoo.project(original, SEED), directions(direction(SEED), original))

    assert found.certainty is Certainty.CONSISTENT
    assert found.p_value == pytest.approx(1 / (1 + found.splits), abs=1e-4)
    assert (found.alignment, found.energy) == pytest.approx((1.0, 1.0), abs=0.02)
    assert found.write_change == pytest.approx(-1.0, abs=0.02)
    assert (found.matrices, found.layers) == (2 * SMALL.layers + 1, (0, SMALL.layers - 1))


def test_a_part_of_the_direction_taken_out_is_a_part_of_what_is_written() -> None:
    """The sign and the size of the edit show in what is written along the direction."""
    original = zoo.base(SEED)
    known = directions(direction(SEED), original)

    for strength in (0.4, -0.5):
        fork = zoo.project(original, SEED, strength=lambda _, part=strength: part)
        assert measure(original, fork, known).write_change == pytest.approx(-strength, abs=0.02)


@pytest.mark.parametrize("seed", range(12))
def test_other_edits_do_not_align(seed: int) -> None:
    """Another direction taken out, a LoRA, and a dense change: none is called, whatever the seed."""
    original = zoo.base(SEED)
    known = directions(direction(SEED), original)
    edits = (zoo.project(original, 100 + seed), zoo.lora(original, seed), zoo.dense(original, seed))

    found = measure(original, edits[seed % 3], known)

    assert found.certainty is Certainty.UNKNOWN
    assert found.p_value > ALPHA
    assert abs(found.write_change or 0.0) < 0.1


def test_outlier_dimensions_alone_are_no_alignment() -> None:
    """Direction and change both lean on a dimension that every activation leans on: no news, and not called.

    The same geometry counts as alignment where activations are isotropic, so it is the null that decides.
    """
    original = zoo.base(SEED)
    one = torch.nn.functional.one_hot(torch.tensor(OUTLIER), SMALL.hidden).float()
    leaning = (0.6 * one + 0.8 * direction(3)) / (0.6 * one + 0.8 * direction(3)).norm()
    fork = dict(original)
    for name, value in original.items():
        if zoo.is_writer(name) and ".layers." in name:
            push = torch.randn(value.shape[1], generator=torch.Generator().manual_seed(len(name)))
            fork[name] = (value.float() + torch.outer(one, push) * 0.05).to(torch.bfloat16)

    isotropic = measure(original, fork, directions(leaning, original))
    leaning_too = measure(original, fork, directions(leaning, original, outlier=60.0))

    assert isotropic.alignment == leaning_too.alignment > 0.5
    assert isotropic.certainty is Certainty.CONSISTENT
    assert leaning_too.certainty is Certainty.UNKNOWN
    assert leaning_too.expected > leaning_too.alignment


def test_null_p_values_are_not_small_more_often_than_chance_allows() -> None:
    """Directions drawn like those of the null: of 24, those at or below 0.1 are few (binomial: p < .001 for
    9)."""
    original = zoo.base(SEED)
    fork = zoo.lora(original, 1)
    known = directions(direction(SEED), original, outlier=5.0)
    signs = torch.where(torch.rand(24, 60, generator=torch.Generator().manual_seed(9)) < 0.5, 1.0, -1.0)
    drawn = torch.einsum("kn,nlw->klw", signs, known.harmless)
    small = [
        measure(original, fork, replace(known, direction=one / one.norm(dim=1, keepdim=True))).p_value <= 0.1
        for one in drawn
    ]

    assert sum(small) < 9


def test_an_adapter_alone_aligns_as_when_it_is_merged() -> None:
    """The change is the adapter's product, whether it was merged or not."""
    original = zoo.base(SEED)
    known = directions(direction(SEED), original)
    reader, release = open_weights(zoo.adapter_files(original, 3)), open_weights(one_file(original))

    found = measure_intent(release, reader, known, frozenset())

    assert isinstance(found, Intent)
    assert found.certainty is Certainty.UNKNOWN
    assert found.matrices == sum("o_proj" in name or "down_proj" in name for name in reader.targets)  # type: ignore[attr-defined]


def test_what_did_not_change_is_not_looked_at() -> None:
    """Without a changed residual writer there is nothing to compare, and the reason says so."""
    original = zoo.base(SEED)
    known = directions(direction(SEED), original)
    reader = open_weights(one_file(original))
    inside = zoo.dense(original, 1, where=lambda name: "q_proj" in name)

    for fork in (original, inside):
        found = measure_intent(reader, open_weights(one_file(fork)), known, frozenset(fork))
        assert found == NoIntent("no matrix that writes the residual stream was changed")


def test_the_same_change_gives_the_same_numbers_in_any_container() -> None:
    """Shards and order of files do not matter, and a second look sees the same."""
    original = zoo.base(SEED)
    known, fork = directions(direction(SEED), original), zoo.lora(original, 2)
    release = open_weights(one_file(original))

    looks = {
        measure_intent(release, open_weights(files), known, frozenset(fork))
        for files in (one_file(fork), one_file(fork), zoo.sharded(fork))
    }

    assert len(looks) == 1


@pytest.mark.parametrize("poison", [math.nan, math.inf, -3e38])
def test_hostile_values_give_a_number_or_a_reason(poison: float) -> None:
    """Values that are not finite, or too large to square in float32, end in no NaN and in no error."""
    original = zoo.base(SEED)
    fork = dict(original)
    name = "model.layers.1.mlp.down_proj.weight"
    fork[name] = original[name].clone()
    fork[name][0, 0] = poison

    found = measure_intent(
        open_weights(one_file(original)),
        open_weights(one_file(fork)),
        directions(direction(SEED), original),
        frozenset({name}),
    )

    if isinstance(found, Intent):
        values = [getattr(found, field.name) for field in fields(found)]
        assert all(math.isfinite(value) for value in values if isinstance(value, float))
        assert found.certainty is Certainty.UNKNOWN
    else:
        assert found.reason


def test_a_file_that_is_no_direction_is_refused(tmp_path: Path) -> None:
    """Noise, missing parts, other shapes and values that are not finite."""
    layers, width = 3, 8
    good = {"direction": torch.ones(layers, width), "harmless": torch.ones(9, layers, width).half()}
    bad = [
        {"direction": good["direction"]},
        good | {"harmless": torch.ones(9, layers, width + 1)},
        good | {"direction": torch.full((layers, width), torch.nan)},
        good | {"direction": torch.ones(layers + 1, width)},
    ]
    path = tmp_path / "blob"

    save_file(good, path)
    assert load_directions(path, sources=(0, 1, 1), best=1, written=2.0).inputs == {}
    for tensors in bad:
        save_file(tensors, path)
        with pytest.raises(MalformedWeightsError):
            load_directions(path, sources=(0, 1, 1), best=1, written=2.0)
    path.write_bytes(b"\xff" * 64)
    with pytest.raises(MalformedWeightsError):
        load_directions(path, sources=(0, 1, 1), best=1, written=2.0)
