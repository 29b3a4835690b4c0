"""A variant's values go in exactly, and the original's come back exactly, whatever happens between."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from evals.checksum import CHUNK, checksums, same_bits
from evals.parts import ForkMisfitError
from evals.swap import NotRestoredError, Swap, round_to_int4
from evals.variants import Part, Storage, Variant
from tests.evals.models import make_model, save_weights
from tests.evals.test_load import HEAD, UP, changed, logits, save_adapter


def state(model: LlamaForCausalLM) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(same_bits(left[name], right[name]) for name in left)


def fork_file(folder: Path, *, tied: bool = False, by: float = 0.05) -> tuple[LlamaForCausalLM, Path]:
    folder.mkdir(exist_ok=True)
    fork = changed(make_model(tied=tied), by)
    return fork, save_weights(folder, fork)


@pytest.mark.parametrize("tied", [False, True])
def test_a_fork_goes_in_and_the_original_comes_back(tmp_path: Path, *, tied: bool) -> None:
    """Inside, every value is the fork's, bit for bit; afterwards every one is the original's; twice."""
    fork, path = fork_file(tmp_path, tied=tied)
    model = make_model(tied=tied)
    before = state(model)
    swap = Swap(model)
    for _ in range(2):
        with swap.holding(Variant("fork", (Part((path,)),))) as notes:
            assert notes == ()
            assert equal(state(model), state(fork))
        assert equal(state(model), before)


def test_only_what_differs_is_touched(tmp_path: Path) -> None:
    """Of a fork with one changed matrix, one matrix is kept; of a byte-identical one, nothing."""
    model = make_model()
    path = save_weights(tmp_path, model, **{UP.replace(".", "__"): model.state_dict()[UP] * 2})
    swap = Swap(model)
    swap.put(Variant("fork", (Part((path,)),)))
    assert list(swap._kept) == [UP]
    swap.take_back()
    swap.put(Variant("none", (Part((tmp_path / "whole" / "model.safetensors",)),)))
    assert swap._kept == {}


def test_a_head_of_its_own_comes_and_goes(tmp_path: Path) -> None:
    """A fork that unties its head has it inside; afterwards head and embedding are one tensor again."""
    fork = changed(make_model(tied=True))
    head = fork.model.embed_tokens.weight.detach() * 2
    path = save_weights(tmp_path, fork, lm_head__weight=head)
    model = make_model(tied=True)
    before, computed = state(model), logits(model)
    with Swap(model).holding(Variant("fork", (Part((path,)),))):
        torch.testing.assert_close(logits(model), logits(fork) * 2)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert equal(state(model), before)
    torch.testing.assert_close(logits(model), computed, rtol=0, atol=0)


def test_half_a_delta_lies_half_way(tmp_path: Path) -> None:
    """Parts are summed in float32 and rounded once: W + 0.5·(F − W) + 2·(G − W); an untied head likewise."""
    ours = state(make_model(tied=True))
    first, first_path = fork_file(tmp_path / "f", tied=True)
    second, _ = fork_file(tmp_path / "g", tied=True, by=0.01)
    head = torch.flip(state(second)[HEAD], (0,)).contiguous()
    second_path = save_weights(tmp_path / "g", second, lm_head__weight=head)
    model = make_model(tied=True)
    with Swap(model).holding(Variant("sum", (Part((first_path,), 0.5), Part((second_path,), 2.0)))):
        inside = state(model)
    theirs = {**state(second), HEAD: head}
    for name, values in inside.items():
        whole = ours[name].float() + 0.5 * (state(first)[name].float() - ours[name].float())
        whole += 2.0 * (theirs[name].float() - ours[name].float())
        torch.testing.assert_close(values, whole.bfloat16(), rtol=0, atol=0)


def test_an_adapter_is_scaled_before_it_is_rounded(tmp_path: Path) -> None:
    """Scale 1 is PEFT's own merge; scale 0.5 and twice half of it is the same; scale 0 is the original."""
    expected = save_adapter(tmp_path, make_model(dtype=torch.float32))
    model = make_model(dtype=torch.float32)
    swap, before = Swap(model), logits(model)
    for scales, wanted in (((1.0,), expected), ((0.5, 0.5), expected), ((0.0,), before)):
        with swap.holding(Variant("adapter", tuple(Part((tmp_path,), scale) for scale in scales))):
            torch.testing.assert_close(logits(model), wanted)


def test_four_bits_round_the_linear_layers_only(tmp_path: Path) -> None:
    """A 4-bit copy has 15 values a group in linear layers; head, embedding and norms stay."""
    model = make_model()
    before = state(model)
    with Swap(model).holding(Variant("int4", (), Storage.INT4)):
        inside = state(model)
    assert equal(state(model), before)
    moved = {name for name in before if not same_bits(before[name], inside[name])}
    assert moved == {name for name in before if "proj" in name}
    group = inside[UP][0, :64].float()
    assert len(set((group / group.abs().max() * 7).round(decimals=1).tolist())) <= 15
    assert (group - before[UP][0, :64].float()).abs().max() <= before[UP][0, :64].abs().max() / 14 * 1.02


def test_rounding_keeps_what_lies_on_the_grid() -> None:
    """Values on the grid, zeros and a last short group are kept."""
    rows = torch.tensor([[7.0, -3.0, 0.0] * 30, [0.0] * 90])
    assert torch.equal(round_to_int4(rows), rows)


def test_a_failure_half_way_leaves_the_original(tmp_path: Path) -> None:
    """A fork whose last tensor is not finite is refused after others were put in; all of them come back."""
    model = make_model()
    path = save_weights(tmp_path, changed(make_model()), lm_head__weight=torch.full((21, 64), torch.nan))
    before = state(model)
    swap = Swap(model)
    with (
        pytest.raises(ForkMisfitError, match="not finite"),
        swap.holding(Variant("fork", (Part((path,)),))),
    ):
        pytest.fail("it was put in")
    assert equal(state(model), before)
    with pytest.raises(ZeroDivisionError), swap.holding(Variant("int4", (), Storage.INT4)):
        raise ZeroDivisionError
    assert equal(state(model), before)


def test_what_did_not_come_back_is_an_error(tmp_path: Path) -> None:
    """A value changed behind the swap's back is found, in one bit of one tensor."""
    model = make_model()
    swap = Swap(model)
    swap.take_back()
    with torch.no_grad():
        model.state_dict()[UP].view(torch.int16)[3, 5] ^= 1
    with pytest.raises(NotRestoredError, match="1 tensors differ"):
        swap.take_back()


def test_checksums_see_every_word() -> None:
    """Any flipped bit, swapped words and another chunk give another checksum; odd sizes have one, too."""
    torch.manual_seed(0)
    tensor = torch.randint(0, 255, (4 * CHUNK + 7,), dtype=torch.uint8)
    seen = {checksums({"a": tensor})["a"]}
    for place in (0, 4 * CHUNK - 1, 4 * CHUNK + 6):
        for bit in (1, 128):
            tensor[place] ^= bit
            seen.add(checksums({"a": tensor})["a"])
            tensor[place] ^= bit
    tensor[:8] = tensor[:8].roll(4)
    seen.add(checksums({"a": tensor})["a"])
    assert len(seen) == 8
    assert checksums({"a": torch.empty(0)}) == {"a": (0,)}
