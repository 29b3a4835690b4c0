"""What stages say, as log lines."""

from __future__ import annotations

import structlog


class LogTalk:
    """A `Talk` for processes that nobody watches. Progress is left out: a log is no progress bar."""

    def __init__(self) -> None:
        self._log = structlog.get_logger("forkwatch.pipeline")

    def stage(self, repo: str, stage: str) -> None:
        """A stage of one repository begins."""
        self._log.info("stage", repo=repo, stage=stage)

    def progress(self, what: str, done: int, total: int) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """One line for the reader."""
        self._log.info("note", text=text)
