"""Descent is told from chance by matched neurons, and independent models are not taken for relatives."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from detector.formats import open_weights
from detector.interface import Lineage, LineageStatus
from detector.lineage import align_layers, judge_lineage, sample_bands
from detector.neurons import count_matches, log10_binomial_tail
from tests.detector import zoo
from tests.detector.forks import relayered
from tests.detector.zoo import Weights, one_file


def lineage(original: Weights, fork: Weights) -> Lineage:
    bands = sample_bands(open_weights(one_file(original)), open_weights(one_file(fork)))
    layers = align_layers(*bands) or {layer: layer for layer in bands[1].layers}
    return judge_lineage(*bands, layers)


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
        pairs = [
            (torch.randn(32, 64, generator=generator), torch.randn(32, 64, generator=generator))
            for _ in range(4)
        ]
        values.append(count_matches(pairs).log10_p)
    assert sum(value < math.log10(0.05) for value in values) <= 6
    assert min(values) > -3


def test_a_common_outlier_column_is_not_descent() -> None:
    """Columns that are large in every model of an architecture do not make neurons match."""
    generator = torch.Generator().manual_seed(1)
    left, right = torch.randn(32, 64, generator=generator), torch.randn(32, 64, generator=generator)
    left[:, 3] += 20
    right[:, 3] += 20
    assert count_matches([(left, right)]).log10_p > -3


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


def test_permuted_neurons_are_not_unrelated() -> None:
    """Shuffling the neurons of every layer, which keeps the function, does not make a fork look foreign."""
    weights = zoo.base(11)
    fork = dict(weights)
    order = torch.randperm(zoo.SMALL.inter, generator=torch.Generator().manual_seed(0))
    for name, value in weights.items():
        if "gate_proj" in name or "up_proj" in name:
            fork[name] = value[order]
        elif "down_proj" in name:
            fork[name] = value[:, order]
    assert lineage(weights, fork).status is LineageStatus.CONSISTENT


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
