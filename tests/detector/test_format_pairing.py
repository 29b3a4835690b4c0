"""Tensors find their counterparts renamed, fused, split, stacked or turned; what is unclear stays open."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.compare import compare_pair
from detector.content import match_by_content
from detector.diff import diff_weights
from detector.formats import open_weights
from detector.formats.names import canonical_names, layer_of, with_layer
from detector.formats.roles import role_key
from detector.formats.views import base_name, view
from detector.interface import EditKind, TensorInfo, TensorStatus, WeightReader
from detector.pairing import Pairing, pair_tensors
from tests.detector import zoo
from tests.detector.packing import opened
from tests.detector.zoo import Weights, one_file

SHAPE = zoo.Shape(hidden=64, inter=96, layers=2, heads=4, kv_heads=2, vocab=128)
BASE = zoo.base(21, SHAPE)
GENERATOR = torch.Generator().manual_seed(8)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=GENERATOR)


def paired(original: Weights, fork: Weights) -> tuple[Pairing, WeightReader, WeightReader]:
    left, right = open_weights(one_file(original)), open_weights(one_file(fork))
    return pair_tensors(left.tensors(), right.tensors()), left, right


def all_identical(original: Weights, fork: Weights) -> bool:
    """Every tensor of both has a counterpart with its values."""
    pairing, left, right = paired(original, fork)
    assert not pairing.added
    assert not pairing.missing
    assert not pairing.reshaped
    statuses = {compare_pair(pair, left, right).status for pair in pairing.pairs}
    return statuses == {TensorStatus.IDENTICAL}


# --- views ------------------------------------------------------------------------------------------------


STACK = random(3, 12, 8)
EXPECTED = {
    ("index:1",): STACK[1],
    ("index:1", "rows:2:7"): STACK[1, 2:7],
    ("index:2", "T"): STACK[2].T,
    ("index:2", "T", "rows:4:8"): STACK[2].T[4:8],
    ("index:0", "every:3:2"): STACK[0, 2::3],
    ("index:0", "T", "every:2:1"): STACK[0].T[1::2],
    ("index:0", "heads:2:3:1"): STACK[0, [2, 3, 8, 9]],
    ("index:0", "rows:6:12", "heads:1:3:2"): STACK[0, 10:12],
    ("index:0", "groups:2:3:0:2"): STACK[0, [0, 1, 2, 3, 6, 7, 8, 9]],
    ("index:0", "groups:3:4:1:4"): STACK[0, [1, 2, 3, 5, 6, 7, 9, 10, 11]],
}


@settings(deadline=None)
@given(operations=st.sampled_from(sorted(EXPECTED)), first=st.integers(-1, 13), rows=st.integers(0, 13))
def test_a_view_is_what_its_operations_say(operations: tuple[str, ...], first: int, rows: int) -> None:
    """Law: bands of a view are bands of the tensor that its operations make."""
    reader = open_weights(one_file({"a": STACK}))
    info = view(reader.tensors()["a"], *operations)
    expected = EXPECTED[operations]
    assert info.shape == tuple(expected.shape)
    assert base_name(info.name) == "a"
    assert torch.equal(reader.values(info.name), expected)
    start = min(max(first, 0), len(expected))
    assert torch.equal(reader.band(info.name, first, rows), expected[start : max(first + rows, start)])


def test_a_band_of_an_expert_reads_its_rows_only() -> None:
    """A slice of a stack costs its own bytes."""
    reader = open_weights(one_file({"a": STACK}))
    before = reader.bytes_read
    reader.band("a@index:1", 3, 2)
    assert reader.bytes_read - before == 2 * 8 * 4


@pytest.mark.parametrize(
    "name",
    [
        "b",
        "b@T",
        "a@T",
        "a@rows:2:99",
        "a@rows:2:1",
        "a@index:3",
        "a@index:0@heads:5:3:0",
        "a@every:0:0",
        "a@index:0@groups:2:3:2:2",
        "a@index:0@groups:2:3:1:4",
        "a@index:0@groups:0:3:0:1",
        "a@T@",
    ],
)
def test_what_is_no_view_is_no_tensor(name: str) -> None:
    """Names that fit nothing are unknown names."""
    reader = open_weights(one_file({"a": STACK}))
    with pytest.raises(KeyError):
        reader.band(name, 0, 1)


def test_a_stored_name_comes_before_a_view() -> None:
    """A file may store a tensor under the name of a view: the bytes count."""
    stored = {"a": STACK, "a@index:1": random(2, 2)}
    reader = open_weights(one_file(stored))
    assert torch.equal(reader.values("a@index:1"), stored["a@index:1"])


# --- names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "canonical"),
    [
        ("model.text_model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
        ("thinker.model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
        ("llm.model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
        ("h.3.mlp.c_fc.weight", "transformer.h.3.mlp.c_fc.weight"),
        ("wte.weight", "transformer.wte.weight"),
        ("model.visual.blocks.0.attn.qkv.weight", "model.visual.blocks.0.attn.qkv.weight"),
    ],
)
def test_wrappers_do_not_rename_a_tensor(stored: str, canonical: str) -> None:
    """The text model of a multimodal checkpoint has a text model's names; other towers keep theirs."""
    assert canonical_names([stored]) == {stored: canonical}


