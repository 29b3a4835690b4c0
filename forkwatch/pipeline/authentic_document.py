"""What `forkwatch verify` found, as JSON (`forkwatch.checkpoint/1`) and as lines for a person."""

from __future__ import annotations

from collections import Counter
from typing import Any

from detector.provenance.checked import HUB_REPORTED, Basis, CheckedFile, FileState, paths_in
from forkwatch.pipeline.authentic import Authenticity, Judgement
from forkwatch.pipeline.subjects import Subject
from forkwatch.text import plain

SCHEMA = "forkwatch.checkpoint/1"

_SHOWN = 20
"""Files of one kind that a person is shown; JSON has them all."""
_BASES = {
    Basis.READ: "read here",
    Basis.FETCHED: "verified after download",
    Basis.REMEMBERED: "read before and unchanged since (--full reads them again)",
    Basis.HUB_SHA256: "Hub-reported SHA-256",
    Basis.HUB_GIT_OID: "Hub-reported git id of known content",
}
_WRONG = (FileState.DIFFERS, FileState.MISSING, FileState.UNCOVERED, FileState.UNKNOWN)


def summary(subject: Subject, judged: Judgement) -> str:
    """The verdict in one sentence."""
    reported = any(file.basis in HUB_REPORTED for file in judged.files)
    verdict = f"{judged.status} (Hub-reported)" if reported else f"{judged.status}"
    return f"{subject.name}: {verdict}: {_why(judged)}"


def _why(judged: Judgement) -> str:
    release = judged.release
    against = "" if release is None else f"; compared with {release.name}"
    if judged.status is not Authenticity.AUTHENTIC:
        return judged.reason + against
    count = len(paths_in(judged.files, FileState.MATCHED))
    if release is None:
        return f"all {count} files are as {judged.signer} signed them"
    if judged.signer:
        return f"it is {release.name}, all {count} files as {judged.signer} signed them"
    if release.trust.signers:
        return f"{count} files are byte for byte those of {release.name}; the copy carries no signature"
    return (
        f"{count} files are byte for byte those of {release.name}, which nobody signed: pinned on first use"
    )


def document(subject: Subject, judged: Judgement, seconds: float) -> dict[str, Any]:
    """The whole of it."""
    release = judged.release
    return {
        "schema": SCHEMA,
        "subject": subject.name,
        "place": "hub" if subject.remote else "local",
        "status": judged.status,
        "basis": judged.basis,
        "hub_reported": any(file.basis in HUB_REPORTED for file in judged.files),
        "summary": summary(subject, judged),
        "reason": judged.reason,
        "signer": judged.signer or None,
        "root_digest": judged.root_digest or None,
        "release": None if release is None else release.name,
        "files": [_file(file) for file in judged.files],
        "not_checked": list(judged.compared.unsigned),
        "cost": {
            "bytes_read": judged.compared.bytes_read,
            "requests": subject.cost.requests,
            "bytes_downloaded": subject.cost.bytes_downloaded,
            "seconds": round(seconds, 3),
        },
    }


def _file(file: CheckedFile) -> dict[str, Any]:
    return {
        "path": file.path,
        "state": file.state,
        "basis": file.basis,
        "size": file.size,
        "note": file.note,
    }


def lines(subject: Subject, judged: Judgement, seconds: float) -> list[str]:
    """The verdict, what is wrong, how it is known, and what was not checked."""
    found = [summary(subject, judged)]
    for state in _WRONG:
        files = [file for file in judged.files if file.state is state]
        found += [f"  {state:9} {file.path}{_aside(file)}" for file in files[:_SHOWN]]
        found += [f"  {state:9} and {len(files) - _SHOWN} more"] if len(files) > _SHOWN else []
    known = Counter(file.basis for file in judged.files)
    found += [f"  {known[basis]} files: {words}" for basis, words in _BASES.items() if known[basis]]
    if unsigned := judged.compared.unsigned:
        more = f" and {len(unsigned) - _SHOWN} more" if len(unsigned) > _SHOWN else ""
        names = ", ".join(unsigned[:_SHOWN])
        found.append(f"  not checked, since nobody signed them and no loader uses them: {names}{more}")
    cost = f"  cost: {judged.compared.bytes_read:,} bytes read, {seconds:.1f} s"
    found.append(cost + (f", {subject.cost.requests} requests" if subject.remote else ""))
    return [plain(line, 2000) for line in found]


def _aside(file: CheckedFile) -> str:
    said = [text for text in (_BASES.get(file.basis, ""), file.note) if text]
    return f" ({'; '.join(said)})" if said else ""
