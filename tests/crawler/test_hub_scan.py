"""What the Hub's scanners report comes with the file list, and is a word of theirs beside ours."""

from __future__ import annotations

from dataclasses import replace

import pytest

from crawler.hub_scan import NOT_TOLD, HubScan, hub_scan
from detector.interface import FileFinding
from forkwatch.policy.findings import all_findings
from forkwatch.policy.verdict import decide
from tests.forkwatch.samples import SNAPSHOT, facts


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"scansDone": True, "filesWithIssues": []}, HubScan(done=True)),
        (
            {"scansDone": True, "filesWithIssues": [{"path": "a.bin", "level": "unsafe"}]},
            HubScan(done=True, flagged=(("a.bin", "unsafe"),)),
        ),
        ({"scansDone": False, "filesWithIssues": [{"path": "a"}]}, HubScan(flagged=(("a", "flagged"),))),
        ({"scansDone": 1, "filesWithIssues": [{"path": 3}, "x", {"path": ""}]}, NOT_TOLD),
        ({"filesWithIssues": [{"path": "a", "level": "\x1b[2J<b>"}]}, HubScan(flagged=(("a", "flagged"),))),
        ([], NOT_TOLD),
        (None, NOT_TOLD),
    ],
)
def test_the_hub_s_answer(answer: object, expected: HubScan) -> None:
    """Levels as they come; what has the wrong type counts as not told."""
    assert hub_scan(answer) == expected


@pytest.mark.parametrize(
    ("scan", "told"),
    [
        (HubScan(done=True, flagged=(("a.bin", "unsafe"),)), "unsafe"),
        (HubScan(done=True), "no issue"),
        (NOT_TOLD, None),
    ],
)
def test_a_label_that_decides_nothing(scan: HubScan, told: str | None) -> None:
    """It is evidence of findings about pickles; verdict and findings are the same without it."""
    files = (FileFinding("pickle-file", "a.bin", "plain"), FileFinding("executable-file", "a.bin", "x"))
    case = facts(files=files, snapshot=replace(SNAPSHOT, hub_scan=scan))
    found = all_findings(case)
    labels = {
        finding.id: each.value for finding in found for each in finding.evidence if each.name == "hub-scan"
    }
    assert labels == ({"pickle-file": told} if told else {})
    without = facts(files=files)
    assert [finding.id for finding in found] == [finding.id for finding in all_findings(without)]
    assert decide(case, found) == decide(without, all_findings(without))
