"""An adapter on the same weights in another layout changes what PEFT changes; unknown kinds are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from crawler.local import LocalFile
from detector.adapted import pair_adapter
from detector.diff import diff_weights
from detector.errors import UnreadableTensorError
from detector.formats import PeftReader, open_weights
from detector.interface import EditKind, LineageStatus, TensorStatus, WeightReader
from tests.detector import zoo
from tests.detector.test_format_peft import PLAIN, State, adapter, merged
from tests.detector.zoo import Weights, one_file

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
"""PEFT 0.21 asks transformers 5.23 by a name that the latter deprecates."""

SHAPE = zoo.Shape(hidden=32, inter=48, layers=2, heads=2, kv_heads=1, vocab=64)
BASE = {name: value.float() for name, value in zoo.base(3, SHAPE).items()}
PARTS = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


def reader_of(files: dict[str, zoo.MemoryFile]) -> PeftReader:
    reader = open_weights(files)
    assert isinstance(reader, PeftReader)
    return reader


def lora_on(weights: Weights, modules: tuple[str, ...], rank: int = 3) -> State:
    generator = torch.Generator().manual_seed(9)
    tensors = {}
    for name, value in weights.items():
        if any(f".{module}." in name for module in modules):
            stem = f"base_model.model.{name.removesuffix('.weight')}"
            tensors[f"{stem}.lora_A.weight"] = torch.randn(rank, value.shape[1], generator=generator)
            tensors[f"{stem}.lora_B.weight"] = torch.randn(value.shape[0], rank, generator=generator)
    return tensors


def fused(weights: Weights) -> Weights:
    stored = {
        name: value for name, value in weights.items() if not any(p in name for p in sum(PARTS.values(), ()))
    }
    for whole, parts in PARTS.items():
        for name in weights:
            if parts[0] in name:
                stored[name.replace(parts[0], whole)] = torch.cat(
                    [weights[name.replace(parts[0], part)] for part in parts]
                )
    return stored


def changed(original: WeightReader, reader: PeftReader) -> dict[str, torch.Tensor]:
    """Original plus change of every pair, by the fork's name."""
    found = pair_adapter(original.tensors(), reader)
    assert not found.unfitting
    values = {}
    for pair in found.adapted:
        assert pair.original.shape == pair.fork.shape == reader.shape(pair.fork.name)
        before = original.values(pair.original.name).float()
        after = before + reader.delta(pair.fork.name, before)
        values[pair.name] = (
            after.T if "experts" not in pair.name and pair.original.name.endswith("@T") else after
        )
    return values


@pytest.mark.parametrize("dora", [False, True])
def test_an_adapter_of_fused_modules_on_a_split_base(dora: bool) -> None:
    """Factors of qkv_proj change q, k and v by their own rows; DoRA's lengths are cut the same way."""
    whole = fused(BASE)
    tensors = lora_on(whole, ("qkv_proj", "gate_up_proj"))
    if dora:
        tensors |= {
            name.replace("lora_B.weight", "lora_magnitude_vector"): 1 + torch.rand(len(value))
            for name, value in tensors.items()
            if "lora_B" in name
        }
    reader = reader_of(adapter({"use_dora": dora}, tensors))
    split, expected = (
        changed(open_weights(one_file(BASE)), reader),
        changed(open_weights(one_file(whole)), reader),
    )
    assert len(split) == 5 * SHAPE.layers
    again = fused(BASE | split)
    for name, value in expected.items():
        torch.testing.assert_close(again[name], value, rtol=1e-5, atol=1e-6)


def test_an_adapter_of_split_modules_on_a_fused_base() -> None:
    """Factors of k_proj change the rows of qkv_proj that hold it."""
    reader = reader_of(adapter({}, lora_on(BASE, ("k_proj", "up_proj"))))
    on_split = changed(open_weights(one_file(BASE)), reader)
    on_fused = changed(open_weights(one_file(fused(BASE))), reader)
    assert on_split.keys() != set()
    assert on_split.keys() == on_fused.keys()
    assert all(torch.equal(on_split[name], on_fused[name]) for name in on_split)


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["c_attn", "c_proj"], "lora_bias": True},
        {"target_modules": ["c_attn"], "bias": "lora_only"},
        {"target_modules": ["c_attn", "lm_head"], "fan_in_fan_out": True},
        {"target_modules": ["c_fc"], "layers_to_transform": [1], "layers_pattern": "h"},
        {
            "target_modules": ["c_fc", "c_attn"],
            "alpha_pattern": {r"^transformer.h.\d+.mlp.c_fc": 30, "h.1.*": 2},
        },
    ],
    ids=["lora-bias", "bias-saved", "mixed-orientation", "some-layers", "expressions"],
)
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set", "ignore:Model (with|has)", "ignore:Adapter")
def test_change_is_what_peft_merges(options: dict[str, Any], tmp_path: Path) -> None:
    """Biases, saved biases, turned and straight modules side by side, layers and patterns."""
    before, after, reader = merged("gpt2", tmp_path, **options)
    before = {name: value for name, value in before.items() if "lm_head" not in name}
    values = changed(open_weights(one_file(before)), reader)
    values |= {name: reader.values(name) for name in reader.saved}
    for name, value in after.items():
        if "lm_head" not in name and "wte" not in name:
            torch.testing.assert_close(values.pop(name, before.get(name)), value, rtol=1e-4, atol=1e-5)
    assert set(values) <= {"lm_head.weight"}


