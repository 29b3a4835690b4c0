"""A Ray cluster of three nodes loses one in the middle of the work; every job is finished, and once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

if "CI" not in os.environ:
    pytest.importorskip("ray", reason="pip install 'forkwatch[ray]'")

JOBS = 24


def test_a_node_that_is_killed_loses_no_job_and_repeats_none(tmp_path: Path) -> None:
    script = Path(__file__).parent / "ray_cluster.py"
    done = subprocess.run(
        [sys.executable, str(script), f"sqlite:///{tmp_path / 'queue.db'}", str(JOBS)],
        capture_output=True,
        timeout=240,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    (line,) = [line for line in done.stdout.decode().splitlines() if line.startswith("RESULT ")]
    found = json.loads(line.removeprefix("RESULT "))
    assert found["killed"]
    assert found["done"] == JOBS
    assert found["finished"] == JOBS, "a job was finished twice, or a lost lease was believed"
    assert found["nodes"] >= 2
