"""A draft that a person may file with a platform. Nothing files it: on the Hub a report is public."""

from __future__ import annotations

import re
from collections.abc import Iterator

from reports.context import Fork
from reports.exports.measured import measurements
from reports.exports.names import hub_url
from reports.numbers import day, point, spread
from reports.routes import release_key
from reports.scan import NumberView, RateView, ScanDocument
from reports.summary import withdrawal
from reports.text import clean
from reports.words import CERTAINTIES, LINEAGE, VERDICTS

_SPECIAL = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~$&:@=])")
"""Of Markdown and its dialects; an address loses its colon and so never becomes a link by itself."""

_FORMS = {"kl-divergence-per-token": "nats", "perplexity-ratio": "times"}


def to_markdown(fork: Fork) -> bytes:
    """The draft, UTF-8."""
    return ("\n".join(_lines(fork, fork.scan())) + "\n").encode("utf-8")


def has_draft(fork: Fork) -> bool:
    """Whether there is something to report: a verdict that asks for attention, and stands."""
    return VERDICTS[fork.row.verdict.label].attention and withdrawal(fork.disputes) is None


def escaped(text: str, limit: int = 400) -> str:
    """Hostile text as text in Markdown: on one line, no markup, no link, no mention."""
    return _SPECIAL.sub(r"\\\1", clean(text, limit))


def _lines(fork: Fork, scan: ScanDocument) -> Iterator[str]:
    yield f"# Draft report: {escaped(scan.repo, 200)}"
    yield ""
    yield "Draft by forkwatch, for a person to check, edit and file. Nothing was sent to anybody."
    yield ""
    yield from _checklist(fork)
    yield from _subject(fork, scan)
    yield from _findings(scan)
    yield from _measured(scan)
    yield "## Not measured"
    yield ""
    yield from (f"- {escaped(gap)}" for gap in scan.verdict.not_measured)
    yield "- What the repository's author intends. A verdict says nothing about a person."
    yield ""
    yield "## Check it yourself"
    yield ""
    if hub_url(scan.repo) is not None:
        yield f"    forkwatch scan {scan.repo} --revision {clean(scan.commit, 64)}"
        yield ""
    yield f"The whole document is `{fork.document}` on the site. No answer of a model is in it."


def _checklist(fork: Fork) -> Iterator[str]:
    yield "Before you file it:"
    yield ""
    yield "- [ ] Look at the repository as it is now: it may have changed or gone since it was examined."
    yield "- [ ] Read the findings against the verdict and what was not measured, below."
    yield "- [ ] Check what the platform's rules say: losing refusals is not by itself against them."
    yield "- [ ] On the Hub, a report opens a discussion that everybody can read. Prefer a private channel."
    if any(dispute.status == "open" for dispute in fork.disputes):
        yield "- [ ] **The verdict is disputed.** Decide the dispute first."
    yield ""


def _subject(fork: Fork, scan: ScanDocument) -> Iterator[str]:
    word, claimed = VERDICTS[scan.verdict.label], scan.lineage.claimed
    certainty = CERTAINTIES[scan.verdict.certainty][0].lower()
    yield "## What it is about"
    yield ""
    yield f"- Repository: {hub_url(scan.repo) or escaped(scan.repo, 200)}"
    yield f"- Commit: {escaped(scan.commit, 64)}, examined on {escaped(day(scan.scanned_at))}"
    yield f"- Compared with: {escaped(release_key(fork.release.view), 300)}"
    yield f"- Verdict: {word.title} ({certainty}), since {escaped(day(fork.since))}"
    yield f"- In a sentence: {escaped(scan.verdict.summary, 600)}"
    yield f"- What that means: {word.meaning}"
    yield f"- Descent, as the repository claims: {escaped(claimed, 200) if claimed else 'nothing is claimed'}"
    yield f"- Descent, by the weights: {LINEAGE[scan.lineage.status]}."
    yield ""


def _findings(scan: ScanDocument) -> Iterator[str]:
    for title, direction in (("Findings for it", "for"), ("Findings against it", "against")):
        yield f"## {title}"
        yield ""
        found = [finding for finding in scan.findings if finding.direction == direction]
        for finding in found:
            severity = f"{finding.severity}, {finding.certainty}"
            yield f"- {escaped(finding.id, 100)} ({severity}): {escaped(finding.summary, 600)}"
        if not found:
            yield "- None."
        yield ""


def _measured(scan: ScanDocument) -> Iterator[str]:
    yield "## Measured"
    yield ""
    for each in measurements(scan.safety):
        if not each.slice:
            yield f"- {each.name}, {each.of}: {_number(each.number, _FORMS.get(each.name, 'percent'))}"
    yield ""


def _number(number: NumberView, form: str) -> str:
    if isinstance(number, RateView):
        return f"{point(number, form)} ({spread(number, form)})".replace("<", "\\<")
    return f"not measured: {escaped(number.unmeasured)}"
