"""A fork as lists show it, and where its whole document comes from.

A site of 10,000 forks does not fit in memory as whole documents. Tables, counts, the digest and most exports
work on rows; a page about one fork loads that fork's document, and forgets it.
"""

from __future__ import annotations

from typing import Protocol

from reports.plan import digest
from reports.scan import (
    EditView,
    FilesView,
    HubView,
    LineageView,
    OriginalView,
    SafetyView,
    ScanDocument,
    VerdictView,
)


class ForkRow(Protocol):
    """What is known of a fork without loading its document. A `ScanDocument` is one.

    A row that is not the document itself has no evidence in its edits and its lineage.
    """

    @property
    def repo(self) -> str:
        """Its present name."""
        ...

    @property
    def commit(self) -> str:
        """What the verdict is about."""
        ...

    @property
    def release(self) -> str:
        """The release, as `org/name@<commit>`."""
        ...

    @property
    def original(self) -> OriginalView:
        """What it was compared with."""
        ...

    @property
    def hub(self) -> HubView:
        """What the Hub reports about it."""
        ...

    @property
    def files(self) -> FilesView:
        """Its files against the manifest, and hashes of its weight files."""
        ...

    @property
    def lineage(self) -> LineageView:
        """Claimed descent beside what the weights say."""
        ...

    @property
    def edits(self) -> tuple[EditView, ...]:
        """What was done to it."""
        ...

    @property
    def safety(self) -> SafetyView:
        """What that did to refusals."""
        ...

    @property
    def verdict(self) -> VerdictView:
        """The policy's conclusion."""
        ...

    @property
    def scanned_at(self) -> str:
        """ISO 8601, UTC."""
        ...


class Documents(Protocol):
    """Where the documents behind rows are."""

    def whole(self, row: ForkRow) -> ScanDocument:
        """The document of a row."""
        ...

    def version(self, row: ForkRow) -> str:
        """Changes whenever the document does; found without loading it."""
        ...


class InMemory:
    """The rows are the documents."""

    def whole(self, row: ForkRow) -> ScanDocument:
        """The row itself.

        Raises:
            TypeError: it is only a row.
        """
        if not isinstance(row, ScanDocument):
            raise TypeError(f"{row.repo}: this row is not a whole document")
        return row

    def version(self, row: ForkRow) -> str:
        """A digest of its content."""
        return digest(row)


IN_MEMORY = InMemory()
