"""The policy: which facts give which findings and which verdict."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from crawler.interface import Claim
from detector.interface import (
    Certainty,
    Diff,
    Edit,
    EditKind,
    FileFinding,
    Lineage,
    LineageStatus,
    TextChange,
)
from detector.provenance.interface import SignatureStatus
from evals.measurements import SafetyStatus
from forkwatch.policy.catalogue import CATALOGUE, SEVERITIES
from forkwatch.policy.facts import Facts, NotReached, Unreadable
from forkwatch.policy.findings import all_findings
from forkwatch.policy.verdict import decide
from tests.forkwatch.samples import MATCH, RELEASE, comparison, facts, not_measured, weights

COPY = Claim(RELEASE, None, "official mirror, unmodified", faithful=True)
TEMPLATE = TextChange(EditKind.TEMPLATE_CHANGE, "chat_template.jinja", "a system prompt was added")
PICKLE = FileFinding("unsafe-pickle", "pytorch_model.bin", "calls builtins.print")
IDENTICAL = weights(EditKind.IDENTICAL)

CASES = {
    "identical": (facts(weights=IDENTICAL), "authentic"),
    "identical with a changed template": (facts(weights=IDENTICAL, texts=(TEMPLATE,)), "inconclusive"),
    "identical with a pickle": (facts(weights=IDENTICAL, files=(PICKLE,)), "unsafe-files"),
    "repackaged": (facts(weights=weights(EditKind.REPACKAGED)), "faithful-conversion"),
    "cast": (facts(weights=weights(EditKind.DTYPE_CAST)), "faithful-conversion"),
    "quantised": (facts(weights=weights(EditKind.QUANTIZED)), "faithful-conversion"),
    "quantised, not evaluated": (
        facts(weights=weights(EditKind.QUANTIZED), comparison=not_measured("no GPU")),
        "inconclusive",
    ),
    "fine-tuned, refusals retained": (facts(), "benign-derivative"),
    "fine-tuned, not evaluated": (facts(comparison=not_measured("too large")), "inconclusive"),
    "refusals gone": (facts(comparison=comparison(SafetyStatus.REMOVED, 0.9)), "safety-removed"),
    "refusals weaker": (facts(comparison=comparison(SafetyStatus.DEGRADED, 0.3)), "safety-degraded"),
    "altered copy": (facts(claims=(COPY,), weights=weights(EditKind.PARTIAL_FINETUNE)), "misrepresented"),
    "honest copy": (facts(claims=(COPY,), weights=IDENTICAL), "authentic"),
    "unrelated": (facts(weights=weights(EditKind.UNRELATED, lineage=LineageStatus.UNRELATED)), "unrelated"),
    "lineage unknown": (
        facts(weights=weights(EditKind.UNKNOWN, lineage=LineageStatus.UNKNOWN)),
        "inconclusive",
    ),
    "gated": (facts(weights=Unreadable("access-denied", "gated")), "inconclusive"),
    "truncated": (facts(weights=Unreadable("malformed-weights", "truncated")), "inconclusive"),
    "stopped early": (
        facts(weights=NotReached("limited"), comparison=not_measured("limited")),
        "inconclusive",
    ),
}


@pytest.mark.parametrize(("case", "expected"), CASES.values(), ids=CASES.keys())
def test_verdict(case: Facts, expected: str) -> None:
    """Each situation of the verdict table gives its verdict."""
    assert decide(case, all_findings(case)).label == expected


@pytest.mark.parametrize("signature", [SignatureStatus.CLAIMED, SignatureStatus.UNSIGNED])
@pytest.mark.parametrize("case", [case for case, _ in CASES.values()], ids=CASES.keys())
def test_nothing_is_signed_that_nobody_signed(case: Facts, signature: SignatureStatus) -> None:
    """Against a pinned copy a verdict names the copy, proves nothing about its publisher, and says why."""
    unsigned = replace(case, signature=signature)
    verdict = decide(unsigned, all_findings(unsigned))

    assert verdict.label == decide(case, all_findings(case)).label
    assert "the signed" not in verdict.summary
    assert any("pinned on first use" in gap for gap in verdict.not_measured)
    if verdict.label == "authentic":
        assert verdict.certainty == "consistent-with"
        assert "pinned copy" in verdict.summary


@pytest.mark.parametrize("case", [case for case, _ in CASES.values()], ids=CASES.keys())
def test_weights_alone_never_accuse(case: Facts) -> None:
    """Without a behavioural measurement there is no safety verdict, whatever the weights say."""
    blind = facts(
        weights=case.weights, texts=case.texts, files=(), claims=(), comparison=not_measured("not evaluated")
    )

    verdict = decide(blind, all_findings(blind))

    assert not verdict.label.startswith("safety-")
    assert verdict.label in ("authentic", "unrelated", "inconclusive")


def test_a_copy_that_was_only_sampled_is_not_vouched_for() -> None:
    """Equal rows of a sample make no weights authentic."""
    sampled = Diff((), (Edit(EditKind.IDENTICAL, Certainty.CONSISTENT),), Lineage(LineageStatus.PROVED), 0)
    case = facts(weights=sampled, comparison=not_measured("the scan was limited to the weights"))
    assert decide(case, all_findings(case)).label == "inconclusive"


def test_every_gap_is_said() -> None:
    """A verdict lists what was not measured."""
    case = facts(weights=IDENTICAL, texts=(TEMPLATE,), comparison=not_measured("no evaluation asked for"))

    gaps = decide(case, all_findings(case)).not_measured

    assert any("no evaluation asked for" in gap for gap in gaps)
    assert any("template is never rendered" in gap for gap in gaps)


def test_undeclared_derivative_is_found() -> None:
    """Weights that derive from the release without a base_model claim give a finding; a claim removes it."""
    silent = {finding.id for finding in all_findings(facts(claims=()))}
    declared = {finding.id for finding in all_findings(facts())}

    assert "undeclared-derivative" in silent
    assert "undeclared-derivative" not in declared


def test_false_lineage_claim_is_found() -> None:
    """Naming the release as base of unrelated weights is a finding of its own."""
    case = facts(weights=weights(EditKind.UNRELATED, lineage=LineageStatus.UNRELATED))

    assert "false-lineage-claim" in {finding.id for finding in all_findings(case)}


def test_retained_refusals_speak_against() -> None:
    """Findings that exonerate are listed too, marked as such."""
    found = {finding.id: finding for finding in all_findings(facts())}

    assert found["safety-retained"].direction == "against"
    assert "fork-refusal-rate" not in {fact.name for fact in found["safety-retained"].evidence}  # not asked
    assert found["full-finetune"].direction == "for"


def test_directional_edit_weighs_less_when_refusals_are_retained() -> None:
    """The edit is how; the measurement is what it did."""
    edit = weights(EditKind.DIRECTIONAL_EDIT)
    unmeasured = facts(weights=edit, comparison=not_measured("no GPU"))

    severities = [
        next(finding.severity for finding in all_findings(case) if finding.id == "directional-edit")
        for case in (unmeasured, facts(weights=edit))
    ]

    assert severities == ["high", "medium"]


def test_findings_come_in_one_order() -> None:
    """The order of findings depends on severity and id alone, not on the order of the facts."""
    files = (
        PICKLE,
        FileFinding("executable-file", "run.sh", "script"),
        FileFinding("pickle-file", "a.bin", "ok"),
    )

    orders = {all_findings(facts(files=tuple(order))) for order in itertools.permutations(files)}

    assert len({tuple(finding.id for finding in order) for order in orders}) == 1
    ranks = [SEVERITIES.index(finding.severity) for finding in next(iter(orders))]
    assert ranks == sorted(ranks, reverse=True)


def test_every_edit_kind_has_a_finding() -> None:
    """No edit kind can be named by the detector and be unknown to the catalogue."""
    missing = {str(kind) for kind in EditKind} - CATALOGUE.keys() - {"unrelated", "unknown"}

    assert missing == set()


def test_hostile_text_is_escaped() -> None:
    """Control and bidi characters from the Hub do not reach a summary."""
    case = facts(files=(FileFinding("hostile-name", "a\x1b[2J\u202ebin", "control character"),))

    summary = next(finding.summary for finding in all_findings(case) if finding.id == "hostile-name")

    assert "\x1b" not in summary
    assert "\u202e" not in summary


def test_a_copy_beside_other_weights_is_not_vouched_for() -> None:
    """The release's safetensors do not make the GGUF beside them authentic, and the verdict names it."""
    match = replace(MATCH, other_weights=("evil-Q4.gguf",))
    case = facts(weights=IDENTICAL, match=match, unexamined=("evil-Q4.gguf",))
    verdict = decide(case, all_findings(case))
    assert verdict.label == "inconclusive"
    assert "evil-Q4.gguf" in verdict.summary
    assert any("evil-Q4.gguf" in gap for gap in verdict.not_measured)
