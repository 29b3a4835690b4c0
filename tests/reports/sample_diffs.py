"""Documents of `forkwatch diff`, as the two depths make them."""

from __future__ import annotations

from reports.diff import (
    DiffCostView,
    DiffDocument,
    RegionView,
    SampledTensorView,
    TensorStatusName,
    TensorView,
    UnsampledTensorView,
)
from reports.scan import EditView, EvidenceView, LineageView

DIRECTIONAL = EditView(
    kind="directional-edit",
    certainty="proved",
    detail={"rank": 1, "strength": 0.62, "modules": ["down_proj", "o_proj"], "layers": [2, 3]},
    evidence=(EvidenceView("reproduced-fraction", 0.978, "median share of moved values"),),
)
COST = DiffCostView(bytes_downloaded=0, bytes_read=2048, bytes_total=1024, requests=0, seconds=1.5)


def tensor(
    name: str, layer: int | None = None, status: TensorStatusName = "identical", *, by: float = 0.0
) -> TensorView:
    """A compared tensor; `by` makes it one that changed at rank 1 with a rounding floor of 1 %."""
    return TensorView(
        name=name,
        status="changed" if by else status,
        layer=layer,
        module=name.split(".")[-2],
        relative_norm=by,
        fraction_changed=0.9 if by else 0.0,
        rank=1 if by else None,
        energy=(0.98, 0.005, 0.005) if by else (),
        cosine=0.99 if by else None,
        max_change=by,
        floor_ratio=100.0 if by else None,
        exponents=(1, 2) if by else (),
    )


def full(*tensors: TensorView, **changes: object) -> DiffDocument:
    """At depth full."""
    fields: dict[str, object] = {
        "depth": "full",
        "base": "lab/base",
        "fork": "someone/fork",
        "base_commit": None,
        "fork_commit": "b" * 40,
        "lineage": LineageView(claimed=None, relation=None, status="proved"),
        "edits": (DIRECTIONAL,),
        "tensors": tensors,
        "unsampled": (),
        "visible_share": None,
        "regions": (),
        "not_measured": ("What the changes do to the model's behaviour.",),
        "cost": COST,
    }
    return DiffDocument(**{**fields, **changes})  # type: ignore[arg-type]  # the class checks the names


def llama(layers: int, experts: int = 0) -> DiffDocument:
    """A model whose writers were edited in the upper half; norms were cast; the head cannot be read."""
    tensors = [tensor("model.embed_tokens.weight"), tensor("lm_head.weight", status="unreadable")]
    for layer in range(layers):
        by = 0.01 * (layer + 1) / layers if layer >= layers // 2 else 0.0
        start = f"model.layers.{layer}"
        tensors += [tensor(f"{start}.self_attn.{name}_proj.weight", layer) for name in "qkv"]
        tensors.append(tensor(f"{start}.self_attn.o_proj.weight", layer, by=by))
        tensors.append(tensor(f"{start}.mlp.down_proj.weight", layer, by=by))
        tensors.append(tensor(f"{start}.input_layernorm.weight", layer, "cast"))
        tensors += [
            tensor(f"{start}.mlp.experts.{expert}.down_proj.weight", layer, by=by if expert == 1 else 0.0)
            for expert in range(experts)
        ]
    return full(*tensors)


def sketch() -> DiffDocument:
    """At depth sketch: one tensor changed, one not, one of each kind that no row was read of."""
    sampled = [
        SampledTensorView(
            name=f"model.layers.{layer}.mlp.down_proj.weight",
            layer=layer,
            module="down_proj",
            changed=bool(layer),
            rows=16,
            miss=0.0 if layer else 0.01,
            relative_norm=0.02 * layer,
            rank=layer or None,
        )
        for layer in range(2)
    ]
    unsampled = tuple(
        UnsampledTensorView(name=f"model.layers.{layer}.x.weight", layer=layer, module="x", status=status)
        for layer, status in enumerate(("added", "missing", "reshaped", "not-read"))
    )
    region = RegionView(
        name="model.layers.1.mlp.down_proj.weight", first_row=0, rows=64, why="largest change"
    )
    return full(
        depth="sketch", tensors=tuple(sampled), unsampled=unsampled, visible_share=0.1, regions=(region,)
    )
