"""A branch of a git repository, as GitHub Pages serves it: one commit without a parent, pushed by force.

The history of a site is of no use to its readers and would outgrow the repository's limit. The push has a
lease: a branch that somebody else has moved meanwhile is not overwritten. A bare repository of our own keeps
the objects that are published, so that git sends only those that are new; it can be deleted at any time.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from forkwatch.errors import Exit
from forkwatch.publish.interface import (
    REBUILD,
    ChangedError,
    NotOursError,
    PublishError,
    PublishResult,
    difference,
)
from reports.manifest import NAME, Manifest, from_text
from reports.switch import sole_builder

_SETTINGS = {
    "core.autocrlf": "false",
    "core.excludesFile": os.devnull,
    "core.attributesFile": os.devnull,
    "core.hooksPath": os.devnull,
    "core.fileMode": "false",
    "commit.gpgSign": "false",
    "gc.auto": "0",
}
"""A user's own settings must not leave files out, change bytes, or run anything."""


@dataclass(frozen=True, slots=True)
class BranchPublisher:
    """Publishes to a branch of `remote`."""

    remote: str
    """What `git push` takes: a URL or a path."""
    cache: Path
    """Our bare repository."""
    branch: str = "gh-pages"
    timeout: float = 600
    """Seconds that one git command may take."""

    def publish(self, build_dir: Path, manifest: Manifest) -> PublishResult:
        """See `Publisher`."""
        with sole_builder(self.cache):
            self._prepare()
            tip = self._tip()
            there = None if tip is None else self._published(tip)
            changes = difference(there, manifest)
            if tip is None or changes.sent or changes.removed:
                self._push(self._commit(build_dir, manifest), tip)
        return changes.result(f"{self.remote} {self.branch}")

    def _prepare(self) -> None:
        for lock in self.cache.glob("*.lock"):  # of a git that was killed: nobody else uses this repository
            lock.unlink()
        if self._ask("rev-parse", "--git-dir") is None:  # there is none, or `init` was killed half way
            self._git("init", "--quiet", "--bare", str(self.cache), where=None)

    def _tip(self) -> str | None:
        """The commit that is published; its trees and manifest are here after this."""
        line = self._git("ls-remote", self.remote, self._ref)
        tip = line.split("\t")[0].strip() or None
        if tip is not None and self._ask("cat-file", "-e", f"{tip}^{{tree}}") is None:
            self._git("fetch", "--quiet", "--depth=1", "--no-tags", self.remote, self._ref)
        return tip

    def _published(self, tip: str) -> Manifest:
        text = self._ask("cat-file", "blob", f"{tip}:{NAME}")
        if text is None:
            raise NotOursError(f"the branch {self.branch} of {self.remote} was not published by forkwatch")
        return from_text(text) or Manifest({}, "")

    def _commit(self, build_dir: Path, manifest: Manifest) -> str:
        tree = ("--work-tree", str(build_dir))
        self._git(*tree, "add", "--all", "--force", ".")
        found = {line.rpartition("\t")[2] for line in self._git("ls-files", "-z").split("\0") if line}
        if found != {*manifest.files, NAME}:
            odd = sorted(found ^ {*manifest.files, NAME})
            raise PublishError(f"{odd[0]} is not as the manifest has it", tip=REBUILD)
        written = self._git("write-tree").strip()
        return self._git("commit-tree", written, "-m", "Site built by forkwatch").strip()

    def _push(self, commit: str, tip: str | None) -> None:
        lease = f"--force-with-lease={self._ref}:{tip or ''}"
        try:
            self._git("push", "--quiet", lease, self.remote, f"{commit}:{self._ref}")
        except PublishError as error:
            if "stale info" in str(error):
                raise ChangedError(f"the branch {self.branch} was moved meanwhile") from error
            raise

    @property
    def _ref(self) -> str:
        return f"refs/heads/{self.branch}"

    def _ask(self, *arguments: str) -> str | None:
        """The output, or None where git says no."""
        try:
            return self._git(*arguments)
        except PublishError:
            return None

    def _git(self, *arguments: str, where: Path | None = Path()) -> str:
        folder = [] if where is None else ["--git-dir", str(self.cache)]
        settings = [part for pair in _SETTINGS.items() for part in ("-c", "=".join(pair))]
        try:
            done = subprocess.run(
                ["git", *settings, *folder, *arguments],
                capture_output=True,
                check=False,
                env=_environment(),
                timeout=self.timeout,
            )
        except FileNotFoundError as error:
            raise MissingGitError("there is no git on this machine") from error
        except subprocess.TimeoutExpired as error:
            raise PublishError(f"git {arguments[0]} took more than {self.timeout:g} s") from error
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()
            raise PublishError(
                f"git {arguments[0]} failed: {said[-500:]}",
                tip="Check the address, and that git may push there without being asked for a password.",
            )
        return done.stdout.decode(errors="surrogateescape")


class MissingGitError(PublishError):
    """A branch cannot be published without git."""

    code = Exit.INTERNAL
    tip = "Install git, or publish to a folder."


def _environment() -> dict[str, str]:
    """Never asks anybody, says the same whoever runs it, and knows no other repository."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or "SSH" in name}
    who = {f"GIT_{role}_{part}": value for role in ("AUTHOR", "COMMITTER") for part, value in _WHO.items()}
    return own | who | {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}


_WHO = {"NAME": "forkwatch", "EMAIL": "forkwatch@localhost"}
