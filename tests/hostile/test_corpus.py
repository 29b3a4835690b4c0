"""Every hostile file and repository ends in its finding, within bounds, and harms nobody."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.corpus import CASES

ROOT = Path(__file__).parents[2]
SECONDS = 2.0
"""Of CPU time: the machine that tests run on may be busy."""
MEGABYTES = 300
"""Largest resident size of the process, Python and the case's own bytes included."""


@pytest.fixture(scope="module")
def outcomes() -> dict[str, dict[str, Any]]:
    """The whole corpus, each case in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.hostile.runner"], check=False, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {row["name"]: row for row in rows}


def test_the_corpus_is_large(outcomes: dict[str, dict[str, Any]]) -> None:
    """Every case has run to its end, and there are enough of them."""
    assert outcomes.keys() == CASES.keys()
    assert len(outcomes) >= 80


@pytest.mark.parametrize("name", CASES)
def test_hostile_case(name: str, outcomes: dict[str, dict[str, Any]]) -> None:
    """It ends in its expected finding, in no crash, in little time and memory."""
    outcome = outcomes[name]
    assert outcome["exit"] == 0
    assert outcome["expected"] in outcome["found"]
    assert outcome["seconds"] <= SECONDS
    assert outcome["peak"] <= MEGABYTES
