"""What `forkwatch classify` found, as the `forkwatch.classify/1` document and as lines for a person."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from detector.outputs.interface import Attributed, TestResult
from forkwatch.pipeline.classify import Classified
from forkwatch.text import plain
from reports.attribution import CandidateView, ClassifyDocument, TestView

_SHOWN = 5
"""Candidates that a person is shown; JSON has them all."""
_WIDTH = 100
_LABELS = {
    "authentic": "authentic, as far as {n} outputs tell",
    "benign-variant": "the authentic weights, in another format or setting than the plain one",
    "modified-known": "modified: {fork}",
    "modified-unknown": "modified, by nobody that is known",
    "insufficient-evidence": "insufficient evidence",
}


def classify_document(found: Classified) -> ClassifyDocument:
    """The whole of it."""
    said = found.classification
    return ClassifyDocument(
        release=found.release,
        root_digest=found.root_digest or None,
        label=said.label.value,
        safety_removed=said.safety_removed,
        fork=found.fork if said.label == "modified-known" else None,
        explanations=found.explanations if said.label == "benign-variant" else (),
        equality=_tests(said.equality),
        attribution=_tests(said.attribution),
        candidates=tuple(_candidate(one) for one in said.candidates),
        safety=_tests(said.safety),
        n_read=found.n_read,
        n_used=said.n_used,
        temperature=said.temperature,
        alpha=found.alpha,
        sequential=found.calibration_id is not None,
        calibration_id=found.calibration_id,
        caveats=said.caveats,
    )


def lines(document: ClassifyDocument) -> list[str]:
    """The label, the three answers with their numbers, what is missing, and what cannot be known."""
    label = _LABELS[document.label].format(n=document.n_used, fork=document.fork)
    removed = "; refusals are removed" if document.safety_removed else ""
    found = [f"{document.release}: {label}{removed}"]
    questions = {
        "equality": document.equality,
        "attribution": document.attribution,
        "safety": document.safety,
    }
    for question, tests in questions.items():
        found += [f"  {question:12} {_test(one)}" for one in tests] or [f"  {question:12} not tested"]
    found += [f"  candidate    {_shown(one)}" for one in document.candidates[:_SHOWN]]
    since = " since the stream began" if document.sequential else f" of {document.n_read}"
    found.append(f"  used         {document.n_used} outputs{since}, alpha {document.alpha:g}")
    found += [f"  to decide    {text}" for text in _missing(document)]
    lines = [plain(line, 2000) for line in found]
    for caveat in document.caveats:
        lines += textwrap.wrap(plain(caveat, 600), _WIDTH, initial_indent="  - ", subsequent_indent="    ")
    return lines


def _tests(results: Sequence[TestResult]) -> tuple[TestView, ...]:
    return tuple(
        TestView(
            test=one.test,
            decision=one.decision.value,
            n=one.n,
            p_value=one.p_value,
            log_e=one.log_e,
            needed=one.needed,
            reason=one.reason,
        )
        for one in results
    )


def _candidate(one: Attributed) -> CandidateView:
    return CandidateView(fork=one.fork, log_e=one.log_e, detail=one.detail)


def _test(one: TestView) -> str:
    if one.p_value is not None:
        number = f", p = {one.p_value:.2g}"
    else:
        number = "" if one.log_e is None else f", log e = {one.log_e:.1f}"
    return f"{one.test}: {one.decision} (n = {one.n}{number}): {one.reason}"


def _shown(one: CandidateView) -> str:
    return one.fork + ("" if one.log_e is None else f", log e = {one.log_e:.1f}") + f": {one.detail}"


def _missing(document: ClassifyDocument) -> list[str]:
    tests = (*document.equality, *document.attribution, *document.safety)
    return [
        f"about {one.needed - one.n} more outputs for {one.test}, at this rate"
        for one in tests
        if one.needed is not None and one.needed > one.n
    ]
