"""`forkwatch scan --sarif`: the findings in a file, beside whatever else the command prints."""

from __future__ import annotations

import json
from pathlib import Path

from tests.forkwatch.conftest import World
from tests.reports.exports.test_documents import sarif_schema

UNSAFE = {"README.md": b"base_model: lab/tiny-chat", "weights.bin": b"\x80\x04cos\nsystem\n."}


def test_a_scan_writes_its_findings_for_code_scanning(world: World, tmp_path: Path) -> None:
    """Valid, of the scanned commit, and the exit code stays that of the scan."""
    world.hub.create_repo("demo/unsafe")
    world.hub.commit("demo/unsafe", UNSAFE)
    out = tmp_path / "scan.sarif"
    done = world.run("scan", "demo/unsafe", "--depth", "match", "--json", "--sarif", str(out))
    document = json.loads(done.stdout)
    log = json.loads(out.read_text())
    sarif_schema().validate(log)
    (run,) = log["runs"]
    failing = {result["ruleId"] for result in run["results"] if result["kind"] == "fail"}
    assert failing == {each["id"] for each in document["findings"] if each["direction"] == "for"}
    assert failing
    assert done.exit_code == 1, done.stderr
    assert run["versionControlProvenance"][0]["revisionId"] == document["commit"]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["scan.sarif"]
    nowhere = world.run("scan", "demo/unsafe", "--depth", "match", "--sarif", str(tmp_path / "no" / "x"))
    assert nowhere.exit_code == 2
