"""What changed beside the matrices that adapters are made for: the trace of training where ranks say nothing.

A band whose change moved m stored values rules out a rank r only while r(b + n − r) parameters cannot fit
them, for b rows of n values: with m of them or more there is a matrix of rank r in all rounding intervals. In
narrow matrices, and for faint changes of wide ones, that r is below the rank of ordinary adapters, and the
rank of one matrix tells no dense change from a merged adapter. The model does. Merging an adapter adds B·A to
the linear layers it was made for, and leaves every other tensor as it was, bit for bit: norm gains always,
token matrices unless it was trained along with new tokens. Training moves everything that has a gradient. So

- norm gains that changed in half of the touched layers, or
- token matrices that changed along with nearly all matrices of all layers, the vocabulary being the same,

refute an adapter alone. Biases do not: PEFT trains them with `bias="all"`. Nor do gains that differ by one
rounding step of another type, as a conversion leaves them. Without either trace the change stays undecided.
Adapters that were trained together with norms, or with the tokens of an unchanged vocabulary, have such
traces too: where the probes agree on a small rank all the same, nothing is concluded (`naming`).
"""

from __future__ import annotations

from collections.abc import Sequence

from detector.interface import Evidence
from detector.sketch.reading import Seen

MOST = 0.5
"""Share of the touched layers in which a gain must have changed: bf16 keeps few of a short training's steps
in values near 1, a thousandth of them and less, so that not every gain shows one."""
NEARLY_ALL = 0.9
"""Share of all matrices that must have changed with the tokens', as in a full diff (`edits.dense`)."""


def trained_beside(trained: Sequence[Seen], seen: Sequence[Seen], tokens: frozenset[str]) -> Evidence | None:
    """Changes that no merged adapter leaves; None when there are none.

    Args:
        trained: changed matrices whose form is dense or undecided.
        seen: everything that was read.
        tokens: names of the token matrices, when the vocabulary is the original's; else empty.
    """
    layers = {each.pair.layer for each in trained} - {None}
    gains = [each for each in seen if each.pair.layer in layers and _is_gain(each)]
    moved = {each.pair.layer for each in gains if _was_trained(each)}
    if moved and len(moved) >= MOST * len({each.pair.layer for each in gains}):
        note = f"of {len(layers)} touched ones: their norm gains changed, which no merged adapter does"
        return Evidence("layers-with-changed-gains", len(moved), note)
    matrices = [each for each in seen if each.pair.is_matrix]
    beyond = [each for each in trained if each.pair.name in tokens]
    if beyond and sum(each.changed for each in matrices) >= NEARLY_ALL * len(matrices):
        note = "changed along with nearly all others, and the vocabulary is the same: no adapter alone"
        return Evidence("changed-token-matrices", len(beyond), note)
    return None


def _is_gain(seen: Seen) -> bool:
    """A vector that is no bias."""
    return len(seen.pair.fork.shape) == 1 and not seen.pair.name.endswith("bias")


def _was_trained(seen: Seen) -> bool:
    """It changed by more than a conversion to another type leaves."""
    return seen.changed and (not seen.small or seen.pair.fork.dtype == seen.pair.original.dtype)
