"""Evidence as documents show it."""

from __future__ import annotations

from detector.interface import Evidence
from reports.scan import EvidenceView


def evidence_views(evidence: tuple[Evidence, ...]) -> tuple[EvidenceView, ...]:
    """The detector's evidence as the document's."""
    return tuple(EvidenceView(item.name, item.value, item.note) for item in evidence)