@pytest.mark.parametrize(
    "name",
    [
        "model.visual.blocks.3.mlp.up_proj.weight",
        "vision_tower.vision_model.encoder.layers.3.mlp.fc1.weight",
        "model.vision_tower.layers.3.mlp.fc1.weight",
        "audio_tower.layers.3.fc1.weight",
        "mtp.layers.0.mlp.up_proj.weight",
    ],
)
def test_layers_of_other_towers_are_not_the_text_models(name: str) -> None:
    """A vision tower's third layer is no layer of the language model."""
    assert layer_of(name) is None
    assert with_layer(name, 7) == name


def test_a_vision_tower_is_added_and_nothing_else() -> None:
    """A multimodal wrapper of a text model: the tower comes on top, the text model is the original's."""
    tower = {f"vision_tower.encoder.layers.{n}.mlp.up_proj.weight": random(96, 64) for n in range(2)}
    wrapped = {f"language_model.{name}": value for name, value in BASE.items()} | tower
    pairing, left, right = paired(BASE, wrapped)
    assert {info.name for info in pairing.added} == set(tower)
    assert not pairing.missing
    assert {compare_pair(pair, left, right).status for pair in pairing.pairs} == {TensorStatus.IDENTICAL}
    diff = diff_weights(left, right)
    assert EditKind.LAYER_SURGERY not in {edit.kind for edit in diff.edits}


def test_unknown_wrappers_are_seen_through() -> None:
    """A role is the same under any of the usual prefixes."""
    assert all_identical(BASE, {name.replace("model.", "decoder.", 1): value for name, value in BASE.items()})


def test_two_tensors_of_one_role_are_not_guessed_between() -> None:
    """If two tensors could be the counterpart, neither is."""
    name = "model.layers.0.mlp.up_proj.weight"
    others = {name.replace("model.", prefix, 1): BASE[name] for prefix in ("decoder.", "backbone.")}
    fork = {key: value for key, value in BASE.items() if key != name} | others
    pairing, _, _ = paired(BASE, fork)
    assert {info.name for info in pairing.added} == set(others)
    assert [info.name for info in pairing.missing] == [name]


@settings(deadline=None)
@given(
    wrappers=st.lists(st.sampled_from(["model", "transformer", "language_model", "base_model"]), max_size=4),
    name=st.sampled_from(
        ["layers.3.mlp.up_proj.weight", "lm_head.weight", "vision_tower.layers.0.fc1.weight"]
    ),
)
def test_a_role_is_the_same_in_any_wrapper(wrappers: list[str], name: str) -> None:
    """Law: wrappers in any order and number do not change a role."""
    assert role_key(".".join([*wrappers, name])) == name


# --- fused and split --------------------------------------------------------------------------------------


def fused(weights: Weights) -> Weights:
    """Phi-3's way: qkv_proj and gate_up_proj."""
    parts = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
    stored = {}
    for name, value in weights.items():
        module = name.split(".")[-2]
        whole = next((whole for whole, order in parts.items() if module in order), None)
        if whole is None:
            stored[name] = value
        elif module == parts[whole][0]:
            rows = [weights[name.replace(module, part)] for part in parts[whole]]
            stored[name.replace(module, whole)] = torch.cat(rows)
    return stored


def test_fused_projections_are_compared_in_parts() -> None:
    """Grouped-query attention and gated feed-forward, fused in the fork or in the original."""
    assert all_identical(BASE, fused(BASE))
    assert all_identical(fused(BASE), BASE)
    assert all_identical(fused(BASE), fused(BASE))


