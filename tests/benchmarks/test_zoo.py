"""The zoo makes what it says it makes: otherwise its confusion matrices mean nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.zoo import changes, containers, expect, models, names
from benchmarks.zoo.expect import Sight
from benchmarks.zoo.models import Model, Spec, Weights
from benchmarks.zoo.pairs import Pair, all_pairs, build
from benchmarks.zoo.recipes import recipes
from benchmarks.zoo.table import wilson
from detector.formats import open_weights
from detector.interface import EditKind as K

TINY = Spec("llama", 64, 2)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("zoo")


@pytest.fixture(scope="module")
def tiny(scratch: Path) -> Model:
    return models.load(TINY, 1, scratch)


def full_precision(model: Model) -> Weights:
    return {name: value.float() for name, value in model.weights.items()}


@pytest.mark.parametrize("size", [1e-4, 1e-1])
def test_lora_has_the_stated_rank_and_size(tiny: Model, size: float) -> None:
    """The delta of every linear module has exactly the rank, and the relative norm within a tenth."""
    weights = full_precision(tiny)
    edited = changes.low_rank(weights, 1, 8, size)
    touched = [name for name, value in weights.items() if names.is_linear(name, value)]
    assert len(touched) == 7 * TINY.layers
    for name in touched:
        delta = edited[name].double() - weights[name].double()
        values = torch.linalg.svdvals(delta)
        assert values[7] > 0.05 * values[0]
        assert values[8] < 0.01 * values[7] + 1e-6 * weights[name].norm()
        assert delta.norm() / weights[name].norm() == pytest.approx(size, rel=0.1)


def test_dense_change_has_the_stated_size_everywhere(tiny: Model) -> None:
    """Every tensor moves by the stated relative norm, and not by a low-rank change."""
    weights = full_precision(tiny)
    for name, value in changes.dense(weights, 1, 1e-2).items():
        delta = value - weights[name]
        assert delta.norm() / weights[name].norm() == pytest.approx(1e-2, rel=0.1)
        if delta.dim() == 2 and names.is_linear(name, value):
            values = torch.linalg.svdvals(delta)
            assert values[len(values) // 2] > 0.1 * values[0]


def test_directional_edit_removes_the_stated_share(tiny: Model) -> None:
    """vᵀW′ = (1 − share) vᵀW in the writers, and nothing else moves."""
    weights = full_precision(tiny)
    vector = torch.linalg.qr(torch.randn(64, 1, generator=torch.Generator().manual_seed(3)))[0]
    edited = changes.directional(weights, 1, strength=lambda _: 0.3, basis=vector)
    for name, value in weights.items():
        if names.is_writer(name):
            torch.testing.assert_close(vector.T @ edited[name], 0.7 * vector.T @ value, rtol=1e-3, atol=1e-4)
        else:
            assert torch.equal(edited[name], value)


def test_kept_norms_are_kept(tiny: Model) -> None:
    """The norm-preserving variant restores every row's length."""
    weights = full_precision(tiny)
    edited = changes.directional(weights, 1, keep_norms=True)
    for name in filter(names.is_writer, weights):
        torch.testing.assert_close(edited[name].norm(dim=1), weights[name].norm(dim=1))
        assert not torch.equal(edited[name], weights[name])


def logits(model: Model, weights: Weights) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    network: Any = AutoModelForCausalLM.from_config(models.configuration(model.spec), dtype=torch.float32)
    network.load_state_dict(weights, strict=False)
    with torch.no_grad():
        return network.eval()(input_ids=torch.arange(40, 60)[None]).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("disguise", [changes.neurons_permuted, changes.rotated])
