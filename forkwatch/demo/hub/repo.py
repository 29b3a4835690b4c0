"""A repository and its commits, as values."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from forkwatch.demo.hub.blobs import Blob
from forkwatch.demo.hub.card import Facts, derive


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit on `main`."""

    id: str
    message: str
    date: datetime
    files: Mapping[str, Blob]
    """By path, sorted."""
    facts: Facts

    @property
    def title(self) -> str:
        """The first line of the message."""
        return self.message.partition("\n")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Repo:
    """One model repository; `history` ends with the head of `main` and is never empty."""

    name: str
    object_id: str
    """24 hex digits, the Hub's `_id`; survives a rename."""
    created_at: datetime
    history: tuple[Commit, ...]
    pushes: int = 1
    """Commits ever pushed, those that a force push dropped included."""
    gated: bool = False
    disabled: bool = False
    private: bool = False
    downloads: int = 0
    likes: int = 0
    scanned: bool = False
    """Whether the Hub's own scanners are done."""
    flagged: tuple[tuple[str, str], ...] = ()
    """Path and level of the files in which they found something."""

    @property
    def head(self) -> Commit:
        """The head of `main`."""
        return self.history[-1]

    @property
    def author(self) -> str | None:
        """The namespace; None for the oldest repositories, which have none."""
        namespace, slash, _ = self.name.partition("/")
        return namespace if slash else None

    def at(self, commit: Commit) -> Repo:
        """The repository as it was when `commit` was the head."""
        return replace(self, history=self.history[: self.history.index(commit) + 1])

    def commit(self, revision: str) -> Commit | None:
        """A commit by branch name or full id."""
        if revision in {"main", "refs/heads/main"}:
            return self.head
        return next((commit for commit in self.history if commit.id == revision), None)


def make_commit(
    files: Mapping[str, Blob], message: str, date: datetime, parents: tuple[Commit, ...]
) -> Commit:
    """A commit whose id is a function of its files, its message and its parents alone."""
    ordered = dict(sorted(files.items()))
    digest = hashlib.sha1(usedforsecurity=False)
    for part in (*(f"parent {parent.id}" for parent in parents), f"message {message}"):
        digest.update(part.encode() + b"\0")
    for path, blob in ordered.items():
        digest.update(f"{blob.git_oid} {path}".encode() + b"\0")
    return Commit(digest.hexdigest(), message, date, ordered, derive(ordered))


def object_id(text: str) -> str:
    """24 hex digits, the shape of the Hub's `_id`."""
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:24]
