"""What the hub holds: repositories, their commits and files. Values are frozen; only `HubState` changes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath
from threading import RLock

from crawler.interface import parse_repo_id
from forkwatch.demo.hub.blobs import Blob, BlobFactory
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

    @property
    def head(self) -> Commit:
        """The head of `main`."""
        return self.history[-1]

    def at(self, commit: Commit) -> Repo:
        """The repository as it was when `commit` was the head."""
        return replace(self, history=self.history[: self.history.index(commit) + 1])

    def commit(self, revision: str) -> Commit | None:
        """A commit by branch name or full id."""
        if revision in {"main", "refs/heads/main"}:
            return self.head
        return next((commit for commit in self.history if commit.id == revision), None)


class HubState:
    """All repositories. Every method is atomic."""

    def __init__(self) -> None:
        self._repos: dict[str, Repo] = {}
        self._renamed: dict[str, str] = {}
        self._created = 0
        self._blobs: dict[str, Blob] = {}
        self._factory = BlobFactory()
        self._lock = RLock()

    def repos(self) -> tuple[Repo, ...]:
        """Every repository, private ones included."""
        with self._lock:
            return tuple(self._repos.values())

    def find(self, name: str) -> Repo | None:
        """A repository by its present name."""
        with self._lock:
            return self._repos.get(name)

    def moved_to(self, name: str) -> str | None:
        """The present name of a repository that was once called `name`."""
        with self._lock:
            while name not in self._repos and name in self._renamed:
                name = self._renamed[name]
            return name if name in self._repos else None

    def blob(self, sha256: str) -> Blob | None:
        """An LFS file by its hash; like a CDN's store, it forgets nothing."""
        with self._lock:
            return self._blobs.get(sha256)

    def create(self, repo: Repo) -> None:
        """Add a repository.

        Raises:
            ValueError: the name is taken.
            InvalidRepoIdError: it is not a model id.
        """
        parse_repo_id(repo.name)
        with self._lock:
            if repo.name in self._repos:
                raise ValueError(f"{repo.name} exists")
            self._renamed.pop(repo.name, None)
            self._repos[repo.name] = repo

    def next_ordinal(self) -> int:
        """1 for the first repository ever created here, and so on."""
        with self._lock:
            self._created += 1
            return self._created

    def commit(
        self, name: str, files: Mapping[str, bytes | Path], message: str, *, replace_all: bool, squash: bool
    ) -> str:
        """Push one commit and return its id.

        Args:
            name: the repository.
            files: path to content; a `Path` is read where it lies, now for its hash and later for its bytes.
            message: commit message; its first line is the title.
            replace_all: these are all the files of the commit, rather than changes to its parent's.
            squash: a force push: the commit has no parents, and the old ones are gone.

        Raises:
            KeyError: no such repository.
            OSError: a file cannot be read.
            ValueError: a path is absolute or climbs.
        """
        added = {_checked(path): self._factory.blob(path, source) for path, source in files.items()}
        with self._lock:
            repo = self._repos[name]
            history = () if squash else repo.history
            kept = {} if replace_all or squash else dict(repo.head.files)
            commit = make_commit(
                kept | added, message, repo.created_at + timedelta(minutes=repo.pushes), history[-1:]
            )
            self._blobs.update({blob.sha256: blob for blob in added.values() if blob.sha256 is not None})
            self._repos[name] = replace(repo, history=(*history, commit), pushes=repo.pushes + 1)
        return commit.id

    def delete(self, name: str) -> None:
        """Delete a repository.

        Raises:
            KeyError: no such repository.
        """
        with self._lock:
            del self._repos[name]

    def rename(self, old: str, new: str) -> None:
        """Rename a repository; the old name redirects, as on the live Hub.

        Raises:
            KeyError: no such repository.
            ValueError: the new name is taken.
            InvalidRepoIdError: the new name is not a model id.
        """
        with self._lock:
            self.create(replace(self._repos[old], name=new))
            del self._repos[old]
            self._renamed[old] = new

    def change(self, name: str, *, gated: bool | None, disabled: bool | None, private: bool | None) -> None:
        """Change who may read a repository; None leaves a flag as it is.

        Raises:
            KeyError: no such repository.
        """
        with self._lock:
            repo = self._repos[name]
            self._repos[name] = replace(
                repo,
                gated=repo.gated if gated is None else gated,
                disabled=repo.disabled if disabled is None else disabled,
                private=repo.private if private is None else private,
            )


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


def _checked(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or path != "/".join(parts) or ".." in parts:
        raise ValueError(f"not a path inside a repository: {path!r}")
    return path
