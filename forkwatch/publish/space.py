"""A static Space on the Hub, by huggingface_hub: what is uploaded how (inline, LFS, Xet) is its business.

Files that the published site does not have go first, in batches: no page of it links to them. Then one
commit brings everything that it has and that is another now, the deletions and the manifest, on condition
that nobody has committed meanwhile (`parent_commit`). So readers see the old site until they see the new one.
Only where that commit would exceed `FINAL_BYTES` do other pages than lists go before it.

Reading the Hub goes through `crawler.transport`; this is the one place that writes, with a token of its own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from forkwatch.publish.interface import (
    ChangedError,
    NotOursError,
    PublishError,
    PublishResult,
    content,
    difference,
)
from reports.manifest import NAME, Manifest, Record, from_text

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi

BATCH = 500
"""Files of one commit. The Hub advises fewer than 100 where they are large; pages are small."""
FINAL_BYTES = 50_000_000
"""Of the one commit that readers notice. A commit's body is at most some hundred megabytes."""

CARD = """---
title: forkwatch
emoji: 🔎
colorFrom: gray
colorTo: blue
sdk: static
app_file: index.html
pinned: false
---
What became of a model's guardrails in its public derivatives. Built by forkwatch.
"""
_CARD = "README.md"
_LISTS = (
    "index.html",
    "verdicts.json",
    "releases/",
    "api/v1/releases/",
    "assets/",
    "digest/",
    "api/v1/index",
)


@dataclass(frozen=True, slots=True)
class SpacePublisher:
    """Publishes to a Space."""

    endpoint: str
    repo: str
    """`org/name`"""
    token: SecretStr
    """One that may write."""
    public: bool = False
    """Of a Space that is made now. Pages about models that lost their refusals may attract moderation."""

    def publish(self, build_dir: Path, manifest: Manifest) -> PublishResult:
        """See `Publisher`."""
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError

        api = HfApi(endpoint=self.endpoint, token=self.token.get_secret_value(), library_name="forkwatch")
        try:
            return self._publish(api, build_dir, manifest)
        except HfHubHTTPError as error:
            status = error.response.status_code
            if status in {409, 412}:
                raise ChangedError(f"{self.repo} was changed meanwhile") from error
            raise PublishError(f"{self.repo}: the Hub answers {status}") from error
        except (OSError, RuntimeError) as error:  # the network, or an upload within a thread
            raise PublishError(f"{self.repo}: {type(error).__name__}: {str(error)[:200]}") from error

    def _publish(self, api: HfApi, build_dir: Path, manifest: Manifest) -> PublishResult:
        api.create_repo(
            self.repo, repo_type="space", space_sdk="static", private=not self.public, exist_ok=True
        )
        head = api.repo_info(self.repo, repo_type="space").sha
        there = self._published(api, head)
        changes = difference(there, manifest)
        place = f"{self.endpoint}/spaces/{self.repo}"
        if there is not None and not changes.sent and not changes.removed:
            return changes.result(place)
        early, final = _order(changes.added, changes.changed)
        for batch in _batches(early):
            done = api.create_commit(
                self.repo,
                [_add(path, content(build_dir, path, early[path])) for path in batch],
                repo_type="space",
                commit_message="Pages that nothing links to yet",
                parent_commit=head,
            )
            head = done.oid
        operations: list[Any] = [_add(path, content(build_dir, path, found)) for path, found in final.items()]
        operations += [_add(NAME, manifest.to_text().encode()), _add(_CARD, CARD.encode())]
        operations += [_delete(path) for path in changes.removed]
        api.create_commit(
            self.repo,
            operations,
            repo_type="space",
            commit_message="Site built by forkwatch",
            parent_commit=head,
        )
        return changes.result(place)

    def _published(self, api: HfApi, head: str | None) -> Manifest | None:
        """The manifest there; None on a Space that holds no site yet."""
        tree = api.list_repo_tree(self.repo, repo_type="space", revision=head)
        names = {entry.path for entry in tree}
        if NAME not in names:
            if names - _FIRST:
                raise NotOursError(f"{self.repo} was not published by forkwatch")
            return None
        with tempfile.TemporaryDirectory() as folder:
            path = api.hf_hub_download(self.repo, NAME, repo_type="space", revision=head, local_dir=folder)
            return from_text(Path(path).read_text(encoding="utf-8")) or Manifest({}, "")


_FIRST = frozenset(
    {
        *(_CARD, ".gitattributes", "index.html", "style.css"),  # of a Space that was made a moment ago
        *("forks", "api", "findings", "methodology", "how-to-read.html", "changes", ".nojekyll"),
    }
)
"""What there may be before the first manifest: also what batches of a publication that was killed left."""


def _order(
    added: Mapping[str, Record], changed: Mapping[str, Record]
) -> tuple[dict[str, Record], dict[str, Record]]:
    """What goes before the last commit, and what goes with it."""
    early = {path: found for path, found in added.items() if not path.startswith(_LISTS)}
    final = {path: found for path, found in added.items() if path not in early} | dict(changed)
    if sum(found.size for found in final.values()) > FINAL_BYTES:
        early |= {path: found for path, found in final.items() if not path.startswith(_LISTS)}
        final = {path: found for path, found in final.items() if path not in early}
    return early, final


def _batches(files: Mapping[str, Record]) -> Iterator[list[str]]:
    """Files about the fork first, then others; each batch small enough for one request."""
    batch: list[str] = []
    size = 0
    for path in sorted(files):
        if batch and (len(batch) == BATCH or size + files[path].size > FINAL_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(path)
        size += files[path].size
    if batch:
        yield batch


def _add(path: str, data: bytes) -> CommitOperationAdd:
    from huggingface_hub import CommitOperationAdd

    return CommitOperationAdd(path, data)


def _delete(path: str) -> object:
    from huggingface_hub import CommitOperationDelete

    return CommitOperationDelete(path)
