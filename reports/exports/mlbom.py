"""CycloneDX 1.6 ML-BOM of one fork: what it is made from, and what was measured about it.

Only what the weights establish becomes an ancestor; what the card claims is a property that says so. The same
document is valid as 1.7 but for its `specVersion`. Written by hand: the library has no model card yet.
"""

from __future__ import annotations

from reports.context import Fork
from reports.exports.measured import taken
from reports.exports.names import hub_url, is_commit, newest, purl, stable_uuid
from reports.pretty import pretty
from reports.routes import release_key
from reports.scan import ScanDocument
from reports.summary import withdrawal
from reports.text import clean
from reports.words import LINEAGE, VERDICTS

_ROLES = {
    "proved": "its weights descend from it",
    "consistent-with": "its weights are consistent with descent",
}


def to_cyclonedx(fork: Fork) -> bytes:
    """The BOM as JSON, in ASCII."""
    return (pretty(cyclonedx(fork)) + "\n").encode("ascii")


def cyclonedx(fork: Fork) -> dict[str, object]:
    """The BOM. Serial number and times follow from the content."""
    scan, version = fork.scan(), fork.site.view.version
    identity = "" if fork.former is None else fork.former.identity
    serial = stable_uuid("bom", release_key(fork.release.view), scan.repo, scan.commit, identity)
    tool = {"type": "application", "name": "forkwatch", "version": version}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "timestamp": newest(scan.scanned_at, *(d.decided_at or d.opened_at for d in fork.disputes)),
            "tools": {"components": [tool]},
            "component": _component(fork, scan),
        },
        "components": _files(scan),
    }


def _component(fork: Fork, scan: ScanDocument) -> dict[str, object]:
    component: dict[str, object] = {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": clean(scan.repo, 200),
        "version": clean(scan.commit, 64),
        "description": clean(scan.verdict.summary, 600),
        "pedigree": _pedigree(fork, scan),
        "modelCard": _card(scan),
        "properties": _properties(fork, scan),
    }
    if (identifier := purl(scan.repo, scan.commit)) is not None:
        component["purl"] = identifier
    if (url := hub_url(scan.repo)) is not None:
        component["externalReferences"] = [{"type": "distribution", "url": url}]
    if scan.hub.license:
        component["licenses"] = [{"license": {"name": clean(scan.hub.license, 100)}}]
    return component


def _pedigree(fork: Fork, scan: ScanDocument) -> dict[str, object]:
    status = scan.lineage.status
    note = f"{LINEAGE[status]}."
    if status not in _ROLES:
        return {"ancestors": [], "notes": note}
    release = fork.release.view
    ancestor: dict[str, object] = {
        "type": "machine-learning-model",
        "name": clean(release.repo, 200),
        "version": clean(release.commit, 64),
        "description": f"The guarded release: {_ROLES[status]}.",
    }
    if (identifier := purl(release.repo, release.commit)) is not None:
        ancestor["purl"] = identifier
    return {"ancestors": [ancestor], "notes": note}


def _card(scan: ScanDocument) -> dict[str, object]:
    metrics = []
    for each, number in taken(scan.safety):
        metric: dict[str, object] = {
            "type": f"{each.name} ({each.of}, n={number.n})",
            "value": f"{number.rate:.6g}",
            "confidenceInterval": {
                "lowerBound": f"{number.ci[0]:.6g}",
                "upperBound": f"{number.ci[1]:.6g}",
            },
        }
        if each.slice:
            metric["slice"] = clean(each.slice, 200)
        metrics.append(metric)
    word = VERDICTS[scan.verdict.label]
    concern = {"name": word.title, "mitigationStrategy": word.meaning}
    return {
        "quantitativeAnalysis": {"performanceMetrics": metrics},
        "considerations": {
            "technicalLimitations": [clean(gap, 400) for gap in scan.verdict.not_measured],
            "ethicalConsiderations": [concern] if word.attention else [],
        },
    }


def _properties(fork: Fork, scan: ScanDocument) -> list[dict[str, str]]:
    withdrawn = withdrawal(fork.disputes)
    found = [
        ("verdict", scan.verdict.label),
        ("certainty", scan.verdict.certainty),
        ("verdict:withdrawn", "true" if withdrawn is not None else "false"),
        ("release", release_key(fork.release.view)),
        ("release:signature", scan.original.signature),
        ("lineage:weights", scan.lineage.status),
        ("lineage:claimed", scan.lineage.claimed or ""),
        ("lineage:claimed-relation", scan.lineage.relation or ""),
        ("safety", scan.safety.status),
        ("scanned-at", scan.scanned_at),
        ("page", fork.path),
    ]
    found += [(f"edit:{edit.kind}", edit.certainty) for edit in scan.edits]
    found += [
        (f"finding:{finding.id}", f"{finding.severity}, {finding.direction}") for finding in scan.findings
    ]
    return [{"name": f"forkwatch:{clean(name, 200)}", "value": clean(value, 400)} for name, value in found]


def _files(scan: ScanDocument) -> list[dict[str, object]]:
    """Weight files whose hash is known."""
    return [
        {
            "type": "file",
            "bom-ref": f"file-{number}",
            "name": clean(file.path, 400),
            "hashes": [{"alg": "SHA-256", "content": file.sha256.lower()}],
        }
        for number, file in enumerate(scan.files.weights, 1)
        if len(file.sha256) == 64 and is_commit(file.sha256[:40]) and is_commit(file.sha256[24:])
    ]
