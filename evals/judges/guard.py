"""A guard model from a local folder as a judge, run in a confined child.

The folder is the operator's; of it only configuration, tokenizer, template and safetensors are read, and no
code. What comes back from the child is checked like a fork's: labels, truth values and known reasons, nothing
else.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from evals.interface import EvaluationFailedError, Label, Limits
from evals.judges.adapt import Progress, quiet
from evals.judges.guard_formats import REASONS, GuardKind, detect
from evals.judges.interface import Answered, JudgeError, Opinion
from evals.sandbox import Errand, admit, run
from evals.wire import write_private

CHILD = (sys.executable, "-I", "-m", "evals.judges.guard_child")
ANSWERS = "answers.json"
_SAMPLE = 1 << 20
_TOLD = re.compile(r"judge (\d+)/(\d+)")
_DEFAULT_LIMITS = Limits()


class GuardJudge:
    """A `BatchJudge`.

    Raises:
        JudgeError: the folder holds no guard that forkwatch knows.
    """

    def __init__(  # noqa: PLR0913 - keyword-only
        self,
        folder: Path,
        *,
        kind: GuardKind | None = None,
        device: str = "auto",
        limits: Limits = _DEFAULT_LIMITS,
        timeout_seconds: float = 3600.0,
        progress: Progress = quiet,
    ) -> None:
        self._folder = folder.absolute()
        self._kind = kind or detect(folder)
        self._device = device
        self._limits = limits
        self._timeout = timeout_seconds
        self._progress = progress

    @cached_property
    def id(self) -> str:
        """Name of the folder, a digest that tells its versions apart, and the format."""
        return f"guard:{self._folder.resolve().name}#{_digest(self._folder)}/{self._kind.value}-1"

    def opinions(self, answers: Sequence[Answered]) -> list[Opinion]:
        """One opinion an answer, in order.

        Raises:
            JudgeError: the model cannot be loaded, or its child broke its contract.
            IsolationError: full isolation is required, and this machine does not give it.
        """
        if not answers:
            return []
        admit(self._device, self._limits)
        with tempfile.TemporaryDirectory(prefix="forkwatch-guard-") as place:
            scratch = Path(place).resolve()
            asked = scratch / ANSWERS
            write_private(asked, json.dumps([[item.prompt, item.answer] for item in answers]).encode())
            request = {
                "folder": str(self._folder),
                "kind": self._kind.value,
                "device": self._device,
                "answers": str(asked),
            }
            errand = Errand(
                scratch=scratch,
                inputs=(self._folder, asked),
                outputs=(),
                device=self._device,
                limits=self._limits,
                timeout_seconds=self._timeout,
            )
            try:
                line = run(errand, CHILD, json.dumps(request).encode() + b"\n", progress=self._hear)
            except EvaluationFailedError as error:
                raise JudgeError(f"the guard in {self._folder.name} could not be run: {error}") from error
        return _opinions(line, len(answers))

    def _hear(self, text: str) -> None:
        if found := _TOLD.fullmatch(text):
            self._progress(int(found[1]), int(found[2]))


def _opinions(line: bytes, wanted: int) -> list[Opinion]:
    """What the child said, if it is about these answers.

    Raises:
        JudgeError: it is not.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        rows = TypeAdapter(list[tuple[Label, bool | None, str]]).validate_json(line)
    except ValidationError as error:
        raise JudgeError("the guard's child sent no valid labels") from error
    odd = any(reason not in REASONS if label is Label.UNGRADEABLE else reason for label, _, reason in rows)
    if len(rows) != wanted or odd:
        raise JudgeError("the guard's child sent other labels than asked for")
    return [Opinion(label, harmful, reason) for label, harmful, reason in rows]


def _digest(folder: Path) -> str:
    """Eight hex digits over names, sizes and samples of the files: tells versions apart, proves nothing."""
    digest = hashlib.sha256()
    kinds = ("*.json", "*.jinja", "*.safetensors")
    for path in sorted(path for pattern in kinds for path in folder.glob(pattern)):
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        with path.open("rb") as file:
            for start in (0, size // 2, max(0, size - _SAMPLE)):
                file.seek(start)
                digest.update(file.read(_SAMPLE))
    return digest.hexdigest()[:8]
