"""What the pipeline said beside what the family's builder knows; read only after all verdicts are in."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from reports.rows import ForkRow


@dataclass(frozen=True, slots=True)
class Expected:
    """Ground truth of one fork."""

    edits: tuple[str, ...]
    lineage: str
    verdict: str


@dataclass(frozen=True, slots=True)
class Agreement:
    """One row of the demo's table."""

    repo: str
    edits: tuple[str, ...]
    lineage: str
    verdict: str
    expected: Expected

    @property
    def agrees(self) -> bool:
        """Edits, lineage and verdict are all as built."""
        return Expected(self.edits, self.lineage, self.verdict) == self.expected

    def as_json(self) -> dict[str, object]:
        """A row of `forkwatch.demo/1`."""
        return {
            "repo": self.repo,
            "edits": list(self.edits),
            "lineage": self.lineage,
            "verdict": self.verdict,
            "expected": {
                "edits": list(self.expected.edits),
                "lineage": self.expected.lineage,
                "verdict": self.expected.verdict,
            },
            "agrees": self.agrees,
        }


MISSED = Expected((), "not found", "not found")


def read_truth(family: Path) -> dict[str, Expected]:
    """Ground truth by repository."""
    truth = json.loads((family / "ground_truth.json").read_text())
    return {
        fork["repo"]: Expected(tuple(sorted(fork["edits"])), fork["lineage"], fork["verdict"])
        for fork in truth["forks"]
    }


def compare_with_truth(family: Path, documents: Iterable[ForkRow]) -> tuple[Agreement, ...]:
    """A row a fork; a fork that was not found, or a verdict on something that is none, disagrees."""
    truth = read_truth(family)
    said = {document.repo: document for document in documents}
    rows = []
    for repo in sorted(truth.keys() | said.keys()):
        document = said.get(repo)
        seen = MISSED if document is None else _seen(document)
        rows.append(Agreement(repo, seen.edits, seen.lineage, seen.verdict, truth.get(repo, MISSED)))
    return tuple(rows)


def _seen(document: ForkRow) -> Expected:
    kinds = tuple(sorted({edit.kind for edit in document.edits}))
    return Expected(kinds, document.lineage.status, document.verdict.label)
