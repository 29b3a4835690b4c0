"""`forkwatch.lineage/1`: where one model stands among all that are known."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from detector.index.fingerprint import Fingerprint
from detector.index.search import FOUND_LOG10_P, Relation, Search, search_index
from detector.index.table import open_table
from detector.interface import LineageStatus
from forkwatch.errors import NothingToExamineError
from forkwatch.pipeline.context import Context
from forkwatch.pipeline.known import fingerprint_of, keep_releases, open_target

SCHEMA = "forkwatch.lineage/1"


@dataclass(frozen=True, slots=True)
class ClaimedBase:
    """A base that the card names, and what the weights say about it."""

    repo: str
    standing: str
    """`supported`, `not-supported` (known, and unrelated), `unknown` (known, and the weights cannot tell) or
    `not-known` (nothing of it is in the index)."""


@dataclass(frozen=True, slots=True)
class Placement:
    """The answer to `forkwatch lineage`."""

    target: str
    candidate: Fingerprint
    claimed: tuple[ClaimedBase, ...]
    search: Search
    bytes_read: int
    bytes_total: int
    requests: int
    seconds: float

    @property
    def summary(self) -> str:
        """One sentence."""
        search = self.search
        if not search.comparable:
            return f"none of the {search.known} known models has its width; descent across widths is not seen"
        others = search.known - search.comparable
        scope = f"all {search.comparable} known models" + (" of its width" if others else "")
        left = f"; {others} others have another width and cannot be compared" if others else ""
        if search.related:
            nearest = search.related[0]
            count = len(search.related)
            which = f"the nearest of {count} relatives" if count > 1 else "and no other"
            name = f"{nearest.identity.name} ({nearest.status})"
            return f"shares ancestry with {name}, {which} among {scope}{left}"
        if search.status is LineageStatus.UNRELATED:
            return f"unrelated to {scope}{left}"
        return f"cannot tell: no relative was found among {scope}, nor can all be ruled out{left}"

    def as_json(self) -> dict[str, Any]:
        """The `forkwatch.lineage/1` document."""
        search, shape, identity = self.search, self.candidate.shape, self.candidate.identity
        return {
            "schema": SCHEMA,
            "target": self.target,
            "repo": identity.repo,
            "commit": identity.commit,
            "parameters": shape.parameters,
            "claimed": [{"repo": base.repo, "standing": base.standing} for base in self.claimed],
            "status": search.status.value,
            "summary": self.summary,
            "searched": {
                "known": search.known,
                "comparable": search.comparable,
                "judged": len(search.relations),
                "unreadable": dict(search.broken),
                "correction": "holm",
                "threshold_log10_p": FOUND_LOG10_P,
            },
            "models": [_relation_json(relation) for relation in search.relations],
            "cost": {
                "bytes_downloaded": self.bytes_read,
                "bytes_total": self.bytes_total,
                "requests": self.requests,
                "seconds": round(self.seconds, 2),
            },
        }


def place(context: Context, text: str) -> Placement:
    """Compare a folder, file or repository with every known model, guarded releases first of all.

    Raises:
        NothingToExamineError: no model is known.
        SignatureInvalidError: a release that has no fingerprint yet does not verify.
        DetectorError: the target's weights cannot be compared.
        CrawlerError: the repository could not be had.
    """
    began, before = time.monotonic(), context.hub.cost
    releases = keep_releases(context)
    target = open_target(context, text)
    _check_not_empty(context, open_table(context.state.index).size)
    candidate = fingerprint_of(target)
    context.talk.stage(candidate.identity.name, "search the index")
    search = search_index(context.state.index, candidate, always=releases, repos=target.bases)
    _check_not_empty(context, search.known)
    cost = context.hub.cost - before
    return Placement(
        target=text,
        candidate=candidate,
        claimed=tuple(ClaimedBase(base, _standing(base, search)) for base in target.bases),
        search=search,
        bytes_read=cost.bytes_downloaded,
        bytes_total=target.nbytes,
        requests=cost.requests,
        seconds=time.monotonic() - began,
    )


def _check_not_empty(context: Context, known: int) -> None:
    """Nothing to compare with is not "unrelated to everything"."""
    if known == 0:
        raise NothingToExamineError(
            f"no other model is known to compare with (index: {context.state.index})",
            tip="Guard a release with `forkwatch release add`, or add any model with `forkwatch index add`.",
        )


def _standing(base: str, search: Search) -> str:
    found = {relation.status for relation in search.relations if relation.identity.repo == base}
    if not found:
        return "not-known"
    if found & {LineageStatus.PROVED, LineageStatus.CONSISTENT}:
        return "supported"
    return "not-supported" if found == {LineageStatus.UNRELATED} else "unknown"


def _relation_json(relation: Relation) -> dict[str, Any]:
    identity = relation.identity
    return {
        "name": identity.name,
        "kind": identity.kind.value,
        "repo": identity.repo,
        "commit": identity.commit,
        "root_digest": identity.root_digest,
        "status": relation.status.value,
        "by": relation.by,
        "log10_p": round(relation.log10_p, 2),
        "corrected_log10_p": relation.corrected_log10_p,
        "matched": relation.matched,
        "compared": relation.compared,
        "correlation": relation.correlation,
        "layers": {"aligned": relation.aligned, "moved": relation.moved},
        "same_inventory": relation.same_inventory,
    }
