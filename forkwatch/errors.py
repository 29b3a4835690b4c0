"""Exit codes, and the errors that are the user's to solve.

    ForkwatchError                 one line, a tip, an exit code
    ├── SettingsError              2
    ├── UnknownReleaseError        2
    ├── UnknownModelError          2
    ├── NothingToExamineError      3
    └── SignatureInvalidError      6

The stage packages raise their own roots (CrawlerError, DetectorError, EvalsError, ReportsError); `exit_code`
places every one of them in the same table. Anything else is a bug of ours and exits with 5.
"""

from __future__ import annotations

from enum import IntEnum

from crawler.interface import CrawlerError, InvalidRepoIdError, NoSpaceError
from detector.errors import (
    DetectorError,
    InvalidAttestationError,
    InvalidCardError,
    PrivateKeyError,
    SigningError,
    SigningServiceError,
    TrustError,
)
from detector.outputs.interface import NothingToLearnError, OutputsError
from evals.endpoint import EndpointError, EndpointOptionsError
from evals.harness import TaskError
from evals.interface import EngineMissingError, EvalsError, SuiteError
from evals.judges.interface import JudgeError, JudgeUnreachableError
from evals.tables import InputFileError
from evals.thresholds import ThresholdsError
from reports.interface import EmptySiteError, InvalidWeekError, NotASiteError, ReportsError


class Exit(IntEnum):
    """Exit codes of every command; a stable interface (docs/exit-codes.md)."""

    OK = 0
    """Nothing at or above `--fail-on`."""
    FINDING = 1
    """A finding at or above `--fail-on`, or files that are not the attested ones."""
    USAGE = 2
    """Wrong arguments or settings."""
    INCONCLUSIVE = 3
    """Inconclusive, or nothing to examine."""
    HUB = 4
    """The Hub or the network."""
    INTERNAL = 5
    """An internal error, or the machine cannot do the work (no disk space)."""
    SIGNATURE = 6
    """The original's signature, or a signed verdict's, does not verify."""


class ForkwatchError(Exception):
    """An error the user can act on."""

    code: Exit = Exit.INTERNAL
    tip: str = ""

    def __init__(self, message: str, *, tip: str | None = None) -> None:
        super().__init__(message)
        if tip is not None:
            self.tip = tip


class SettingsError(ForkwatchError):
    """The settings file or an environment variable is wrong."""

    code = Exit.USAGE
    tip = "`forkwatch init` writes a commented forkwatch.toml to start from."


class UnknownReleaseError(ForkwatchError):
    """No guarded release of that name."""

    code = Exit.USAGE
    tip = "`forkwatch release list` shows the guarded releases; `forkwatch release add` adds one."


class UnknownModelError(ForkwatchError):
    """No known model of that name."""

    code = Exit.USAGE
    tip = "`forkwatch index list` shows the known models."


class NothingToExamineError(ForkwatchError):
    """No release, no candidate, no result: never reported as success."""

    code = Exit.INCONCLUSIVE
    tip = "Add a release with `forkwatch release add`."


class SignatureInvalidError(ForkwatchError):
    """The original's signature does not verify, so nothing may be compared with it."""

    code = Exit.SIGNATURE
    tip = "Do not use these files. Check the public key, then ask the publisher."


UserFacingError = ForkwatchError | CrawlerError | DetectorError | OutputsError | EvalsError | ReportsError
USER_FACING: tuple[type[Exception], ...] = (
    ForkwatchError,
    CrawlerError,
    DetectorError,
    OutputsError,
    EvalsError,
    ReportsError,
)


_EXITS: tuple[tuple[type[Exception], Exit], ...] = (
    (InvalidRepoIdError, Exit.USAGE),
    (NoSpaceError, Exit.INTERNAL),
    (CrawlerError, Exit.HUB),
    (InvalidAttestationError, Exit.SIGNATURE),
    (PrivateKeyError, Exit.USAGE),
    (SigningError, Exit.USAGE),
    (InvalidCardError, Exit.USAGE),
    (SigningServiceError, Exit.HUB),
    (TrustError, Exit.USAGE),
    (DetectorError, Exit.INCONCLUSIVE),
    (NothingToLearnError, Exit.INCONCLUSIVE),
    (OutputsError, Exit.USAGE),
    (SuiteError, Exit.USAGE),
    (ThresholdsError, Exit.USAGE),
    (EngineMissingError, Exit.USAGE),
    (TaskError, Exit.USAGE),
    (EmptySiteError, Exit.INCONCLUSIVE),
    (InvalidWeekError, Exit.USAGE),
    (NotASiteError, Exit.USAGE),
    (InputFileError, Exit.USAGE),
    (EndpointOptionsError, Exit.USAGE),
    (EndpointError, Exit.HUB),
    (JudgeUnreachableError, Exit.HUB),
    (JudgeError, Exit.USAGE),
)
"""Errors of the stage packages, the special before the general."""


def exit_code(error: Exception) -> Exit:
    """The row of the table for an error that reached a command."""
    if isinstance(error, ForkwatchError):
        return error.code
    return next((code for kind, code in _EXITS if isinstance(error, kind)), Exit.INTERNAL)