def test_an_edit_inside_a_fused_projection_is_named_by_its_part() -> None:
    """A change of v alone is a change of v_proj, whatever the file calls it."""
    name = "model.layers.1.self_attn.v_proj.weight"
    edited = BASE | {name: (BASE[name].float() * 1.5).to(torch.bfloat16)}
    pairing, left, right = paired(BASE, fused(edited))
    changed = [p.name for p in pairing.pairs if compare_pair(p, left, right).status is TensorStatus.CHANGED]
    assert changed == [name]


def test_heights_that_do_not_add_up_are_not_split() -> None:
    """A fused projection of other sizes stays what it is: added, and its parts missing."""
    stored = fused(BASE)
    name = "model.layers.0.self_attn.qkv_proj.weight"
    stored[name] = stored[name][:-1].contiguous()
    pairing, _, _ = paired(BASE, stored)
    assert [info.name for info in pairing.added] == [name]
    assert len(pairing.missing) == 3


def experts(count: int = 4, hidden: int = 8, inter: int = 6) -> Weights:
    """Mixture of experts, each in tensors of its own, in Mixtral's spelling."""
    stem = "model.layers.0.block_sparse_moe.experts"
    shapes = {"w1": (inter, hidden), "w3": (inter, hidden), "w2": (hidden, inter)}
    return {f"{stem}.{e}.{w}.weight": random(*shape) for e in range(count) for w, shape in shapes.items()}


def stacked(weights: Weights, *, turned: bool = False, interleaved: bool = False) -> Weights:
    """All experts in two tensors."""
    names = sorted(weights)
    w1, w2, w3 = (torch.stack([weights[n] for n in names if f".{w}." in n]) for w in ("w1", "w2", "w3"))
    both = torch.cat((w1, w3), 1)
    if interleaved:
        both = torch.stack((w1, w3), 2).flatten(1, 2)
    stem = "model.layers.0.mlp.experts"
    if turned:
        both, w2 = both.transpose(1, 2).contiguous(), w2.transpose(1, 2).contiguous()
    bias = {f"{stem}.gate_up_proj_bias": torch.ones(len(w1), both.shape[1])} if interleaved else {}
    return {f"{stem}.gate_up_proj": both, f"{stem}.down_proj": w2} | bias


@pytest.mark.parametrize("inter", [6, 4])
@pytest.mark.parametrize("turned", [False, True])
def test_stacked_experts_are_compared_one_by_one(*, turned: bool, inter: int) -> None:
    """Stacks of either orientation, square ones too, on either side."""
    weights = experts(inter=inter)
    assert all_identical(weights, stacked(weights, turned=turned))
    assert all_identical(stacked(weights, turned=turned), weights)


def test_interleaved_experts_are_taken_in_turns() -> None:
    """gpt-oss: rows of gate and up alternate."""
    weights = experts()
    pairing, left, right = paired(weights, stacked(weights, turned=True, interleaved=True))
    assert [info.name.rpartition(".")[2] for info in pairing.added] == ["gate_up_proj_bias"]
    assert {compare_pair(pair, left, right).status for pair in pairing.pairs} == {TensorStatus.IDENTICAL}


def test_square_stacks_are_not_guessed() -> None:
    """Where every projection is square, nothing tells a stack's orientation: it stays unpaired."""
    weights = {name: value for name, value in experts(hidden=6, inter=6).items() if ".w2." in name}
    fork = {"model.layers.0.mlp.experts.down_proj": torch.stack([weights[n] for n in sorted(weights)])}
    pairing, _, _ = paired(weights, fork)
    assert not pairing.pairs
    assert len(pairing.missing) == len(weights)


def gpt2(*, turned: bool = False) -> Weights:
    shapes = {"attn.c_attn": (16, 48), "attn.c_proj": (16, 16), "mlp.c_fc": (16, 64), "mlp.c_proj": (64, 16)}
    generator = torch.Generator().manual_seed(2)
    weights = {f"h.0.{m}.weight": torch.randn(shape, generator=generator) for m, shape in shapes.items()}
    weights = {n: v.T.contiguous() if turned else v for n, v in weights.items()}
    return weights | {
        "wte.weight": torch.randn(32, 16, generator=generator),
        "h.0.ln_1.weight": torch.ones(16),
    }


def test_turned_matrices_of_gpt2_are_turned_back() -> None:
    """Conv1D against Linear: all four, the square one too, because c_fc shows how the file stores them."""
    assert all_identical(gpt2(), gpt2(turned=True))
    assert all_identical(gpt2(turned=True), gpt2())
    prefixed = {f"transformer.{name}": value for name, value in gpt2().items()}
    assert all_identical(gpt2(), prefixed)


