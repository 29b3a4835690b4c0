"""SARIF 2.1.0 of one scan, for code scanning in a build that depends on a model.

Findings that speak for a concern are results of kind `fail`; those that speak against it are `informational`.
The place of a result is the model, as a path without a host: code scanning wants one, and the file that
names the model is known only to the one who runs the scan. Fingerprints leave the commit out, so that an
alert stays the same alert when the model gets a new commit.
"""

from __future__ import annotations

import json
from urllib.parse import quote

from reports.exports.names import hub_url, is_commit, short_digest, stable_uuid
from reports.scan import FindingView, ScanDocument, Severity
from reports.text import clean

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS: dict[Severity, str] = {
    "critical": "error",
    "high": "error",
    "medium": "warning",
    "low": "note",
    "info": "note",
}
_SCORES: dict[Severity, str] = {
    "critical": "9.5",
    "high": "8.0",
    "medium": "5.5",
    "low": "2.0",
    "info": "0.0",
}
"""What GitHub sorts security alerts by, 0 to 10; the middle of its bands."""


def to_sarif(scan: ScanDocument, version: str) -> bytes:
    """The log as JSON, in ASCII. The same scan gives the same bytes."""
    return (json.dumps(sarif(scan, version), indent=2, allow_nan=False) + "\n").encode("ascii")


def sarif(scan: ScanDocument, version: str) -> dict[str, object]:
    """The log, with one run."""
    ids = list(dict.fromkeys(finding.id for finding in scan.findings))
    first = {finding.id: finding for finding in reversed(scan.findings)}
    run: dict[str, object] = {
        "tool": {
            "driver": {
                "name": "forkwatch",
                "semanticVersion": version,
                "rules": [_rule(first[finding_id]) for finding_id in ids],
            }
        },
        "automationDetails": {
            "id": f"forkwatch/{_path(scan)}/",
            "guid": str(stable_uuid("sarif", scan.repo, scan.commit, scan.scanned_at)),
        },
        "invocations": [
            {
                "executionSuccessful": True,
                "endTimeUtc": scan.scanned_at.replace("+00:00", "Z"),
                "toolExecutionNotifications": [
                    {"level": "note", "message": {"text": f"Not measured: {clean(gap, 600)}"}}
                    for gap in scan.verdict.not_measured
                ],
            }
        ],
        "results": [_result(scan, finding, ids.index(finding.id)) for finding in scan.findings],
        "columnKind": "unicodeCodePoints",
        "properties": {
            "verdict": scan.verdict.label,
            "certainty": scan.verdict.certainty,
            "summary": clean(scan.verdict.summary, 600),
            "release": scan.release,
        },
    }
    url = hub_url(scan.repo)
    if url is not None and is_commit(scan.commit):
        run["versionControlProvenance"] = [{"repositoryUri": url, "revisionId": scan.commit}]
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(finding: FindingView) -> dict[str, object]:
    return {
        "id": clean(finding.id, 100),
        "shortDescription": {"text": clean(finding.id, 100).replace("-", " ").capitalize()},
        "help": {"text": clean(finding.tip, 600) or "See docs/findings."},
        "defaultConfiguration": {"level": _LEVELS[finding.severity]},
        "properties": {"security-severity": _SCORES[finding.severity], "tags": ["security", "model"]},
    }


def _result(scan: ScanDocument, finding: FindingView, rule: int) -> dict[str, object]:
    against = finding.direction == "against"
    evidence = {clean(each.name, 100): each.value for each in finding.evidence[:20]}
    shown = {key: clean(value, 400) if isinstance(value, str) else value for key, value in evidence.items()}
    return {
        "ruleId": clean(finding.id, 100),
        "ruleIndex": rule,
        "kind": "informational" if against else "fail",
        "level": "none" if against else _LEVELS[finding.severity],
        "message": {"text": f"{clean(scan.repo, 200)}: {clean(finding.summary, 600)}"},
        "locations": [
            {
                "physicalLocation": {"artifactLocation": {"uri": _path(scan)}},
                "logicalLocations": [
                    {
                        "name": clean(scan.repo, 200),
                        "fullyQualifiedName": f"{clean(scan.repo, 200)}@{clean(scan.commit, 64)}",
                        "kind": "module",
                    }
                ],
            }
        ],
        "partialFingerprints": {
            "forkwatchFinding/v1": short_digest(scan.repo, finding.id, finding.direction)
        },
        "properties": {"certainty": finding.certainty, "severity": finding.severity, "evidence": shown},
    }


def _path(scan: ScanDocument) -> str:
    return quote(clean(scan.repo, 200), safe="/-._~")
