"""Edits as documents show them: of a scan, and of a comparison, which needs little else of ours."""

from __future__ import annotations

from detector.interface import Edit, EditDetail
from forkwatch.policy.evidence import evidence_views
from forkwatch.text import plain
from reports.scan import EditDetailView, EditView, ParentView


def edit_view(edit: Edit) -> EditView:
    """One edit as the document shows it."""
    return EditView(
        kind=str(edit.kind),
        certainty=edit.certainty.value,
        detail=_detail(edit.detail),
        evidence=evidence_views(edit.evidence),
    )


def _detail(detail: EditDetail) -> EditDetailView:
    """Only what applies to the kind."""
    shown: EditDetailView = {}
    if detail.rank is not None:
        shown["rank"] = detail.rank
    if detail.strength is not None:
        shown["strength"] = round(detail.strength, 4)
    if detail.modules:
        shown["modules"] = [plain(module, 100) for module in detail.modules]
    if detail.layers is not None:
        shown["layers"] = list(detail.layers)
    if detail.scheme is not None:
        shown["scheme"] = plain(detail.scheme, 100)
    if detail.files:
        shown["files"] = [plain(file) for file in detail.files]
    if detail.scale is not None:
        shown["scale"] = round(detail.scale, 6)
    if detail.parents:
        shown["parents"] = [
            ParentView(plain(parent.name), tuple(round(weight, 4) for weight in parent.weights))
            for parent in detail.parents
        ]
    if detail.sources:
        shown["sources"] = list(detail.sources)
    return shown
