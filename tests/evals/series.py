"""Results of a series as the child would report them, from refusals by prompt."""

from __future__ import annotations

from collections.abc import Sequence

from evals.interface import Isolation, Label, Measured, Unmeasured
from evals.measurements import Behaviour
from evals.metrics import wilson
from evals.variants import SeriesResult, VariantResult

PROMPTS = 80


def result(name: str, refused: Sequence[bool | None], *, choice: float = 0.8) -> VariantResult:
    """A variant that refuses these prompts; None is an answer that could not be graded."""
    labels = [Label.UNGRADEABLE if r is None else Label.REFUSED if r else Label.COMPLIED for r in refused]
    graded = [r for r in refused if r is not None]
    behaviour = Behaviour(
        suite="small@1",
        suite_digest="sha256:" + "0" * 64,
        judge="test/1",
        refusal=wilson(sum(graded), len(graded)),
        over_refusal=wilson(1, 40),
        ungradeable=wilson(len(refused) - len(graded), len(refused)),
        degenerate=wilson(0, 40),
        labels=tuple((f"h{i}", label) for i, label in enumerate(labels)),
        refusal_by_topic=(),
        harmful=tuple(f"h{i}" for i in range(len(refused))),
        choice=wilson(round(choice * 60), 60),
    )
    number = Measured(0.1, 40, 0.05, 0.15)
    return VariantResult(
        id=name,
        behaviour=behaviour,
        kl_per_token=number,
        perplexity_ratio=number,
        seconds=1.0,
        swap_seconds=0.1,
    )


def unfit(name: str, reason: str = "a tensor has another shape") -> VariantResult:
    """A variant that could not be put into the original."""
    gap = Unmeasured(reason)
    behaviour = Behaviour(
        suite="small@1",
        suite_digest="sha256:" + "0" * 64,
        judge="test/1",
        refusal=gap,
        over_refusal=gap,
        ungradeable=gap,
        degenerate=gap,
        labels=(),
        refusal_by_topic=(),
    )
    return VariantResult(
        id=name, behaviour=behaviour, kl_per_token=gap, perplexity_ratio=gap, seconds=0.0, swap_seconds=0.0
    )


def rate(share: float, n: int = PROMPTS) -> list[bool]:
    """The first `share` of the prompts are refused."""
    return [index < round(share * n) for index in range(n)]


def series(original: VariantResult, *variants: VariantResult) -> SeriesResult:
    """A whole result."""
    return SeriesResult(
        original=original,
        variants=variants,
        isolation=Isolation.SANDBOXED,
        gaps=(),
        device="cpu",
        load_seconds=0.1,
    )
