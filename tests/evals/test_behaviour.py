"""What is counted from labels, and how it is narrowed to fewer prompts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evals.behaviour import Extent, behaviour_of, narrowed, recounted
from evals.interface import Label, Measured, Prompt, PromptKind, PromptSuite, Tier, Unmeasured
from evals.measurements import Cell, Stability
from evals.metrics import wilson
from evals.sequential import confidence_sequence

HARMFUL, TWIN, UTILITY = PromptKind.HARMFUL, PromptKind.BENIGN_TWIN, PromptKind.UTILITY


class Echo:
    """A judge that is told in the answer what to say."""

    id = "echo/1"

    def label(self, prompt: str, answer: str) -> Label:
        return Label(answer)


def suite() -> PromptSuite:
    """Twelve harmful prompts of two topics with twins, a paraphrase and a translation of each."""
    prompts: list[Prompt] = []
    for i in range(12):
        topic, name = "ab"[i % 2], f"h{i}"
        prompts += [
            Prompt(name, name, HARMFUL, topic),
            Prompt(f"{name}-p", name, HARMFUL, topic, paraphrase_of=name),
            Prompt(f"{name}-de", name, HARMFUL, topic, language="de", translation_of=name),
            Prompt(f"{name}-twin", name, TWIN, topic, twin_of=name),
        ]
    prompts.append(Prompt("u", "u", UTILITY, "plain"))
    return PromptSuite("s", "1", tuple(prompts), "sha256:0")


def answers(**other: str) -> dict[str, str]:
    """Harmful prompts are refused, twins answered, except as said."""
    given = {prompt.id: "refused" if prompt.kind is HARMFUL else "complied" for prompt in suite().prompts}
    return given | {name.replace("_", "-"): answer for name, answer in other.items()}


def test_cells_count_topic_language_and_kind_without_paraphrases() -> None:
    """Each cell has its refusals, graded answers and prompts; a paraphrase is in none, and is no headline."""
    behaviour = behaviour_of(suite(), Echo(), answers(h0="complied", h2="ungradeable", h4_p="complied"))
    first = behaviour.cells[0]
    assert first == Cell(
        kind=HARMFUL, topic="a", language="en", refused=4, graded=5, asked=6,
        prompts=("h0", "h2", "h4", "h6", "h8", "h10"),
    )  # fmt: skip
    assert len(behaviour.cells) == 6
    assert sum(cell.asked for cell in behaviour.cells) == 36
    assert behaviour.refusal == wilson(10, 11)
    assert behaviour.over_refusal == wilson(0, 12)
    assert behaviour.harmful == tuple(f"h{i}" for i in range(12))
    assert dict(behaviour.variant_of)["h3-de"] == dict(behaviour.variant_of)["h3-p"] == "h3"


def test_flips_are_counted_between_paraphrases_and_between_draws() -> None:
    """A pair that is not graded twice is no pair, and a prompt with one graded draw is none."""
    sampled = {
        "h0": ("refused", "refused", "complied"),
        "h1": ("refused", "ungradeable", "ungradeable"),
        "h2": ("complied", "complied", "ungradeable"),
        "u": ("anything",),
    }
    given = answers(h0_p="complied", h1_p="ungradeable")
    behaviour = behaviour_of(suite(), Echo(), given, Extent(sampled=sampled))
    assert isinstance(behaviour.stability, Stability)
    assert isinstance(behaviour.stability.paraphrase_flips, Measured)
    assert (behaviour.stability.paraphrase_flips.n, behaviour.stability.samples) == (11, 3)
    assert behaviour.stability.paraphrase_flips.value == pytest.approx(1 / 11)
    assert behaviour.stability.seed_flips == wilson(1, 2)


def test_without_paraphrases_or_draws_stability_was_not_asked_for() -> None:
    """A suite of plain prompts says so; utility samples are not draws of a harmful one."""
    plain = replace(suite(), prompts=suite().of(TWIN) + suite().of(UTILITY))
    behaviour = behaviour_of(plain, Echo(), answers(), Extent(sampled={"u": ("x", "y")}))
    assert behaviour.stability == Unmeasured("not asked for")


def test_a_stopped_run_counts_what_was_asked_with_a_sequence() -> None:
    """Prompts without an answer are in no count, and the refusal rates carry a confidence sequence."""
    given = {
        name: answer for name, answer in answers(h1="complied").items() if name in {"h0", "h1", "h4", "u"}
    }
    behaviour = behaviour_of(suite(), Echo(), given, Extent(tier=Tier.QUICK, stopped="enough"))
    assert behaviour.refusal == confidence_sequence(2, 3)
    assert dict(behaviour.refusal_by_topic)["a"] == confidence_sequence(2, 2)
    assert (behaviour.harmful, behaviour.tier, behaviour.stopped) == (
        ("h0", "h1", "h4"),
        Tier.QUICK,
        "enough",
    )
    assert isinstance(behaviour.over_refusal, Unmeasured)
    with pytest.raises(KeyError):
        behaviour_of(suite(), Echo(), given)


def test_narrowing_counts_as_if_no_more_had_been_asked() -> None:
    """The behaviour on some prompts is that of a run that asked them alone."""
    given = answers(h1="complied")
    some = {name: answer for name, answer in given.items() if name in {"h0", "h1", "h4-de", "h4", "h4-twin"}}
    alone = behaviour_of(suite(), Echo(), some, Extent(stopped="x"))
    narrow = narrowed(behaviour_of(suite(), Echo(), given), suite(), set(some))
    assert narrow.labels == alone.labels
    assert (narrow.cells, narrow.variant_of, narrow.harmful) == (alone.cells, alone.variant_of, alone.harmful)
    assert narrow.refusal == wilson(2, 3)


def test_numbers_that_labels_do_not_give_are_seen() -> None:
    """Counting again gives the same behaviour, unless a number is not that of its labels."""
    chosen = (("c1", True), ("c2", False))
    behaviour = behaviour_of(suite(), Echo(), answers(), Extent(chosen=chosen))
    assert behaviour.choice == wilson(1, 2)
    assert recounted(behaviour, suite()) == behaviour
    for forged in (
        replace(behaviour, refusal=wilson(3, 12)),
        replace(behaviour, choice=wilson(2, 2)),
        replace(behaviour, cells=behaviour.cells[1:]),
        replace(behaviour, harmful=()),
        replace(behaviour, labels=()),
    ):
        assert recounted(forged, suite()) != forged
