"""The heatmap of a scan's document."""

from __future__ import annotations

from detector.interface import TensorDiff, TensorStatus
from forkwatch.pipeline.document import _heatmap


def _tensor(name: str, status: TensorStatus, norm: float = 0.0) -> TensorDiff:
    return TensorDiff(
        name=name,
        status=status,
        layer=0,
        module=name.split(".")[-2],
        relative_norm=norm,
        fraction_changed=0.0,
        rank=None,
    )


def test_experts_share_a_cell_and_the_unread_have_none() -> None:
    """A cell shows the largest change of its tensors, in any order; what was not compared is no zero."""
    found = _heatmap(
        (
            _tensor("model.layers.0.mlp.experts.0.down_proj.weight", TensorStatus.CHANGED, 0.1),
            _tensor("model.layers.0.mlp.experts.1.down_proj.weight", TensorStatus.IDENTICAL),
            _tensor("model.layers.0.self_attn.k_proj.weight", TensorStatus.IDENTICAL),
            _tensor("model.layers.0.self_attn.q_proj.weight", TensorStatus.UNREADABLE),
        )
    )

    assert found is not None
    assert (found.modules, found.values) == (("down_proj", "k_proj"), ((0.1, 0.0),))
