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
from functools import cache


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


@cache
def user_facing() -> tuple[type[Exception], ...]:
    """The roots of all errors that are the user's to solve."""
    # Asked for when something went wrong: to load all stages costs more than most commands.
    from crawler.interface import CrawlerError
    from detector.errors import DetectorError
    from detector.outputs.interface import OutputsError
    from evals.interface import EvalsError
    from reports.interface import ReportsError

    return (ForkwatchError, CrawlerError, DetectorError, OutputsError, EvalsError, ReportsError)


@cache
def _exits() -> tuple[tuple[type[Exception], Exit], ...]:
    """Errors of the stage packages, the special before the general."""
    from crawler.interface import CrawlerError, InvalidRepoIdError, NoSpaceError
    from detector import errors as detector
    from detector.outputs.interface import NothingToLearnError, OutputsError
    from evals.endpoint import EndpointError, EndpointOptionsError
    from evals.harness import TaskError
    from evals.interface import EngineMissingError, SuiteError
    from evals.judges.interface import JudgeError, JudgeUnreachableError
    from evals.tables import InputFileError
    from evals.thresholds import ThresholdsError
    from reports.interface import EmptySiteError, InvalidWeekError, NotASiteError

    return (
        (InvalidRepoIdError, Exit.USAGE),
        (NoSpaceError, Exit.INTERNAL),
        (CrawlerError, Exit.HUB),
        (detector.InvalidAttestationError, Exit.SIGNATURE),
        (detector.PrivateKeyError, Exit.USAGE),
        (detector.SigningError, Exit.USAGE),
        (detector.InvalidCardError, Exit.USAGE),
        (detector.SigningServiceError, Exit.HUB),
        (detector.TrustError, Exit.USAGE),
        (detector.DetectorError, Exit.INCONCLUSIVE),
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


def exit_code(error: Exception) -> Exit:
    """The row of the table for an error that reached a command."""
    if isinstance(error, ForkwatchError):
        return error.code
    return next((code for kind, code in _exits() if isinstance(error, kind)), Exit.INTERNAL)