def moe(kind: str) -> Any:
    from transformers import GptOssConfig, GptOssForCausalLM, MixtralConfig, MixtralForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "num_local_experts": 4}
    if kind == "mixtral":
        return MixtralForCausalLM(MixtralConfig(**sizes, **heads))
    return GptOssForCausalLM(GptOssConfig(**sizes, **heads, layer_types=["full_attention"]))


@pytest.mark.parametrize("kind", ["mixtral", "gpt-oss"])
def test_factors_of_expert_stacks_change_what_peft_changes(kind: str, tmp_path: Path) -> None:
    """`target_parameters`: both stacks of a module, nested, of a base stored either way round, or split."""
    from peft import LoraConfig, get_peft_model

    model = moe(kind)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    config = LoraConfig(
        r=2,
        lora_alpha=6,
        init_lora_weights=False,
        target_modules=["q_proj"],
        target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
    )
    adapted = get_peft_model(model, config)
    adapted.save_pretrained(tmp_path, save_embedding_layers=False)
    after = adapted.merge_and_unload().state_dict()
    reader = reader_of({path.name: LocalFile(path) for path in tmp_path.iterdir()})  # type: ignore[misc]  # a source
    assert not reader.undecoded
    values = changed(open_weights(one_file(before)), reader)
    assert len(values) == 1 + 2 * 4
    for name, value in values.items():
        stem, _, index = name.partition("@index:")
        expected = after[stem][int(index)] if index else after[stem]
        if index and expected.shape != value.shape:
            expected = expected.T
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
    if kind == "mixtral":
        split = dict(before)
        for index in range(4):
            stem = "model.layers.0.mlp.experts"
            gate, up = before[f"{stem}.gate_up_proj"][index].chunk(2)
            down = before[f"{stem}.down_proj"][index]
            split |= {
                f"{stem}.{index}.{k}.weight": v.clone() for k, v in (("w1", gate), ("w3", up), ("w2", down))
            }
        del split[f"{stem}.gate_up_proj"], split[f"{stem}.down_proj"]
        apart = changed(open_weights(one_file(split)), reader)
        assert len(apart) == 1 + 3 * 4
        expected = after[f"{stem}.gate_up_proj"][3].chunk(2)[1]
        found = next(v for n, v in apart.items() if n.startswith(f"{stem}.3.") and "up" in n)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings(
    "ignore:The following rank_pattern keys", "ignore:The following alpha_pattern keys"
)
def test_stacks_named_without_their_module(tmp_path: Path) -> None:
    """PEFT turns `all-linear` of a mixture of experts into bare names, and gives fused ones another rank."""
    from peft import LoraConfig, get_peft_model

    model = moe("mixtral")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    config = LoraConfig(r=2, lora_alpha=6, init_lora_weights=False, target_modules="all-linear")
    adapted = get_peft_model(model, config)
    adapted.save_pretrained(tmp_path, save_embedding_layers=False)
    after = adapted.merge_and_unload().state_dict()
    reader = reader_of({path.name: LocalFile(path) for path in tmp_path.iterdir()})  # type: ignore[misc]  # a source
    original = open_weights(one_file(before))
    assert diff_weights(original, reader).lineage.status is LineageStatus.CONSISTENT
    values = changed(original, reader)
    assert len(values) == 5 + 2 * 4
    for name, value in values.items():
        stem, _, index = name.partition("@index:")
        expected = after[stem][int(index)] if index else after[stem]
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)


def test_targets_of_unknown_names_contradict_nothing() -> None:
    """Factors that fit beside some that are found nowhere: another library's names, not another model."""
    original = open_weights(one_file(BASE))
    odd = {
        f"base_model.model.model.layers.0.mlp.strange.lora_{k}.weight": torch.ones(2, 8)[:, :8].reshape(
            *shape
        )
        for k, shape in (("A", (2, 8)), ("B", (8, 2)))
    }
    reader = reader_of(adapter({}, lora_on(BASE, ("q_proj",)) | odd))
    assert diff_weights(original, reader).lineage.status is LineageStatus.UNKNOWN


