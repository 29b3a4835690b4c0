"""A short run of the fuzzer; `python benchmarks/fuzz_readers.py` is the long one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "fuzz_readers.py"


def test_fuzzed_bytes_are_read_or_refused() -> None:
    """No input of any target crashes, hangs, or takes more memory than it may."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--inputs", "250", "--seed", "1"],
        check=False,
        capture_output=True,
        text=True,
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, [row["failures"] for row in rows] or done.stderr
    assert len(rows) >= 12
    assert all(row["inputs"] == 250 and row["accepted"] for row in rows)