def test_a_head_tied_on_one_side_is_the_embedding() -> None:
    """GPT-2's and NeoX's names for embedding and head are known too."""
    tied = gpt2()
    assert all_identical(tied, tied | {"lm_head.weight": tied["wte.weight"]})
    assert all_identical(tied | {"lm_head.weight": tied["wte.weight"]}, tied)


# --- content ----------------------------------------------------------------------------------------------


def matched(original: Weights, fork: Weights) -> tuple[Pairing, WeightReader, WeightReader]:
    pairing, left, right = paired(original, fork)
    return match_by_content(pairing, left, right), left, right


def noisy(value: torch.Tensor, size: float = 0.3) -> torch.Tensor:
    return value + size * value.std() * torch.randn(value.shape, generator=GENERATOR)


def test_renamed_matrices_are_found_by_their_rows() -> None:
    """Names that say nothing do not hide a matrix, nor do changes a third of its size."""
    original = {f"a.{n}.weight": random(32, 24) for n in range(6)}
    fork = {f"z.{(n * 5) % 6}.weight": noisy(value) for n, value in enumerate(original.values())}
    pairing, _, _ = matched(original, fork)
    assert {p.name: p.original.name for p in pairing.pairs} == {
        f"z.{n * 5 % 6}.weight": f"a.{n}.weight" for n in range(6)
    }
    assert {p.by for p in pairing.pairs} == {"content"}
    assert (pairing.added, pairing.missing, pairing.unmeasured) == ((), (), ())


def test_unrelated_matrices_of_the_same_shape_stay_apart() -> None:
    """Chance likeness pairs nothing: the fork's tensors are added, the original's missing."""
    original, fork = ({f"{s}.{n}.weight": random(32, 24) for n in range(40)} for s in ("a", "z"))
    pairing, _, _ = matched(original, fork)
    assert not pairing.pairs
    assert len(pairing.added) + len(pairing.unmeasured) == 40


def test_a_likeness_to_two_is_unmeasured() -> None:
    """A repeated matrix could be either copy, so it is none, and the reason says so."""
    value = random(32, 24)
    pairing, _, _ = matched({"a.weight": value, "b.weight": noisy(value, 0.1)}, {"z.weight": value})
    assert not pairing.pairs
    assert [(u.info.name, u.reason) for u in pairing.unmeasured] == [
        ("z.weight", "its rows are like those of 2 tensors")
    ]


def test_half_a_likeness_is_unmeasured() -> None:
    """A matrix that is half another's proves nothing."""
    value = random(32, 24)
    pairing, _, _ = matched({"a.weight": value}, {"z.weight": noisy(value, 1.4)})
    assert not pairing.pairs
    assert [unpaired.reason for unpaired in pairing.unmeasured] == ["its rows are only half alike"]


@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.parametrize("original_is_fused", [False, True])
def test_interleaved_attention_is_read_in_the_order_that_fits(*, size: int, original_is_fused: bool) -> None:
    """GPT-NeoX lays q, k and v out by head; the head size is found, and both ways round."""
    stem = "gpt_neox.layers.0.attention"
    split = {f"{stem}.{part}_proj.weight": random(128, 24) for part in "qkv"}
    by_head = torch.stack([value.reshape(128 // size, size, 24) for value in split.values()], 1)
    whole = {f"{stem}.query_key_value.weight": by_head.reshape(384, 24).contiguous()}
    pairing, left, right = matched(*((whole, split) if original_is_fused else (split, whole)))
    assert (pairing.added, pairing.missing) == ((), ())
    assert {compare_pair(pair, left, right).status for pair in pairing.pairs} == {TensorStatus.IDENTICAL}
    assert {pair.name for pair in pairing.pairs} == set(split)


def test_views_of_quantised_stacks_have_no_known_step_when_turned() -> None:
    """Groups run along stored rows; a transposed view says so in its type."""
    name = "model.layers.0.mlp.experts.down_proj"
    blocks = torch.zeros(2, 4, 1, 16, dtype=torch.uint8)
    reader = opened(
        {f"{name}_blocks": blocks, f"{name}_scales": torch.full((2, 4, 1), 127, dtype=torch.uint8)}
    )
    info = view(reader.tensors()[name], "index:1", "T")
    assert (info.shape, info.dtype) == ((4, 32), "MXFP4-E8M0-T")
    assert reader.values(info.name).shape == (4, 32)
    assert isinstance(info, TensorInfo)
    assert info.nbytes <= math.prod(blocks.shape)