def test_disguised_copies_compute_the_same(tiny: Model, disguise: Any) -> None:
    """Permuted neurons and a rotated residual stream leave the logits alone, though the weights differ."""
    weights = full_precision(tiny)
    edited = disguise(weights, 1)
    assert not expect.unchanged(weights, edited)
    torch.testing.assert_close(logits(tiny, edited), logits(tiny, weights), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("container", ["fp16", "sharded", "q8_0", "q4_0", "int8", "nf4"])
def test_files_hold_the_values_that_the_container_states(tiny: Model, container: str) -> None:
    """What the reader reads are the values that the writer says it wrote."""
    stored = containers.store(tiny, full_precision(tiny), container)
    reader = open_weights(stored.files)
    for name, value in stored.values.items():
        torch.testing.assert_close(reader.values(name).float(), value, rtol=1e-5, atol=1e-6)


def test_q4_k_rounds_to_the_nearest_of_sixteen(scratch: Path) -> None:
    """The k-quant is a valid GGUF file, with the error that four bits in blocks of 32 leave."""
    model = models.load(Spec("llama", 256, 1), 1, scratch)
    weights = full_precision(model)
    stored = containers.store(model, weights, "q4_k")
    reader = open_weights(stored.files)
    name = "model.layers.0.self_attn.q_proj.weight"
    assert reader.tensors()[name].dtype == "Q4_K"
    torch.testing.assert_close(reader.values(name), stored.values[name])
    error = (stored.values[name] - weights[name]).norm() / weights[name].norm()
    assert 0.05 < error < 0.1


def pair_named(spec: Spec, recipe: str, container: str) -> Pair:
    return Pair(spec, next(found for found in recipes() if found.name == recipe), container, 1)


def test_a_pair_is_the_same_every_time(scratch: Path) -> None:
    """Files follow from the seed alone."""
    pair = pair_named(TINY, "merge-dare", "own")
    assert build(pair, scratch).fork == build(pair, scratch).fork


def test_what_can_be_seen_must_be_named(scratch: Path) -> None:
    """A large LoRA in bf16 has one right answer."""
    built = build(pair_named(TINY, "lora-r8-0.1", "own"), scratch)
    assert built.answers.full == {frozenset({K.LOW_RANK_MERGE})}
    assert built.answers.relative == pytest.approx(0.1, rel=0.1)


def test_what_four_bits_drown_need_not_be_named(scratch: Path) -> None:
    """A 1 % LoRA is a ninth of what rounding to four bits does: `quantized` alone is honest, identity no."""
    built = build(pair_named(TINY, "lora-r8-0.01", "q4_0"), scratch)
    assert {frozenset({K.QUANTIZED}), frozenset({K.QUANTIZED, K.LOW_RANK_MERGE})} <= built.answers.full
    assert frozenset({K.IDENTICAL}) not in built.answers.full
    assert not any(K.DIRECTIONAL_EDIT in kinds for kinds in built.answers.full)


def test_an_edit_that_storing_erased_is_none(scratch: Path) -> None:
    """A change below half a step of every value leaves identical files."""
    model = models.load(TINY, 1, scratch)
    weights = full_precision(model)
    stored = containers.store(model, changes.scaled(weights, 0, 1 + 1e-6), "own")
    assert expect.unchanged(weights, stored.values)


def test_noise_hides_spikes_from_the_oracle() -> None:
    """The same rank-one change is clear alone, and not under noise of ten times its norm."""
    generator = torch.Generator().manual_seed(1)
    original = torch.randn(128, 128, generator=generator)
    delta = torch.outer(torch.randn(128, generator=generator), torch.randn(128, generator=generator))
    noise = torch.randn(128, 128, generator=generator)
    name = "model.layers.0.mlp.down_proj.weight"
    for size, clear in ((1e-3, True), (10.0, False)):
        stored = original + delta + size * noise * delta.norm() / noise.norm()
        seen = expect.look({name: original}, {name: original + delta}, {name: stored})
        assert expect.is_clear(Sight.LOW_RANK, seen, quantised=False) is clear


def test_the_zoo_is_as_large_as_it_says() -> None:
    """Names are unique; every kind that weights can show is made; there are more than 600 pairs."""
    pairs = list(all_pairs(1))
    assert len({pair.name for pair in pairs}) == len(pairs) > 600
    assert len({pair.spec.architecture for pair in pairs}) >= 5
    made = {kind for pair in pairs for kind in pair.recipe.truth}
    missing = set(K) - made - {K.TEMPLATE_CHANGE, K.CONFIG_CHANGE, K.IDENTICAL, K.DTYPE_CAST}
    assert not missing, "identity and casts are what storing the unchanged model makes"
    assert any(pair.recipe.name == "same" and pair.container == "own" for pair in pairs)


def test_wilson_interval() -> None:
    """Against published values: 81 of 263 (Newcombe 1998, table I, method 3)."""
    low, high = wilson(81, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
