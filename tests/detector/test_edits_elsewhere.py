"""Forks as other tools make them, each of which was once given a false name.

Found by judging forks that were made with peft, mergekit and transformers rather than by our own generator.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from detector.diff import diff_weights
from detector.edits.direction import measure_direction
from detector.formats import open_weights
from detector.interface import Certainty, Diff, EditKind, Evidence, Sketch, TensorInfo
from detector.pairing import Pair
from detector.sample import Sample
from detector.sketch import sketch_weights
from tests.detector import zoo
from tests.detector.zoo import Weights, one_file

BASE = zoo.base(21)
UNTIED = {**BASE, "lm_head.weight": zoo.base(22)["model.embed_tokens.weight"]}
PLENTY = 1 << 24


def full(fork: Weights, original: Weights = BASE, **parents: Weights) -> Diff:
    opened = {name: open_weights(one_file(weights)) for name, weights in parents.items()}
    return diff_weights(open_weights(one_file(original)), open_weights(one_file(fork)), parents=opened)


def sketch(fork: Weights, original: Weights = BASE) -> Sketch:
    left, right = open_weights(one_file(original)), open_weights(one_file(fork))
    return sketch_weights(left, right, budget_bytes=PLENTY)


def kinds(found: Diff | Sketch) -> set[EditKind]:
    return {edit.kind for edit in found.edits}


def evidence(found: Diff | Sketch) -> dict[str, Evidence]:
    return {fact.name: fact for edit in found.edits for fact in edit.evidence}


def of_layers(edit: Callable[[torch.Tensor], torch.Tensor]) -> Weights:
    """The matrices of all layers, float32 inside."""
    return {
        name: edit(value.float()).to(torch.bfloat16) if zoo.is_linear(name) else value
        for name, value in BASE.items()
    }


def halved(value: torch.Tensor) -> torch.Tensor:
    return torch.where(value.abs() < value.abs().median(), 0, value)


def two_of_four(value: torch.Tensor) -> torch.Tensor:
    groups = value.reshape(len(value), -1, 4)
    return groups.scatter(-1, groups.abs().argsort(-1)[..., :2], 0).reshape(value.shape)


def truncated(value: torch.Tensor) -> torch.Tensor:
    left, sizes, right = torch.linalg.svd(value, full_matrices=False)
    kept = len(sizes) * 3 // 4
    cut: torch.Tensor = (left[:, :kept] * sizes[:kept]) @ right[:kept]
    return cut


@pytest.mark.parametrize(
    ("edit", "reason"),
    [(halved, "pruned"), (two_of_four, "pruned"), (truncated, "spectrum-cut")],
    ids=["magnitude", "2:4", "svd"],
)
def test_compression_is_no_training(edit: Callable[[torch.Tensor], torch.Tensor], reason: str) -> None:
    """Zeros and cut spectra are said as such; W less some of its own directions is no directional edit."""
    fork = of_layers(edit)
    assert kinds(full(fork)) == {EditKind.UNKNOWN}
    assert reason in evidence(full(fork))
    assert kinds(sketch(fork)) == {EditKind.UNKNOWN}


def test_a_cut_spectrum_is_no_direction_in_a_part_of_a_large_matrix() -> None:
    """Of large matrices some columns are looked at, in which singular vectors are not to be recognised."""
    generator = torch.Generator().manual_seed(3)
    left = torch.linalg.qr(torch.randn(192, 192, generator=generator))[0]
    before = left * torch.linspace(2, 0.2, 192) @ torch.randn(192, 2048, generator=generator)
    change = truncated(before) - before
    half = torch.full((192, 256), 1e-5)
    weights, delta = (part[:, ::8].contiguous().numpy() for part in (before, change))
    sample = Sample(weights, delta, half.numpy(), half.numpy())
    info = TensorInfo("model.layers.0.mlp.down_proj.weight", "BF16", (192, 2048), 0)
    assert measure_direction(Pair(info.name, info, info), sample) is None


@pytest.mark.parametrize("axis", [0, 1], ids=["rows", "columns"])
def test_rows_or_columns_times_factors_are_no_training(axis: int) -> None:
    """Folded gains and neurons scaled against each other."""
    factors = torch.exp(0.3 * torch.randn(512, generator=torch.Generator().manual_seed(1)))
    fork = of_layers(
        lambda value: (
            value * (factors[: value.shape[axis]][:, None] if axis == 0 else factors[: value.shape[1]])
        )
    )
    assert kinds(full(fork)) == {EditKind.UNKNOWN}
    assert kinds(sketch(fork)) == {EditKind.UNKNOWN}


def lowered(fork: Weights, module: str, rank: int, seed: int) -> Weights:
    """The same, but that the change of one module has this rank."""
    return {
        **fork,
        **{
            name: value
            for name, value in zoo.lora(
                BASE, seed, rank, 0.02, where=lambda name: f".{module}." in name
            ).items()
            if f".{module}." in name
        },
    }


def test_half_of_the_rank_is_not_small() -> None:
    """Heads that share values pass half of the rank on to `o_proj`, whatever is trained."""
    fork = lowered(zoo.dense(BASE, 3, 0.02), "o_proj", 64, 4)
    assert kinds(full(fork)) == {EditKind.FULL_FINETUNE}
    assert kinds(sketch(fork)) == {EditKind.FULL_FINETUNE}


def test_a_rank_near_the_limit_among_dense_changes_is_training() -> None:
    """One step of Adam lay near rank 44 of 192 in two modules, and near none in seven: once "proved"."""
    fork = lowered(zoo.dense(BASE, 5, 0.02), "o_proj", 28, 6)
    assert kinds(full(fork)) == {EditKind.FULL_FINETUNE}


def test_tokens_that_no_text_had_make_no_small_rank() -> None:
    """A few rows of an embedding that moved have a rank of their number at most."""
    fork = zoo.dense(BASE, 7, 0.02)
    rows = BASE["model.embed_tokens.weight"].clone()
    rows[::8] = fork["model.embed_tokens.weight"][::8]
    found = sketch({**fork, "model.embed_tokens.weight": rows})
    assert kinds(found) == {EditKind.FULL_FINETUNE}


def test_a_head_whose_rows_moved_together_hides_no_parents() -> None:
    """Training moves all rows of a head alike; a merge of such tunes is still traced to them."""
    shared = torch.randn(128, generator=torch.Generator().manual_seed(8)) * 0.02

    def tuned(seed: int) -> Weights:
        fork = zoo.dense(UNTIED, seed, 0.02)
        return {**fork, "lm_head.weight": (fork["lm_head.weight"].float() + shared).to(torch.bfloat16)}

    one, other = tuned(9), tuned(10)
    merged = {name: ((one[name].float() + other[name].float()) / 2).to(torch.bfloat16) for name in UNTIED}
    found = full(merged, UNTIED, one=one, other=other)
    assert {edit.kind: edit.certainty for edit in found.edits} == {EditKind.MERGE: Certainty.PROVED}


def test_codes_of_another_int8_quantiser() -> None:
    """Divided by a rounded scale, not multiplied: ties go the other way. Any other codes are an edit."""
    fork = of_layers(
        lambda value: (value / (scale := value.abs().amax(1, keepdim=True) / 127)).round() * scale
    )
    assert kinds(full(fork)) == kinds(sketch(fork)) == {EditKind.QUANTIZED}
    name = "model.layers.1.mlp.down_proj.weight"
    moved = torch.rand(fork[name].shape, generator=torch.Generator().manual_seed(1)) < 0.005
    other = {**fork, name: fork[name] + (0.02 * moved).to(torch.bfloat16)}
    assert kinds(full(other)) != {EditKind.QUANTIZED}


def test_a_rank_in_float32_is_not_hidden_by_arithmetic() -> None:
    """Steps of float32 are finer than what float32 arithmetic gets right: rank 10 was once called 48."""
    generator = torch.Generator().manual_seed(2)
    original = zoo.cast(BASE, torch.float32)
    fork = dict(original)
    for name, value in original.items():
        if ".down_proj." in name:
            left = torch.randn(len(value), 10, generator=generator)
            fork[name] = value + 0.004 * left @ torch.randn(10, value.shape[1], generator=generator)
    (edit,) = full(fork, original).edits
    assert (edit.kind, edit.detail.rank) == (EditKind.LOW_RANK_MERGE, 10)


def test_values_that_passed_through_bf16_are_a_cast() -> None:
    """Loaded in bf16 and saved as float32, of a release in fp16."""
    original = zoo.cast(BASE, torch.float16)
    original = {name: value + value * 2**-9 for name, value in original.items()}
    fork = {name: value.to(torch.bfloat16).float() for name, value in original.items()}
    assert kinds(full(fork, original)) == {EditKind.DTYPE_CAST}
    assert kinds(sketch(fork, original)) == {EditKind.DTYPE_CAST}
