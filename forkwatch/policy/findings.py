"""Facts → findings. One small function a theme; each yields what it has evidence for, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from detector.interface import (
    Certainty,
    Diff,
    Edit,
    EditKind,
    FileFinding,
    LineageStatus,
    OutputStatus,
)
from detector.labels import LABELLED
from evals.interface import Measured, Outcome
from evals.measurements import SafetyStatus
from forkwatch.policy.catalogue import CATALOGUE, SEVERITIES
from forkwatch.policy.evidence import evidence_views
from forkwatch.policy.facts import Facts, Unreadable
from forkwatch.policy.licence import licence_differs
from forkwatch.policy.lookalike import imitation
from forkwatch.text import plain
from reports.scan import CertaintyName, EvidenceView, FindingView, Severity

_FAITHFUL = frozenset({EditKind.IDENTICAL, EditKind.REPACKAGED, EditKind.UNKNOWN})
_HARMLESS_EDITS = frozenset(
    {EditKind.IDENTICAL, EditKind.REPACKAGED, EditKind.DTYPE_CAST, EditKind.QUANTIZED}
)


def all_findings(facts: Facts) -> tuple[FindingView, ...]:
    """Every finding about a snapshot, the most severe first, then by id."""
    found = [
        *_file_findings(facts),
        *_claim_findings(facts),
        *_name_findings(facts),
        *_safety_findings(facts),
        *_edit_findings(facts),
        *_text_findings(facts),
        *_output_findings(facts),
    ]
    return tuple(
        sorted(found, key=lambda finding: (-SEVERITIES.index(finding.severity), finding.id, finding.summary))
    )


def make_finding(  # noqa: PLR0913 - keyword-only fields of one value
    identifier: str,
    *,
    certainty: CertaintyName,
    summary: str,
    evidence: tuple[EvidenceView, ...] = (),
    direction: Literal["for", "against"] = "for",
    severity: Severity | None = None,
) -> FindingView:
    """A finding with its catalogue entry filled in."""
    spec = CATALOGUE[identifier]
    return FindingView(
        id=identifier,
        severity=severity or spec.severity,
        certainty=certainty,
        direction=direction,
        summary=summary,
        evidence=evidence,
        tip=spec.remedy,
        url=f"findings/{identifier}.html",
    )


def _file_findings(facts: Facts) -> Iterator[FindingView]:
    for file in facts.files:
        path = EvidenceView("path", plain(file.path))
        labels = (*evidence_views(file.labels), *_hub_label(facts, file))
        yield make_finding(
            file.id,
            certainty="unknown" if file.id == "unread-pickle" else "proved",
            summary=f"{plain(file.path)}: {plain(file.note)}",
            evidence=(path, *labels),
        )
    if isinstance(facts.weights, Unreadable):
        yield make_finding(facts.weights.finding, certainty="proved", summary=plain(facts.weights.reason))


def _hub_label(facts: Facts, file: FileFinding) -> Iterator[EvidenceView]:
    """What the Hub's own scanners say of a pickle, as a label; ours decides."""
    told = facts.snapshot.hub_scan.of(file.path)
    if file.id in LABELLED and told:
        yield EvidenceView("hub-scan", told, "as the Hub reports its own scanners; it does not decide")


def _claim_findings(facts: Facts) -> Iterator[FindingView]:
    diff = facts.weights
    if not isinstance(diff, Diff):
        return
    copy = facts.claims_copy
    altered = sorted(facts.edit_kinds - _FAITHFUL)
    if copy is not None and altered:
        yield make_finding(
            "false-copy-claim",
            certainty="proved" if not facts.match.weights_identical else "consistent-with",
            summary=f"The card says “{plain(copy.statement, 120)}”, but the files show {', '.join(altered)}.",
            evidence=(
                EvidenceView("claim", plain(copy.statement)),
                EvidenceView("edits", ", ".join(altered)),
            ),
        )
    related = diff.lineage.status in (LineageStatus.PROVED, LineageStatus.CONSISTENT)
    evidence = evidence_views(diff.lineage.evidence)
    if diff.lineage.status is LineageStatus.UNRELATED and facts.claims_base:
        summary = f"The card names {facts.release} as its base; the weights do not derive from it."
        yield make_finding(
            "false-lineage-claim", certainty="consistent-with", summary=summary, evidence=evidence
        )
    if related and not any(claim.base == facts.release and claim.relation for claim in facts.claims):
        summary = f"The weights derive from {facts.release}; the card declares no such base_model."
        certainty: CertaintyName = (
            "proved" if diff.lineage.status is LineageStatus.PROVED else "consistent-with"
        )
        yield make_finding("undeclared-derivative", certainty=certainty, summary=summary, evidence=evidence)
    licence, own = facts.snapshot.license, facts.release_license
    if related and licence_differs(licence, own):
        summary = f"The card states {plain(licence or '', 60)}; the release is under {plain(own or '', 60)}."
        yield make_finding("license-change", certainty="proved", summary=summary)


