"""How a check says no: whatever a library raises on hostile input means "not verified", with its class."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from detector.errors import DetectorError, InvalidBundleError

MAX_REASON = 500
"""Characters of a reason."""


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """Turn every failure of the libraries inside into an `InvalidBundleError`, which keeps it as its cause.

    Eight classes were seen from `model_signing` 1.1.1 for bad input alone, so none is named here. A panic of
    a library written in Rust derives from `BaseException` and is caught too; an interrupt is not.
    """
    try:
        yield
    except DetectorError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__module__ != "pyo3_runtime":
            raise
        raise InvalidBundleError(printable(str(error))) from error


def reason_of(error: BaseException) -> str:
    """`<class that refused>: <what it said>`."""
    return f"{type(error.__cause__ or error).__name__}: {error}"[:MAX_REASON]


def printable(text: str) -> str:
    """At most 500 characters of printable ASCII: file names and the libraries' messages may hold anything."""
    return "".join(char if " " <= char <= "~" else ascii(char)[1:-1] for char in text[:MAX_REASON])[
        :MAX_REASON
    ]
