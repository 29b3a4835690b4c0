"""A realistic view to render: a signed release, seventeen forks with every verdict, two gaps, three weeks.

`lived` adds what became of the forks: events, downloads, a deleted, a renamed, a replaced one, a tree.
"""

from __future__ import annotations

from dataclasses import replace

from reports.interface import (
    DisputeView,
    FindingDoc,
    ForkHistory,
    Gap,
    HistoryEvent,
    MetricPoint,
    ReleaseView,
    ReplacedFork,
    SiteView,
    VerdictChange,
)
from reports.scan import (
    VerdictView,
)
from reports.tree import LabelCount, TreeDocument, TreeEdge, TreeNode, TreeVerdict
from tests.reports.sample_forks import FORKS, RELEASE, Fork
from tests.reports.sample_scans import ORIGINAL, RELEASE_COMMIT, commit, scan

WEEK = "2026-W47"

FINDING_TEXT = """# {title}

| | |
|---|---|
| Severity | {severity} |
| Established by | comparing weights |

What it means, in two sentences. See [how a directional edit looks](directional-edit.md).

## What else could explain it

A benign edit of the same shape. Read the [survey](https://example.org/survey).

## What to do

Ask for a behavioural measurement before acting:

    forkwatch scan org/name --depth eval
"""


def finding_doc(finding_id: str, severity: str) -> FindingDoc:
    """A reference page."""
    title = finding_id.replace("-", " ").capitalize()
    text = FINDING_TEXT.format(title=title, severity=severity)
    return FindingDoc(id=finding_id, title=title, severity=severity, markdown=text)


def view(*extra: Fork) -> SiteView:
    """The sample, with more forks if asked."""
    forks = (*FORKS, *extra)
    scans = tuple(scan(fork, seed) for seed, fork in enumerate(forks, 1))
    changes = [
        VerdictChange(
            repo=fork.name, commit=commit(seed), at=scans[seed - 1].scanned_at, before=None, after=fork.label
        )
        for seed, fork in enumerate(forks, 1)
        if fork.name != "rp/smollm2-roleplay"
    ]
    changes += [
        VerdictChange(
            repo="rp/smollm2-roleplay",
            commit=commit(90),
            at="2026-11-05T09:00:00Z",
            before=None,
            after="benign-derivative",
        ),
        VerdictChange(
            repo="rp/smollm2-roleplay",
            commit=commit(11),
            at="2026-11-19T09:00:00Z",
            before="benign-derivative",
            after="safety-degraded",
        ),
        VerdictChange(
            repo="vanished/smollm2-guarded-x",
            commit=commit(91),
            at="2026-11-06T09:00:00Z",
            before=None,
            after="benign-derivative",
        ),
    ]
    release = ReleaseView(
        repo=RELEASE,
        commit=RELEASE_COMMIT,
        original=ORIGINAL,
        license="apache-2.0",
        scans=scans,
        changes=tuple(sorted(changes, key=lambda change: change.at)),
        gaps=(
            Gap(repo="locked/smollm2-guarded-gated", reason="gated: its files cannot be read without access"),
            Gap(repo="vanished/smollm2-guarded-x", reason="the repository no longer exists"),
        ),
    )
    ids = {found.id: found.severity for document in scans for found in document.findings}
    return SiteView(
        generated_at="2026-11-20T14:10:00Z",
        version="0.1.0",
        releases=(release,),
        findings=tuple(finding_doc(finding_id, severity) for finding_id, severity in sorted(ids.items())),
        contact="forks@example.org",
    )


def with_releases(*releases: ReleaseView) -> SiteView:
    """The sample with other releases."""
    return replace(view(), releases=releases)


DISPUTED = "freeform/smollm2-unlocked-delta"
WITHDRAWN = "official-mirror/smollm2-135m-guarded"
GATED = "broken/smollm2-guarded-v2"
"""Could be read when it was scanned; its files need access now."""
DELETED = "abl/smollm2-directional"
RENAMED = "poet/smollm2-guarded-haiku"
TAKEN = "rp/smollm2-roleplay"
"""Its name had another repository before."""
QUANT = "quants/directional-GGUF"
"""Not examined; it claims to be a quantisation of the deleted one."""


