"""The evidence about one fork as one file: a zip whose bytes follow from its content alone.

`MANIFEST.sha256` lists every other file (`sha256sum -c MANIFEST.sha256`). There is no prompt and no answer in
it: documents carry counts, labels and digests. Files are stored, not compressed, because two versions of zlib
may compress the same bytes to different ones.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import dataclass, replace

from reports import document
from reports.context import Fork
from reports.contract import plain_value
from reports.exports.measured import measurements
from reports.exports.mlbom import to_cyclonedx
from reports.exports.moderation import has_draft, to_markdown
from reports.exports.once import Once
from reports.exports.osv import to_osv
from reports.exports.tables import to_csv
from reports.interface import DisputeView, ForkHistory, OperatorKey, VerdictChange
from reports.routes import release_key
from reports.scan import EditView, FilesView, HeatmapView, LineageView, RateView, SafetyView, ScanDocument

README = """Evidence about one fork, by forkwatch.

verdict.json        the whole document of the scan (forkwatch.scan/1)
diff.json           what was done to the weights: lineage, files, edits, change per layer and module
measurements.csv    every measured number with its sample size and 95 % interval, or why there is none
history.json        changes of the verdict, disputes and withdrawals, what became of the repository
advisory.osv.json   the advisory
model.cdx.json      the CycloneDX ML-BOM
report.md           draft of a report for a person to file; nothing was sent (only while the verdict stands)
attestation.json    the operator's signature under the verdict (only where there is one)
keys/               public keys of the operator
MANIFEST.sha256     check with: sha256sum -c MANIFEST.sha256

There is no prompt and no answer of a model in here.
"""

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip can carry; the content has its own times."""

_COLUMNS = ("name", "of", "topic", "language", "value", "n", "low", "high", "not_measured")


document_of = Once(lambda fork: document.to_json(fork.scan()).encode("ascii"))
bom_of = Once(to_cyclonedx)
advisory_of = Once(to_osv)
draft_of = Once(to_markdown)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Diff:
    schema: str = "forkwatch.evidence-diff/1"
    repo: str
    commit: str
    release: str
    lineage: LineageView
    files: FilesView
    edits: tuple[EditView, ...]
    heatmap: HeatmapView | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _History:
    schema: str = "forkwatch.evidence-history/1"
    repo: str
    changes: tuple[VerdictChange, ...]
    disputes: tuple[DisputeView, ...]
    repository: ForkHistory | None


def to_zip(fork: Fork) -> bytes:
    """The bundle."""
    files = _files(fork, fork.scan())
    lines = (f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(files.items()))
    files["MANIFEST.sha256"] = "".join(lines).encode("ascii")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as bundle:
        for name, data in sorted(files.items()):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.create_system = 3  # Unix, whatever the machine is: the default differs between systems
            info.external_attr = 0o100644 << 16
            bundle.writestr(info, data)
    return out.getvalue()


def _files(fork: Fork, scan: ScanDocument) -> dict[str, bytes]:
    diff = _Diff(
        repo=scan.repo,
        commit=scan.commit,
        release=release_key(fork.release.view),
        lineage=scan.lineage,
        files=scan.files,
        edits=scan.edits,
        heatmap=scan.heatmap,
    )
    history = _History(repo=scan.repo, changes=fork.changes, disputes=fork.disputes, repository=_past(fork))
    files = {
        "README.txt": README.encode("ascii"),
        "verdict.json": document_of(fork),
        "diff.json": _compact(diff),
        "measurements.csv": _measurements(scan.safety),
        "history.json": _compact(history),
        "advisory.osv.json": advisory_of(fork),
        "model.cdx.json": bom_of(fork),
    }
    if has_draft(fork):
        files["report.md"] = draft_of(fork)
    if (bundle := fork.bundle) is not None:
        files["attestation.json"] = bundle.encode("utf-8")
        files |= {f"keys/{_name(key)}.pem": key.pem.encode("utf-8") for key in fork.site.view.keys}
    return files


def _past(fork: Fork) -> ForkHistory | None:
    return None if fork.history is None else replace(fork.history, samples=fork.samples)


def _compact(value: _Diff | _History) -> bytes:
    return (json.dumps(plain_value(value), allow_nan=False) + "\n").encode("ascii")


def _measurements(safety: SafetyView) -> bytes:
    return to_csv(
        _COLUMNS,
        (
            (each.name, each.of, each.topic, each.language, number.rate, number.n, *number.ci, "")
            if isinstance(number := each.number, RateView)
            else (each.name, each.of, each.topic, each.language, None, None, None, None, number.unmeasured)
            for each in measurements(safety)
        ),
    )


def _name(key: OperatorKey) -> str:
    """Ours, yet a name in a zip must never climb out of its folder."""
    return "".join(char for char in key.id if char.isalnum())[:64]