def test_modules_saved_whole_are_compared() -> None:
    """An equal one is identical, another one changed, one with more rows reshaped, a foreign one added."""
    norm = BASE["model.norm.weight"]
    saved = {
        "base_model.model.model.norm.weight": norm,
        "base_model.model.lm_head.weight": BASE["model.embed_tokens.weight"] + 1,
        "base_model.model.model.embed_tokens.weight": torch.ones(70, 32),
        "base_model.model.score.weight": torch.ones(2, 32),
    }
    original = open_weights(one_file(BASE | {"lm_head.weight": BASE["model.embed_tokens.weight"]}))
    reader = reader_of(adapter({}, lora_on(BASE, ("q_proj",)) | saved))
    assert pair_adapter(original.tensors(), reader).added == ("score.weight",)
    diff = diff_weights(original, reader)
    statuses = {tensor.name: tensor.status for tensor in diff.tensors}
    assert statuses["model.norm.weight"] is TensorStatus.IDENTICAL
    assert statuses["lm_head.weight"] is TensorStatus.CHANGED
    assert statuses["model.embed_tokens.weight"] is TensorStatus.RESHAPED
    notes = {evidence.name: evidence.note for evidence in diff.edits[0].evidence}
    assert notes["saved-modules"] == "tensors shipped whole; 2 of them differ from the original's"


def test_an_adapter_that_fits_nothing_is_unrelated_and_one_that_says_nothing_unknown() -> None:
    """Factors of other shapes are another model's; an adapter without factors is no sign of anything."""
    original = open_weights(one_file(BASE))
    other = reader_of(adapter({}, {"model.layers.0.self_attn.q_proj." + n[2:]: v for n, v in PLAIN.items()}))
    assert diff_weights(original, other).lineage.status is LineageStatus.UNRELATED
    empty = reader_of(adapter({}, {"base_model.model.score.weight": torch.ones(2, 32)}))
    assert diff_weights(original, empty).lineage.status is LineageStatus.UNKNOWN


@pytest.mark.parametrize(
    "kind", ["IA3", "LOHA", "LOKR", "PREFIX_TUNING", "VERA", "ADALORA", "OFT", "\x1b[2J"]
)
def test_other_kinds_of_adapters_are_unreadable(kind: str) -> None:
    """What is no LoRA is refused with its name, as unreadable and not as damaged."""
    with pytest.raises(UnreadableTensorError, match="only LoRA") as error:
        open_weights(adapter({"peft_type": kind}, PLAIN))
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "option",
    [
        {"use_qalora": True},
        {"use_bdlora": {"x": 1}},
        {"layer_replication": [[0, 2], [1, 2]]},
        {"alora_invocation_tokens": [1, 2]},
        {"alpha_pattern": {"(a+)+$": 1}},
        {"alpha_pattern": {".*.*.*x": 1}},
        {"alpha_pattern": {"a": 3, "[": 1}},
    ],
)
def test_options_that_change_the_meaning_of_the_factors_are_unreadable(option: dict[str, Any]) -> None:
    """The adapter is named, its change is not stated."""
    reader = reader_of(adapter(option, PLAIN))
    for read in (reader.factors, reader.delta):
        with pytest.raises(UnreadableTensorError):
            read("a.weight")
    diff = diff_weights(open_weights(one_file({"a.weight": torch.ones(3, 4)})), reader)
    assert [edit.kind for edit in diff.edits] == [EditKind.ADAPTER]
    assert "factors-in-doubt" in {evidence.name for evidence in diff.edits[0].evidence}


def test_tensors_of_unknown_options_are_not_modules_saved_whole() -> None:
    """Trained tokens and unknown factors are counted as undecoded."""
    extra = {"a.token_adapter.trainable_tokens_delta": torch.ones(2, 4), "a.lora_E": torch.ones(2, 1)}
    reader = reader_of(adapter({}, PLAIN | extra))
    assert reader.saved == ()
    assert set(reader.foreign) == set(extra)


@pytest.mark.parametrize(
    ("key", "scale"), [("a", 1.0), ("^a$", 1.0), ("x.a", 2.0), (r"\d+", 2.0), (".*a", 1.0), ("b|a", None)]
)
def test_alphas_follow_patterns(key: str, scale: float | None) -> None:
    """A key is matched at the end of a module's name; one that is not tried makes the scale unknown."""
    reader = reader_of(adapter({"alpha_pattern": {key: 2}}, PLAIN))
    assert bool(reader.config.doubt) == (scale is None)
    if scale is not None:
        assert reader.scale("a.weight") == scale


def test_no_pattern_takes_long() -> None:
    """Two gaps on the longest name there is."""
    key = ".*" + "a" * 100 + ".*b"
    name = "a" * 490
    tensors = {f"{name}.lora_A.weight": torch.ones(2, 4), f"{name}.lora_B.weight": torch.ones(3, 2)}
    assert reader_of(adapter({"alpha_pattern": {key: 2}}, tensors)).scale(f"{name}.weight") == 2.0