def lived(*extra: Fork) -> SiteView:
    """The sample with a past."""
    sample = view(*extra)
    (release,) = sample.releases
    histories = tuple(history(scan.repo) for scan in release.scans)
    former = replace(
        next(scan for scan in release.scans if scan.repo == TAKEN),
        commit=commit(95),
        verdict=VerdictView(label="authentic", certainty="proved", summary="The former one was authentic."),
    )
    replaced = ReplacedFork(
        identity="6500000000000000000000aa",
        scan=former,
        changes=(
            VerdictChange(
                repo=TAKEN, commit=former.commit, at="2026-10-01T08:00:00Z", before=None, after="authentic"
            ),
        ),
        history=ForkHistory(
            repo=TAKEN,
            first_seen="2026-10-01T08:00:00Z",
            gone_at="2026-11-02T08:00:00Z",
            events=(
                HistoryEvent(at="2026-11-02T08:00:00Z", kind="re-registered", before="65aa", after="65bb"),
            ),
        ),
    )
    scans = tuple(
        replace(scan, hub=replace(scan.hub, access="gated")) if scan.repo == GATED else scan
        for scan in release.scans
    )
    grown = replace(
        release,
        scans=scans,
        histories=histories,
        replaced=(replaced,),
        tree=tree(release),
        pinned_at="2026-10-20T08:00:00Z",
        disputes=disputes(release),
    )
    return replace(sample, releases=(grown,))


def disputes(release: ReleaseView) -> tuple[DisputeView, ...]:
    """One that is open, one that was decided before, one that took a verdict back."""
    commits = {scan.repo: scan.commit for scan in release.scans}
    opened = DisputeView(
        id="D-1",
        repo=DISPUTED,
        commit=commits[DISPUTED],
        opened_at="2026-11-10T08:00:00Z",
        by="The author",
        statement="It was only merged with a style adapter.",
        status="upheld",
        decided_at="2026-11-12T08:00:00Z",
        decision="Measured again with another seed: the same result.",
        label="safety-removed",
    )
    return (
        opened,
        replace(
            opened, id="D-2", opened_at="2026-11-19T08:00:00Z", status="open", decided_at=None, decision=""
        ),
        replace(
            opened,
            id="D-3",
            repo=WITHDRAWN,
            commit=commits[WITHDRAWN],
            status="withdrawn",
            label="misrepresented",
            decision="The card was quoted wrongly by us.",
        ),
    )


def history(repo: str) -> ForkHistory:
    """What became of one fork."""
    seen = ForkHistory(repo=repo, first_seen="2026-11-01T08:00:00Z")
    if repo == DELETED:
        at = "2026-11-19T06:00:00Z"
        deleted = HistoryEvent(at=at, kind="deleted", before=commit(3), after="")
        return replace(seen, gone_at=at, events=(deleted,))
    if repo == RENAMED:
        points = ((2, 10), (5, 40), (9, 35), (17, 1200))
        return replace(
            seen,
            events=(
                HistoryEvent(at="2026-11-03T08:00:00Z", kind="renamed", before="poet/old-name", after=repo),
                HistoryEvent(at="2026-11-04T08:00:00Z", kind="new-commit", before=commit(1), after=commit(2)),
            ),
            samples=tuple(
                MetricPoint(at=f"2026-11-{day:02d}T08:00:00Z", downloads=count, likes=day)
                for day, count in points
            ),
        )
    return seen


def tree(release: ReleaseView) -> TreeDocument:
    """The family: everybody claims the release, one quantisation claims the deleted fork."""
    nodes = [TreeNode(repo=release.repo, role="release")]
    edges = []
    for document in release.scans:
        verdict = TreeVerdict(label=document.verdict.label, certainty=document.verdict.certainty)
        nodes.append(TreeNode(repo=document.repo, role="fork", channels=("declared",), verdict=verdict))
        if document.lineage.claimed == release.repo:
            edges.append(
                TreeEdge(
                    child=document.repo, base=release.repo, kind="claimed", relation=document.lineage.relation
                )
            )
        if document.lineage.status == "proved":
            edges.append(TreeEdge(child=document.repo, base=release.repo, kind="proved"))
    inferred = TreeVerdict(label="safety-removed", certainty="inferred", inferred_from=DELETED)
    nodes.append(TreeNode(repo=QUANT, role="fork", channels=("declared",), verdict=inferred))
    edges.append(
        TreeEdge(
            child=QUANT,
            base=DELETED,
            kind="claimed",
            relation="quantized",
            statement=f"base_model: {DELETED}",
        )
    )
    return TreeDocument(
        release=f"{release.repo}@{release.commit}",
        nodes=tuple(nodes),
        edges=tuple(edges),
        verdicts=(),
        inferred=(LabelCount(label="safety-removed", count=1),),
    )
