"""An application may check a checkpoint before it loads anything heavy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.detector.provenance.bundles import REAL, copy_real

HEAVY = {
    "torch",
    "numpy",
    "transformers",
    "pydantic_settings",
    "huggingface_hub",
    "sqlmodel",
    "typer",
    "rich",
}
OURS = {"crawler", "evals", "reports", "forkwatch"}
CODE = """
import json, sys
from datetime import UTC, datetime
from pathlib import Path
from detector.provenance.interface import KeyTrust, Trust
from detector.provenance.verify import verify_release
before = set(sys.modules)
trust = Trust((KeyTrust(Path({key!r}).read_bytes()),))
result = verify_release(Path({folder!r}), trust, at=datetime(2026, 1, 1, tzinfo=UTC))
modules = [sorted({{name.partition(".")[0] for name in names}}) for names in (before, set(sys.modules))]
own = sorted(name for name in sys.modules if name.startswith("detector."))
print(json.dumps([result.status, *modules, own]))
"""


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> tuple[set[str], set[str], set[str]]:
    """Top-level modules before and after a verification, and those of the detector."""
    root = Path(__file__).parents[3]
    folder = copy_real("v1.1.0-elliptic-key", tmp_path_factory.mktemp("real") / "m")
    code = CODE.format(key=str(REAL / "signing-key-pub.pem"), folder=str(folder))
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=True,
        text=True,
        cwd=root,
    )
    status, before, after, own = json.loads(done.stdout)
    assert status == "verified"
    return set(before), set(after), set(own)


def test_import_needs_cryptography_only(modules: tuple[set[str], set[str], set[str]]) -> None:
    """Importing the check loads the standard library and `cryptography`."""
    before, _, _ = modules
    outside = before - set(sys.stdlib_module_names) - {"detector", "cryptography", "__main__"}
    assert {name for name in outside if not name.startswith(("_", "typing_extensions"))} <= {"cffi"}


def test_verifying_loads_nothing_heavy(modules: tuple[set[str], set[str], set[str]]) -> None:
    """Verifying loads model-signing with what it needs (sigstore, pydantic, protobuf), and no more."""
    _, after, own = modules
    assert "model_signing" in after
    assert after & (HEAVY | OURS) == set()
    assert {name for name in own if not name.startswith("detector.provenance")} == {
        "detector.errors",
        "detector.interface",
    }