def _name_findings(facts: Facts) -> Iterator[FindingView]:
    """The name alone accuses nobody: it is consistent with a mistake, and weighs with the weights."""
    if reason := imitation(facts.snapshot.repo, facts.release):
        yield make_finding(
            "look-alike-name",
            certainty="consistent-with",
            summary=f"{facts.snapshot.repo}: {reason}.",
            evidence=(EvidenceView("release", facts.release),),
        )


def _safety_findings(facts: Facts) -> Iterator[FindingView]:
    comparison = facts.comparison
    if comparison.status is SafetyStatus.NOT_MEASURED:
        return
    outcomes = [("refusal-drop", comparison.refusal_drop), ("mcnemar-p", comparison.mcnemar_p)]
    if facts.evaluation is not None:  # else the weights are the original's, and only that was established
        outcomes.append(("fork-refusal-rate", facts.evaluation.behaviour.refusal))
    evidence = tuple(view for name, outcome in outcomes for view in _measured(name, outcome))
    yield make_finding(
        f"safety-{comparison.status}",
        certainty="consistent-with",
        summary=comparison.reason,
        evidence=evidence,
        direction="against" if comparison.status is SafetyStatus.RETAINED else "for",
    )


def _measured(name: str, outcome: Outcome) -> Iterator[EvidenceView]:
    if isinstance(outcome, Measured):
        interval = (
            f", 95 % interval {outcome.low:.1%} to {outcome.high:.1%}" if outcome.low < outcome.high else ""
        )
        note = f"n = {outcome.n}{interval}"
        yield EvidenceView(name, outcome.value, note)


def _edit_findings(facts: Facts) -> Iterator[FindingView]:
    if not isinstance(facts.weights, Diff):
        return
    retained = facts.comparison.status is SafetyStatus.RETAINED
    for edit in facts.weights.edits:
        if edit.kind is EditKind.UNRELATED:
            continue
        identifier = _finding_id(edit)
        severity: Severity | None = None
        if edit.kind is EditKind.DIRECTIONAL_EDIT and retained:
            severity = "medium"
        yield make_finding(
            identifier,
            certainty=_certainty(edit.certainty),
            summary=describe_edit(edit),
            evidence=evidence_views(edit.evidence),
            direction="against" if edit.kind in _HARMLESS_EDITS else "for",
            severity=severity,
        )


def _finding_id(edit: Edit) -> str:
    return "unknown-edit" if edit.kind is EditKind.UNKNOWN else str(edit.kind)


def edit_severity(edit: Edit) -> Severity | None:
    """How severe the finding about an edit is, taken by itself; None where it speaks for nobody's concern."""
    if edit.kind is EditKind.UNRELATED or edit.kind in _HARMLESS_EDITS:
        return None
    return CATALOGUE[_finding_id(edit)].severity


def _text_findings(facts: Facts) -> Iterator[FindingView]:
    for change in facts.texts:
        yield make_finding(
            str(change.kind), certainty="proved", summary=f"{plain(change.path)}: {plain(change.summary)}"
        )


def _output_findings(facts: Facts) -> Iterator[FindingView]:
    outputs = facts.outputs
    if outputs.status is OutputStatus.NOT_MEASURED or outputs.p_value is None:
        return
    modified = outputs.status is OutputStatus.MODIFIED
    yield make_finding(
        "outputs-modified" if modified else "outputs-authentic",
        certainty="consistent-with",
        summary=f"Two-sample permutation test on {outputs.n} answers to harmless prompts: "
        f"p = {outputs.p_value:.3g}.",
        evidence=(EvidenceView("p-value", outputs.p_value), EvidenceView("n", outputs.n)),
        direction="for" if modified else "against",
    )


def _certainty(certainty: Certainty) -> CertaintyName:
    match certainty:
        case Certainty.PROVED:
            return "proved"
        case Certainty.CONSISTENT:
            return "consistent-with"
        case Certainty.UNKNOWN:
            return "unknown"


def describe_edit(edit: Edit) -> str:
    """An edit in one sentence."""
    detail = edit.detail
    parts = []
    if detail.scheme:
        parts.append(f"as {plain(detail.scheme, 40)}")
    if detail.rank is not None:
        parts.append(f"rank {detail.rank}")
    if detail.strength is not None:
        parts.append(f"strength {detail.strength:.2f}")
    if detail.modules:
        shown = ", ".join(plain(module, 40) for module in detail.modules[:8])
        parts.append(f"in {shown}")
    if detail.layers is not None:
        first, last = detail.layers
        parts.append(f"layer {first}" if first == last else f"layers {first} to {last}")
    if detail.parents:
        shown = ", ".join(plain(parent.name, 100) for parent in detail.parents[:4])
        parts.append(f"with {shown}")
    title = CATALOGUE[_finding_id(edit)].title
    return f"{title}: {', '.join(parts)}." if parts else f"{title}."
