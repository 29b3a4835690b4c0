"""Everything the stages found out about one snapshot: the input of the policy."""

from __future__ import annotations

from dataclasses import dataclass

from crawler.interface import Claim, RepoId, Snapshot
from detector.interface import Diff, EditKind, Evidence, FileFinding, FileMatch, OutputTest, TextChange
from detector.provenance.interface import SignatureStatus
from evals.measurements import Comparison, EvalResult


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The weights could not be examined, and the finding that says why."""

    finding: str
    """`malformed-weights`, `no-weights` or `access-denied`."""
    reason: str


@dataclass(frozen=True, slots=True)
class NotReached:
    """A stage that was not run because the scan was asked to stop before it."""

    reason: str


WeightFacts = Diff | Unreadable | NotReached


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One snapshot against one release."""

    release: RepoId
    signature: SignatureStatus
    """Of the release; unless it is VERIFIED, nothing says that the copy is its publisher's."""
    release_license: str | None
    snapshot: Snapshot
    claims: tuple[Claim, ...]
    match: FileMatch
    files: tuple[FileFinding, ...]
    texts: tuple[TextChange, ...]
    weights: WeightFacts
    evaluation: EvalResult | None
    comparison: Comparison
    outputs: OutputTest
    shared: tuple[Evidence, ...] = ()
    """What the Hub's storage proves of changed weight files, if that was asked for."""
    unexamined: tuple[str, ...] = ()
    """Weight files that are not the release's and were not looked into: one checkpoint is, of several."""

    @property
    def copy(self) -> str:
        """What was compared with: the signed release, or a copy of it of which nobody says whose it is."""
        if self.signature is SignatureStatus.VERIFIED:
            return f"the signed {self.release}"
        return f"the pinned copy of {self.release}"

    @property
    def edit_kinds(self) -> frozenset[EditKind]:
        """Kinds of all edits, of weights and of behaviour files."""
        weights = {edit.kind for edit in self.weights.edits} if isinstance(self.weights, Diff) else set()
        return frozenset(weights | {change.kind for change in self.texts})

    @property
    def claims_base(self) -> bool:
        """The card or the metadata name the release as what this derives from."""
        return any(claim.base == self.release for claim in self.claims)

    @property
    def claims_copy(self) -> Claim | None:
        """The statement by which it claims to be the release, if it makes one."""
        return next((claim for claim in self.claims if claim.faithful and self._is_meant(claim)), None)

    def _is_meant(self, claim: Claim) -> bool:
        """Whether it speaks of this release, and not of the fork's own official model."""
        if claim.base is not None:
            return claim.base == self.release
        if _letters(self.release.partition("/")[2]) in _letters(claim.statement):
            return True
        return self.claims_base and "official" not in claim.statement.lower()


def _letters(text: str) -> str:
    return "".join(char for char in text.lower() if char.isalnum())
