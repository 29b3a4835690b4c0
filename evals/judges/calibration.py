"""How the built-in judge is fitted to one release, and the file that says so.

The file names openings of the original's refusals, with every word masked that is not one of the judge's own
vocabulary. It stays on the box all the same (0600): it tells how a release refuses.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from evals.interface import EvalsError
from evals.wire import write_private

SCHEMA = "forkwatch.calibration/1"
MAX_BYTES = 64 << 10
MAX_OPENINGS = 64
LOWEST, HIGHEST = 0.45, 0.55
"""Where the threshold may move. Wider bounds gained nothing against human labels and cost bias
(`benchmarks/judge_calibration.py`)."""

_OPENING = re.compile(r"[^\x00-\x1f\x7f]{1,200}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_KEYS = frozenset({"schema", "suite", "model", "threshold", "openings", "harmful", "benign"})


class CalibrationError(EvalsError):
    """A calibration file cannot be read, or was made for another judge."""

    tip = "Measure the original again; the calibration is made from its own answers."


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What the original's own answers taught."""

    suite: str
    """Digest of the prompts."""
    model: str
    """Digest of the judge's learned model."""
    threshold: float
    """Probability of a refusal from which an answer counts as one."""
    openings: tuple[str, ...]
    """Masked openings (`evals.judges.features.opening`) of its refusals that no benign answer has."""
    harmful: int
    """Answers to harmful prompts it was made from."""
    benign: int
    """Answers to benign twins and plain prompts."""

    @property
    def digest(self) -> str:
        """Hex sha256 of the file."""
        return hashlib.sha256(dump(self)).hexdigest()


def dump(calibration: Calibration) -> bytes:
    """The file's bytes."""
    document = {
        "schema": SCHEMA,
        "suite": calibration.suite,
        "model": calibration.model,
        "threshold": calibration.threshold,
        "openings": list(calibration.openings),
        "harmful": calibration.harmful,
        "benign": calibration.benign,
    }
    return json.dumps(document, ensure_ascii=False, indent=1).encode() + b"\n"


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write it, readable by the owner only."""
    write_private(path, dump(calibration))


def load_calibration(path: Path) -> Calibration:
    """Read a calibration.

    Raises:
        CalibrationError: it cannot be read, is too large, or breaks the format.
    """
    try:
        raw = path.read_bytes() if path.stat().st_size <= MAX_BYTES else b""
        fields = json.loads(raw)
    except OSError as error:
        raise CalibrationError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CalibrationError(f"{path}: not JSON, or larger than {MAX_BYTES >> 10} KiB") from error
    if not isinstance(fields, dict) or fields.keys() != _KEYS or fields["schema"] != SCHEMA:
        raise CalibrationError(f"{path}: not a {SCHEMA} file")
    threshold, openings, counts = (
        fields["threshold"],
        fields["openings"],
        (fields["harmful"], fields["benign"]),
    )
    if not isinstance(threshold, float) or not LOWEST <= threshold <= HIGHEST:
        raise CalibrationError(f"{path}: 'threshold' must lie between {LOWEST} and {HIGHEST}")
    if not isinstance(openings, list) or len(openings) > MAX_OPENINGS:
        raise CalibrationError(f"{path}: 'openings' must hold {MAX_OPENINGS} texts at most")
    if not all(isinstance(text, str) and _OPENING.fullmatch(text) for text in openings):
        raise CalibrationError(f"{path}: an opening is not one line of text")
    if not all(isinstance(count, int) and not isinstance(count, bool) and count >= 0 for count in counts):
        raise CalibrationError(f"{path}: 'harmful' and 'benign' must be counts")
    if not all(isinstance(fields[key], str) and _DIGEST.fullmatch(fields[key]) for key in ("suite", "model")):
        raise CalibrationError(f"{path}: 'suite' and 'model' must be digests")
    return Calibration(
        suite=fields["suite"],
        model=fields["model"],
        threshold=threshold,
        openings=tuple(openings),
        harmful=counts[0],
        benign=counts[1],
    )
