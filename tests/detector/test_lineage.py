"""Descent is told from chance by matched neurons, and independent models are not taken for relatives."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from detector.formats import open_weights
from detector.interface import Lineage, LineageStatus
from detector.invariants import gain_agreement, token_angles
from detector.lineage import align_layers, judge_lineage, sample_bands, search_neurons
from detector.neurons import count_matches, log10_binomial_tail
from tests.detector import zoo
from tests.detector.disguises import DISGUISES
from tests.detector.forks import relayered
from tests.detector.zoo import Weights, one_file


def lineage(original: Weights, fork: Weights) -> Lineage:
    bands = sample_bands(open_weights(one_file(original)), open_weights(one_file(fork)))
    layers = align_layers(*bands) or {layer: layer for layer in bands[1].layers}
    return search_neurons(judge_lineage(*bands, layers), open_weights(one_file(original)), bands, layers)


@pytest.mark.parametrize("size", [0.01, 0.3, 1.0])
def test_fine_tunes_descend(size: float) -> None:
    """Even a change as large as the weights themselves leaves descent provable."""
    weights = zoo.base(11)
    assert lineage(weights, zoo.dense(weights, 12, size)).status is LineageStatus.PROVED


@pytest.mark.parametrize("seed", range(20, 30))
def test_independent_models_do_not_descend(seed: int) -> None:
    """Ten models of the same shape and recipe, other seeds: none is taken for a fork."""
    assert lineage(zoo.base(11), zoo.base(seed)).status is LineageStatus.UNRELATED


def test_p_values_of_independent_models_are_not_small() -> None:
    """Under independence the p-value is valid: of 60 pairs few fall under 0.05, none under 0.001."""
    generator = torch.Generator().manual_seed(0)
    values = []
    for _ in range(60):
        pairs = [tuple(torch.randn(2, 32, 64, generator=generator).numpy()) for _ in range(4)]
        values.append(count_matches(pairs).log10_p)
    assert sum(value < math.log10(0.05) for value in values) <= 6
    assert min(values) > -3


def test_a_common_outlier_column_is_not_descent() -> None:
    """Columns that are large in every model of an architecture do not make neurons match."""
    generator = torch.Generator().manual_seed(1)
    left, right = torch.randn(32, 64, generator=generator), torch.randn(32, 64, generator=generator)
    left[:, 3] += 20
    right[:, 3] += 20
    assert count_matches([(left.numpy(), right.numpy())]).log10_p > -3


def test_permuted_layers_are_aligned() -> None:
    """Repeated, dropped and swapped layers are traced back to their source."""
    weights = zoo.base(11)
    for order in ([0, 1, 1, 2, 3], [0, 1, 3], [3, 2, 1, 0]):
        fork = relayered(order)(weights, 0)
        bands = sample_bands(open_weights(one_file(weights)), open_weights(one_file(fork)))
        assert align_layers(*bands) == dict(enumerate(order))


def test_new_layers_are_left_out() -> None:
    """A layer like none of the original's has no source."""
    weights = zoo.base(11)
    foreign = {name: value for name, value in zoo.base(99).items() if ".layers.2." in name}
    bands = sample_bands(open_weights(one_file(weights)), open_weights(one_file(weights | foreign)))
    assert align_layers(*bands) == {0: 0, 1: 1, 3: 3}


def test_quantised_forks_descend(tmp_path: Path) -> None:
    """Four-bit quantisation does not hide descent."""
    weights = zoo.base(11)
    fork = open_weights(zoo.gguf_file(weights, "Q4_0", tmp_path))
    bands = sample_bands(open_weights(one_file(weights)), fork)
    assert judge_lineage(*bands, align_layers(*bands)).status is LineageStatus.PROVED


SEEN_THROUGH = {
    "permuted": LineageStatus.CONSISTENT,
    "scaled": LineageStatus.PROVED,
    "folded": LineageStatus.PROVED,
    "rotated": LineageStatus.PROVED,
    "permuted-and-rotated": LineageStatus.UNKNOWN,
    "all": LineageStatus.UNKNOWN,
}


@pytest.mark.parametrize("seed", [11, 12])
@pytest.mark.parametrize("gains", [True, False])
@pytest.mark.parametrize("disguise", SEEN_THROUGH)
def test_disguised_copies_are_not_unrelated(disguise: str, gains: bool, seed: int) -> None:
    """A copy that computes the same is recognised, or unknown at worst; without norm gains as well."""
    weights = zoo.base(seed)
    if not gains:
        weights = {
            name: torch.ones_like(value) if value.dim() == 1 else value for name, value in weights.items()
        }
    found = lineage(weights, DISGUISES[disguise](weights, seed + 5))
    assert found.status is SEEN_THROUGH[disguise]


