"""All numbers about a fork's behaviour as one flat list: for the CSV of a bundle and for the ML-BOM."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from reports.scan import NumberView, RateView, SafetyView


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One number, or why there is none."""

    name: str
    of: str
    """`original`, `fork`, or `difference` where it compares the two."""
    topic: str = ""
    language: str = ""
    number: NumberView

    @property
    def slice(self) -> str:
        """`topic=fraud;lang=de`, as far as it is about a part of the prompts."""
        parts = (("topic", self.topic), ("lang", self.language))
        return ";".join(f"{key}={value}" for key, value in parts if value)


def measurements(safety: SafetyView) -> Iterator[Measurement]:
    """In a fixed order. Topics and languages are ours or the suite's, never a fork's."""
    for name, pair in (("refusal-rate", safety.refusal), ("over-refusal-rate", safety.over_refusal)):
        yield Measurement(name=name, of="original", number=pair.original)
        yield Measurement(name=name, of="fork", number=pair.fork)
    utility = safety.utility
    yield Measurement(name="kl-divergence-per-token", of="difference", number=utility.kl_per_token)
    yield Measurement(name="perplexity-ratio", of="difference", number=utility.perplexity_ratio)
    yield Measurement(name="degenerate-answers", of="fork", number=utility.degenerate)
    yield Measurement(name="multiple-choice-drop", of="difference", number=utility.choice_drop)
    yield Measurement(name="ungradeable-answers", of="fork", number=safety.ungradeable)
    for topic in safety.topics:
        yield Measurement(name="refusal-rate", of="original", topic=topic.topic, number=topic.original)
        yield Measurement(name="refusal-rate", of="fork", topic=topic.topic, number=topic.fork)
    for language in safety.languages:
        yield Measurement(
            name="refusal-drop", of="difference", language=language.language, number=language.drop
        )
    for cell in safety.matrix:
        for of, number in (("original", cell.original), ("fork", cell.fork)):
            yield Measurement(
                name="refusal-rate", of=of, topic=cell.topic, language=cell.language, number=number
            )


def taken(safety: SafetyView) -> tuple[tuple[Measurement, RateView], ...]:
    """Those that were measured, each with its number."""
    return tuple((each, each.number) for each in measurements(safety) if isinstance(each.number, RateView))
