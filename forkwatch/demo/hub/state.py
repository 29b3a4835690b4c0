"""What the hub holds: repositories, their commits and files. Values are frozen; only `HubState` changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath
from threading import RLock

from crawler.interface import parse_repo_id
from forkwatch.demo.hub.blobs import Blob, BlobFactory
from forkwatch.demo.hub.catalogue import Catalogue, Wanted
from forkwatch.demo.hub.repo import Commit, Repo, make_commit
from forkwatch.demo.hub.xet import xet_hash

DATASETS = "datasets/"
"""Begins the name of a dataset here, as it does in addresses; no model's namespace is called so."""

SPACES = "spaces/"
"""Begins the name of a Space, likewise."""

Build = Callable[[Repo, datetime], Commit]
"""Makes the commit that comes next in a repository, with this date."""


class HubState:
    """All repositories. Every method is atomic."""

    def __init__(self) -> None:
        self._catalogue = Catalogue()
        self._others: dict[str, Repo] = {}
        self._renamed: dict[str, str] = {}
        self._created = 0
        self._blobs: dict[str, Blob] = {}
        self._xet: dict[str, Blob] = {}
        self._factory = BlobFactory()
        self._lock = RLock()

    def select(self, wanted: Wanted, size: int) -> list[Repo]:
        """The next `size` repositories of a listing."""
        with self._lock:
            return self._catalogue.select(wanted, size)

    def tagged(self, tag: str) -> list[Repo]:
        """Every repository with a tag, private ones included."""
        with self._lock:
            return self._catalogue.tagged(tag)

    def find(self, name: str) -> Repo | None:
        """A repository by its present name."""
        with self._lock:
            return self._others.get(name) or self._catalogue.get(name)

    def moved_to(self, name: str) -> str | None:
        """The present name of a repository that was once called `name`."""
        with self._lock:
            while name not in self._catalogue and name in self._renamed:
                name = self._renamed[name]
            return name if name in self._catalogue else None

    def blob(self, sha256: str) -> Blob | None:
        """An LFS file by its hash; like a CDN's store, it forgets nothing."""
        with self._lock:
            return self._blobs.get(sha256)

    def xet_file(self, file_hash: str) -> Blob | None:
        """An LFS file by its Xet hash."""
        with self._lock:
            return self._xet.get(file_hash)

    def remember(self, *blobs: Blob) -> None:
        """Let the CDN have these files; those that are not LFS are left out."""
        with self._lock:
            for blob in blobs:
                if blob.sha256 is not None:
                    self._blobs[blob.sha256] = blob
                    self._xet[xet_hash(blob.sha256)] = blob

    def blobs(self, files: Mapping[str, bytes | Path]) -> dict[str, Blob]:
        """Contents as files of a commit.

        Raises:
            ValueError: a path is absolute or climbs.
        """
        made = {_checked(path): self._factory.blob(path, source) for path, source in files.items()}
        self.remember(*made.values())
        return made

    def create(self, repo: Repo, *, legacy: bool = False) -> None:
        """Add a repository; a legacy one may lack a namespace.

        Raises:
            ValueError: the name is taken.
            InvalidRepoIdError: it is not a model id.
        """
        plain = repo.name.removeprefix(DATASETS).removeprefix(SPACES)
        parse_repo_id(f"legacy/{plain}" if legacy and repo.author is None else plain)
        with self._lock:
            if self.find(repo.name) is not None:
                raise ValueError(f"{repo.name} exists")
            self._renamed.pop(repo.name, None)
            self._put(repo)

    def next_ordinal(self) -> int:
        """1 for the first repository ever created here, and so on."""
        with self._lock:
            self._created += 1
            return self._created

    def commit(  # noqa: PLR0913  # a commit and how it is pushed, by keyword
        self,
        name: str,
        files: Mapping[str, bytes | Path],
        message: str,
        *,
        replace_all: bool,
        squash: bool,
        date: datetime | None,
    ) -> str:
        """Push one commit and return its id.

        Args:
            name: the repository.
            files: path to content; a `Path` is read where it lies, now for its hash and later for its bytes.
            message: commit message; its first line is the title.
            replace_all: these are all the files of the commit, rather than changes to its parent's.
            squash: a force push: the commit has no parents, and the old ones are gone.
            date: see `push`.

        Raises:
            KeyError: no such repository.
            OSError: a file cannot be read.
            ValueError: a path is absolute or climbs.
        """
        added = self.blobs(files)

        def build(repo: Repo, at: datetime) -> Commit:
            kept = {} if replace_all or squash else dict(repo.head.files)
            return make_commit(kept | added, message, at, () if squash else repo.history[-1:])

        return self.push(name, build, date, squash=squash)

    def push(self, name: str, build: Build, date: datetime | None, *, squash: bool) -> str:
        """Push the commit that `build` makes and return its id.

        Args:
            name: the repository.
            build: called once, with the repository as it is.
            date: of the commit; None: so many minutes after the creation as commits were pushed.
            squash: the old commits are gone.

        Raises:
            KeyError: no such repository.
        """
        with self._lock:
            repo = self._present(name)
            commit = build(repo, date or repo.created_at + timedelta(minutes=repo.pushes))
            history = () if squash else repo.history
            self._put(replace(repo, history=(*history, commit), pushes=repo.pushes + 1))
        return commit.id

    def delete(self, name: str) -> None:
        """Delete a repository.

        Raises:
            KeyError: no such repository.
        """
        with self._lock:
            if self._others.pop(name, None) is None:
                self._catalogue.drop(name)

    def rename(self, old: str, new: str) -> None:
        """Rename a model; the old name redirects, as on the live Hub.

        Raises:
            KeyError: no such repository.
            ValueError: the new name is taken.
            InvalidRepoIdError: the new name is not a model id.
        """
        with self._lock:
            self.create(replace(self._catalogue[old], name=new))
            self._catalogue.drop(old)
            self._renamed[old] = new

    def change(self, name: str, changed: Callable[[Repo], Repo]) -> None:
        """Put another state of a repository in place of its present one.

        Raises:
            KeyError: no such repository.
        """
        with self._lock:
            self._put(changed(self._present(name)))

    def _present(self, name: str) -> Repo:
        return self._others.get(name) or self._catalogue[name]

    def _put(self, repo: Repo) -> None:
        """A dataset, or a Space, is in no listing of models."""
        if repo.name.startswith((DATASETS, SPACES)):
            self._others[repo.name] = repo
        else:
            self._catalogue.put(repo)


def _checked(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or path != "/".join(parts) or ".." in parts:
        raise ValueError(f"not a path inside a repository: {path!r}")
    return path