def test_a_rotated_copy_in_four_bits_is_not_unrelated(tmp_path: Path) -> None:
    """Rounding on top of the disguises changes nothing about it."""
    weights = zoo.base(11)
    fork = DISGUISES["all"](weights, 3)
    files = zoo.gguf_file(fork, "Q4_0", tmp_path)
    bands = sample_bands(open_weights(one_file(weights)), open_weights(files))
    assert judge_lineage(*bands, {layer: layer for layer in range(4)}).status is LineageStatus.UNKNOWN


def test_gains_of_independent_models_have_uniform_p_values() -> None:
    """Of 200 independent pairs about one in ten has p ≤ 0.1, and none has p ≤ 1e-5; ties do not matter."""
    generator = torch.Generator().manual_seed(3)
    values = []
    for _ in range(200):
        draw = torch.randn(2, 4, 128, generator=generator).to(torch.bfloat16).float().numpy()
        values.append(gain_agreement([(draw[0, layer], draw[1, layer]) for layer in range(4)]))
    assert 8 <= sum(value <= -1 for value in values) <= 36
    assert min(values) > -5


def test_gains_that_were_folded_away_say_nothing() -> None:
    """Constant vectors have no order."""
    ones = np.ones(64, np.float32)
    assert gain_agreement([(ones, ones)]) == 0.0


def test_meaning_that_tokens_share_is_not_descent() -> None:
    """Two embeddings with the same few leading components and independent rests do not look like one."""
    generator = torch.Generator().manual_seed(4)
    meaning = 3 * torch.randn(64, 3, generator=generator)
    left, right = (
        meaning @ torch.randn(3, 128, generator=generator) + torch.randn(64, 128, generator=generator)
        for _ in range(2)
    )
    assert token_angles(left.numpy(), right.numpy()) < 0.5
    turn = torch.linalg.qr(torch.randn(128, 128, generator=generator))[0]
    assert token_angles(left.numpy(), (left @ turn).numpy()) > 0.99


def test_layers_of_different_widths_are_compared_one_by_one() -> None:
    """Elastic models have narrow and wide layers: none is compared with one of another width."""
    weights = zoo.base(11)
    for name in [name for name in weights if ".layers.2.mlp." in name]:
        weights[name] = weights[name][:, :96] if "down" in name else weights[name][:96]
    odd = {
        name: value[:, :64] if ".layers.1.mlp.gate_proj" in name else value for name, value in weights.items()
    }
    bands = sample_bands(open_weights(one_file(odd)), open_weights(one_file(odd)))
    assert align_layers(*bands) == {0: 0, 1: 1, 2: 2, 3: 3}
    assert judge_lineage(*bands, align_layers(*bands)).status is LineageStatus.PROVED


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("model.layers.{}.mlp.gate_proj", "gpt_neox.layers.{}.mlp.dense_h_to_4h"),
        ("model.layers.{}.mlp.gate_proj", "model.layers.{}.block_sparse_moe.experts.0.w1"),
        ("model.layers.{}.mlp.gate_proj", "transformer.h.{}.mlp.fc_in"),
    ],
)
def test_neurons_are_found_under_other_names(before: str, after: str) -> None:
    """GPT-NeoX, experts and GPT-J name the first feed-forward matrix otherwise."""

    def renamed(seed: int) -> Weights:
        weights = {name: value for name, value in zoo.base(seed).items() if "up_proj" not in name}
        for layer in range(4):
            weights[f"{after.format(layer)}.weight"] = weights.pop(f"{before.format(layer)}.weight")
        return weights

    assert lineage(renamed(11), renamed(11)).status is LineageStatus.PROVED
    assert lineage(renamed(11), renamed(12)).status is LineageStatus.UNRELATED


def test_too_few_neurons_say_nothing() -> None:
    """A model too small for the test is 'unknown', not 'unrelated'."""
    tiny = zoo.Shape(hidden=16, inter=16, layers=1, vocab=32)
    assert lineage(zoo.base(1, tiny), zoo.base(2, tiny)).status is LineageStatus.UNKNOWN


def test_no_layers_say_nothing() -> None:
    """Checkpoints without layers give no lineage."""
    empty = {"other.weight": torch.ones(4, 4)}
    assert lineage(empty, empty).status is LineageStatus.UNKNOWN


@given(trials=st.integers(1, 300), share=st.floats(0, 1), k=st.integers(2, 64))
def test_binomial_tail_is_scipys(trials: int, share: float, k: int) -> None:
    """The tail probability agrees with scipy's down to 1e-200; beyond, scipy loses digits."""
    successes = round(share * trials)
    ours, reference = log10_binomial_tail(successes, trials, 1 / k), binom.sf(successes - 1, trials, 1 / k)
    if reference > 1e-200:
        assert ours == pytest.approx(math.log10(reference), abs=1e-6)
    assert -300 <= ours <= 0
