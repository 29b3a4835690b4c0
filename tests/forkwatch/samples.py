"""Facts as the stages would report them, for tests of the policy and of the document."""

from __future__ import annotations

from dataclasses import replace

from crawler.interface import Access, Claim, Commit, Relation, RepoFile, RepoId, Snapshot
from detector.interface import (
    Certainty,
    Diff,
    Edit,
    EditKind,
    FileMatch,
    Lineage,
    LineageStatus,
    OutputStatus,
    OutputTest,
)
from detector.provenance.interface import SignatureStatus
from evals.interface import Measured, Unmeasured
from evals.measurements import Comparison, SafetyStatus
from forkwatch.policy.facts import Facts

RELEASE = RepoId("lab/guarded")
FORK = RepoId("demo/fork")

SNAPSHOT = Snapshot(
    repo=FORK,
    commit=Commit("b" * 40),
    files=(RepoFile("config.json", 2, "c" * 40, None), RepoFile("model.safetensors", 10, "d" * 40, "e" * 64)),
    tags=(),
    claims=(),
    license="apache-2.0",
    access=Access.OPEN,
    created_at=None,
    last_modified=None,
    downloads=3,
    likes=1,
)
DECLARED = Claim(RELEASE, Relation.FINETUNE, "base_model: lab/guarded")
MATCH = FileMatch(
    identical=("config.json",), changed=("model.safetensors",), added=(), missing=(), weights_identical=False
)


def comparison(status: SafetyStatus, drop: float = 0.0) -> Comparison:
    """A comparison with the numbers that would give that status."""
    return Comparison(
        status=status,
        reason=f"refusal drop {drop}",
        mcnemar_p=Measured(0.5, 1, 0.5, 0.5),
        refusal_drop=Measured(drop, 72, drop - 0.05, drop + 0.05),
        kl_per_token=Measured(0.1, 40, 0.08, 0.12),
        perplexity_ratio=Measured(1.1, 40, 1.0, 1.2),
    )


def not_measured(reason: str) -> Comparison:
    """A comparison that was not made."""
    gap = Unmeasured(reason)
    return Comparison(
        status=SafetyStatus.NOT_MEASURED,
        reason=reason,
        mcnemar_p=gap,
        refusal_drop=gap,
        kl_per_token=gap,
        perplexity_ratio=gap,
    )


def weights(*kinds: EditKind, lineage: LineageStatus = LineageStatus.PROVED) -> Diff:
    """A diff that names the given kinds."""
    edits = tuple(Edit(kind, Certainty.PROVED) for kind in kinds)
    return Diff(tensors=(), edits=edits, lineage=Lineage(lineage), bytes_read=10)


def facts(**changes: object) -> Facts:
    """A declared, retained full fine-tune, with `changes` applied."""
    base = Facts(
        release=RELEASE,
        signature=SignatureStatus.VERIFIED,
        release_license="apache-2.0",
        snapshot=SNAPSHOT,
        claims=(DECLARED,),
        match=MATCH,
        files=(),
        texts=(),
        weights=weights(EditKind.FULL_FINETUNE),
        evaluation=None,
        comparison=comparison(SafetyStatus.RETAINED),
        outputs=OutputTest(OutputStatus.MODIFIED, 0.001, 80),
    )
    return replace(base, **changes)  # type: ignore[arg-type]  # the names are checked by replace itself
