"""The bundle: complete, verifiable, the same bytes always, and nothing in it that harms."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zipfile

import pytest

from reports.document import from_json
from tests.reports.exports.built import DISPUTED, WITHDRAWN, built, hostile_built, view

NAMES = {
    "MANIFEST.sha256",
    "README.txt",
    "advisory.osv.json",
    "attestation.json",
    "diff.json",
    "history.json",
    f"keys/{'ab' * 32}.pem",
    "measurements.csv",
    "model.cdx.json",
    "report.md",
    "verdict.json",
}


def _open(repo: str) -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BytesIO(built()[f"api/v1/forks/{repo}.evidence.zip"]))


def test_it_has_everything_and_the_manifest_proves_it():
    """`sha256sum -c` would say OK to every file."""
    with _open(DISPUTED) as bundle:
        assert set(bundle.namelist()) == NAMES
        assert bundle.testzip() is None
        lines = bundle.read("MANIFEST.sha256").decode().splitlines()
        assert {line.split("  ")[1] for line in lines} == NAMES - {"MANIFEST.sha256"}
        for line in lines:
            digest, _, name = line.partition("  ")
            assert hashlib.sha256(bundle.read(name)).hexdigest() == digest
        scan = from_json(bundle.read("verdict.json").decode())
        assert scan.repo == DISPUTED
        rows = list(csv.DictReader(io.StringIO(bundle.read("measurements.csv").decode())))
        assert {row["topic"] for row in rows} >= {"", "fraud", "malware"}
        assert all(bool(row["value"]) != bool(row["not_measured"]) for row in rows)
        assert json.loads(bundle.read("history.json"))["disputes"][0]["id"] == "D-1"


def test_a_withdrawn_verdict_is_no_report():
    """The evidence stays, the draft goes."""
    with _open(WITHDRAWN) as bundle:
        assert set(bundle.namelist()) == NAMES - {"report.md"}
        assert json.loads(bundle.read("history.json"))["disputes"][0]["status"] == "withdrawn"


@pytest.mark.parametrize("files", [built, hostile_built], ids=["sample", "hostile"])
def test_nothing_of_the_machine_is_in_it(files):
    """Times, owners and systems are the same everywhere; names stay inside."""
    bundles = [data for path, data in files().items() if path.endswith(".zip")]
    assert bundles
    for data in bundles:
        with zipfile.ZipFile(io.BytesIO(data)) as bundle:
            for info in bundle.infolist():
                assert info.date_time == (1980, 1, 1, 0, 0, 0)
                assert (info.create_system, info.external_attr, info.extra) == (3, 0o100644 << 16, b"")
                assert info.compress_type == zipfile.ZIP_STORED
                assert not info.filename.startswith("/")
                assert ".." not in info.filename.split("/")


def test_a_fork_that_gives_no_reason_has_no_bundle():
    """The documents about it are enough."""
    names = {path for path in built() if path.endswith(".zip")}
    (release,) = view().releases
    calm = [scan.repo for scan in release.scans if scan.verdict.label == "authentic"]
    assert calm
    assert not any(f"forks/{repo}." in path for repo in calm for path in names)
