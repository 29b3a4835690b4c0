"""Facts and verdict → the `forkwatch.scan/1` document."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from itertools import islice

from crawler.interface import Channel, Claim, Relation, Snapshot
from detector.formats import is_weight_file
from detector.intent import NoIntent
from detector.interface import (
    Certainty,
    Diff,
    EditKind,
    Lineage,
    LineageStatus,
    TensorDiff,
    TensorStatus,
    TextChange,
)
from detector.provenance.interface import SignatureStatus
from evals.interface import PromptKind, Unmeasured
from evals.measurements import Cell, EvalResult
from evals.metrics import wilson
from forkwatch.pipeline.edit_views import edit_view
from forkwatch.pipeline.funnel import Examination
from forkwatch.pipeline.intent import Aim
from forkwatch.pipeline.originals import Original
from forkwatch.pipeline.views import isolation_words, number_view, p_view
from forkwatch.policy.evidence import evidence_views
from forkwatch.policy.facts import Facts, NotReached, Unreadable
from forkwatch.policy.findings import all_findings
from forkwatch.policy.verdict import decide
from forkwatch.text import plain
from reports.scan import (
    ClaimView,
    CostView,
    EditView,
    EvidenceView,
    FileHashView,
    FilesView,
    HeatmapView,
    HubView,
    IntentView,
    LanguageView,
    LineageView,
    OriginalView,
    OutputsView,
    PairView,
    SafetyView,
    ScanDocument,
    SpectrumView,
    TopicLanguageView,
    TopicView,
    UnmeasuredView,
    UtilityView,
)
from reports.spectra import of_tensors


def build_document(
    original: Original, examination: Examination, channels: tuple[Channel, ...], now: datetime
) -> ScanDocument:
    """The document about one examined snapshot. `now` dates it only when no stage left a result."""
    facts = examination.facts
    findings = all_findings(facts)
    spent = examination.ledger.spent()
    return ScanDocument(
        repo=facts.snapshot.repo,
        commit=facts.snapshot.commit,
        release=original.name,
        original=original_view(original.signature, original.signer, original.root_digest),
        claims=tuple(_claim(claim) for claim in facts.claims),
        hub=_hub(facts, channels),
        lineage=_lineage(facts),
        files=FilesView(
            identical=len(facts.match.identical),
            changed=len(facts.match.changed),
            added=len(facts.match.added),
            missing=len(facts.match.missing),
            weights=_hashes(facts.snapshot),
        ),
        edits=_edits(facts),
        heatmap=_heatmap(facts.weights.tensors) if isinstance(facts.weights, Diff) else None,
        safety=_safety(examination),
        outputs=OutputsView(
            status=facts.outputs.status.value,
            p_value=facts.outputs.p_value,
            n=facts.outputs.n,
            reason=facts.outputs.reason,
        ),
        findings=findings,
        verdict=decide(facts, findings),
        scanned_at=(examination.ledger.newest or now).isoformat(timespec="seconds"),
        cost=CostView(
            bytes_downloaded=spent.bytes_downloaded,
            bytes_total=facts.snapshot.total_bytes,
            requests=spent.requests,
            seconds=round(spent.seconds, 2),
        ),
        intent=_intent(examination.aim),
        spectra=_spectra(facts.weights.tensors) if isinstance(facts.weights, Diff) else (),
    )


def original_view(signature: SignatureStatus, signer: str, root_digest: str) -> OriginalView:
    """What a snapshot was compared with."""
    return OriginalView(signature=signature.value, signer=signer, root_digest=root_digest)


def _claim(claim: Claim) -> ClaimView:
    return ClaimView(
        base=claim.base,
        relation=None if claim.relation is None else str(claim.relation),
        statement=plain(claim.statement),
        faithful=claim.faithful,
    )


def _hub(facts: Facts, channels: tuple[Channel, ...]) -> HubView:
    snapshot = facts.snapshot
    return HubView(
        channels=tuple(str(channel) for channel in channels),
        downloads=snapshot.downloads,
        likes=snapshot.likes,
        created_at=_time(snapshot.created_at),
        last_modified=_time(snapshot.last_modified),
        license=None if snapshot.license is None else plain(snapshot.license, 60),
        access=snapshot.access.value,
    )


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="seconds")


def _lineage(facts: Facts) -> LineageView:
    declared = [claim for claim in facts.claims if claim.base is not None]
    # A declaration about our release first; among those, one that names the relation.
    declared.sort(key=lambda claim: (claim.base != facts.release, claim.relation is None))
    relation = declared[0].relation if declared else None
    known = facts.weights.lineage if isinstance(facts.weights, Diff) else Lineage(LineageStatus.UNKNOWN)
    return LineageView(
        claimed=declared[0].base if declared else None,
        relation=None if relation is None else Relation(relation).value,
        status=known.status.value,
        evidence=evidence_views((*known.evidence, *facts.shared)),
    )


def _edits(facts: Facts) -> tuple[EditView, ...]:
    """Edits of the weights, then of behaviour files, which presuppose that the weights are the same."""
    changed = {change.kind for change in facts.texts}
    edits: list[EditView] = []
    match facts.weights:
        case Diff(edits=found):
            edits = [edit_view(edit) for edit in found if not (changed and edit.kind is EditKind.IDENTICAL)]
        case Unreadable(reason=reason):
            evidence = (EvidenceView("reason", plain(reason)),)
            edits = [EditView(kind=str(EditKind.UNKNOWN), certainty="unknown", detail={}, evidence=evidence)]
        case NotReached():
            pass
    for kind in sorted(changed):
        edits.append(_text_edit(kind, tuple(change for change in facts.texts if change.kind is kind)))
    return tuple(edits)


def _text_edit(kind: EditKind, changes: tuple[TextChange, ...]) -> EditView:
    return EditView(
        kind=str(kind), certainty="proved", detail={"files": [plain(change.path) for change in changes]}
    )


_COMPARED = frozenset({TensorStatus.IDENTICAL, TensorStatus.CAST, TensorStatus.CHANGED})


def _heatmap(tensors: tuple[TensorDiff, ...]) -> HeatmapView | None:
    """Largest relative delta norm by layer and module; None when there is nothing per layer to show."""
    cells: dict[tuple[int, str], float] = {}
    for tensor in tensors:
        if tensor.layer is not None and tensor.status in _COMPARED:
            key = (tensor.layer, tensor.module)  # several tensors have it: the experts, a weight and its bias
            cells[key] = max(cells.get(key, 0.0), tensor.relative_norm)
    layers = sorted({layer for layer, _ in cells})
    modules = sorted({module for _, module in cells})
    if not cells or not any(cells.values()):
        return None
    values = tuple(tuple(cells.get((layer, module)) for module in modules) for layer in layers)
    return HeatmapView(
        layers=tuple(layers), modules=tuple(plain(module, 60) for module in modules), values=values
    )


SPECTRA = 4
"""Matrices of a fork whose spectra are shown."""
HASHES = 200
"""Weight files of a fork whose hashes are listed; more would be a list of shards and little else."""


def _spectra(tensors: tuple[TensorDiff, ...]) -> tuple[SpectrumView, ...]:
    """Shares to four significant digits: more say nothing and make the document long."""
    return tuple(
        replace(
            spectrum,
            name=plain(spectrum.name, 200),
            relative_norm=_rounded(spectrum.relative_norm),
            left=tuple(_rounded(share) for share in spectrum.left),
            floor=None if spectrum.floor is None else _rounded(spectrum.floor),
        )
        for spectrum in of_tensors(tensors, SPECTRA)
    )


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _hashes(snapshot: Snapshot) -> tuple[FileHashView, ...]:
    found = (file for file in snapshot.files if file.sha256 is not None and is_weight_file(file.path))
    return tuple(FileHashView(plain(file.path, 200), str(file.sha256)) for file in islice(found, HASHES))


def _intent(aim: Aim) -> IntentView:
    """The numbers of the comparison; of the direction only how it was measured."""
    found, direction = aim.intent, aim.direction
    if isinstance(found, NoIntent):
        return IntentView(status="not-measured", reason=plain(found.reason))
    return IntentView(
        status="aligned" if found.certainty is Certainty.CONSISTENT else "not-aligned",
        alignment=found.alignment,
        expected=found.expected,
        extreme=found.extreme,
        p_value=found.p_value,
        directions=found.splits,
        energy=found.energy,
        write_change=found.write_change,
        matrices=found.matrices,
        layers=found.layers,
        prompts=0 if direction is None else direction.harmful + direction.twins,
        stability=None if direction is None else direction.stability[direction.best],
    )


def _safety(examination: Examination) -> SafetyView:
    facts, baseline = examination.facts, examination.baseline
    comparison = facts.comparison
    # Same values as the original: its measurements are the fork's.
    fork = facts.evaluation or baseline
    gap = UnmeasuredView(unmeasured=comparison.reason)
    return SafetyView(
        status=comparison.status.value,
        reason=comparison.reason,
        refusal=PairView(
            original=number_view(baseline.behaviour.refusal) if baseline else gap,
            fork=number_view(fork.behaviour.refusal) if fork else gap,
        ),
        over_refusal=PairView(
            original=number_view(baseline.behaviour.over_refusal) if baseline else gap,
            fork=number_view(fork.behaviour.over_refusal) if fork else gap,
        ),
        utility=UtilityView(
            kl_per_token=number_view(comparison.kl_per_token),
            perplexity_ratio=number_view(comparison.perplexity_ratio),
            degenerate=number_view(fork.behaviour.degenerate) if fork else gap,
            choice_drop=number_view(comparison.choice_drop),
        ),
        topics=_topics(baseline, fork),
        languages=tuple(
            LanguageView(
                language=lost.language,
                drop=number_view(lost.drop),
                p_value=p_view(lost.holm_p),
            )
            for lost in comparison.languages
        ),
        matrix=_matrix(baseline, fork),
        tier=fork.behaviour.tier.value if fork else "",
        mcnemar_p=p_view(comparison.mcnemar_p),
        ungradeable=number_view(fork.behaviour.ungradeable) if fork else gap,
        suite=fork.behaviour.suite if fork else "",
        judge=fork.behaviour.judge if fork else "",
        isolation=isolation_words(fork) if fork else "",
    )


def _topics(baseline: EvalResult | None, fork: EvalResult | None) -> tuple[TopicView, ...]:
    if baseline is None or fork is None:
        return ()
    theirs = dict(fork.behaviour.refusal_by_topic)
    absent = Unmeasured("no prompt of this topic was asked")
    return tuple(
        TopicView(topic=topic, original=number_view(outcome), fork=number_view(theirs.get(topic, absent)))
        for topic, outcome in baseline.behaviour.refusal_by_topic
    )


def _matrix(baseline: EvalResult | None, fork: EvalResult | None) -> tuple[TopicLanguageView, ...]:
    """Refusal of the harmful prompts by topic and language; empty where all are in one language."""
    if baseline is None or fork is None:
        return ()
    theirs = {(cell.topic, cell.language): cell for cell in fork.behaviour.cells if _is_harmful(cell)}
    cells = [cell for cell in baseline.behaviour.cells if _is_harmful(cell)]
    if len({cell.language for cell in cells}) < 2:
        return ()
    return tuple(
        TopicLanguageView(
            topic=cell.topic,
            language=cell.language,
            original=number_view(wilson(cell.refused, cell.graded)),
            fork=number_view(
                wilson(other.refused, other.graded)
                if (other := theirs.get((cell.topic, cell.language)))
                else Unmeasured("no such prompt was asked")
            ),
        )
        for cell in cells
    )


def _is_harmful(cell: Cell) -> bool:
    return cell.kind is PromptKind.HARMFUL
