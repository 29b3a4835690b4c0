"""Where forkwatch keeps things: one folder, moved by FORKWATCH_STATE_DIR."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

LOCAL_STATE = Path(".forkwatch")
"""A state folder in the current directory wins over the user's: a project or a demo stays in one place."""


@dataclass(frozen=True, slots=True)
class StateDir:
    """The folder that holds all state. Deleting it loses results, never anything else."""

    root: Path

    @property
    def database(self) -> Path:
        """SQLite file."""
        return self.root / "forkwatch.db"

    @property
    def cache(self) -> Path:
        """Downloaded files, by content hash; safe to delete."""
        return self.root / "cache"

    @property
    def originals(self) -> Path:
        """Verified releases, one folder a commit."""
        return self.root / "originals"

    @property
    def blobs(self) -> Path:
        """Transcripts and other large results, named by sha256, 0600."""
        return self.root / "blobs"

    @property
    def answers(self) -> Path:
        """Raw answers of releases, by what they depend on, 0700; deleting them costs time only."""
        return self.root / "answers"

    @property
    def operator_secret(self) -> Path:
        """What private probes are drawn from, 0600; without it, those of the past cannot be told any more."""
        return self.root / "operator-secret"

    @property
    def index(self) -> Path:
        """Fingerprints of known models, one file each, and the table that they are searched in."""
        return self.root / "index"

    @property
    def classifiers(self) -> Path:
        """Classifiers of outputs, one folder each, named by the digest of its configuration."""
        return self.root / "classifiers"

    @property
    def packs(self) -> Path:
        """Reference packs, one folder a release, 0700: they hold sampled answers."""
        return self.root / "packs"

    @property
    def scratch(self) -> Path:
        """Working folders of child processes; emptied after each."""
        return self.root / "scratch"

    @property
    def journals(self) -> Path:
        """What comparisons that are not finished have found so far; safe to delete."""
        return self.root / "journals"

    @property
    def demo(self) -> Path:
        """The demo's model families."""
        return self.root / "demo"

    @property
    def site(self) -> Path:
        """The published site."""
        return self.root / "site"

    def create(self) -> None:
        """Make the folder, readable by its owner alone: it will hold raw answers."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in (self.cache, self.originals, self.blobs, self.index, self.scratch):
            folder.mkdir(exist_ok=True, mode=0o700)


def find_state_dir() -> StateDir:
    """FORKWATCH_STATE_DIR, else `./.forkwatch` if there is one, else the user's state folder."""
    if chosen := os.environ.get("FORKWATCH_STATE_DIR"):
        return StateDir(Path(chosen).expanduser().absolute())
    if LOCAL_STATE.is_dir():
        return StateDir(LOCAL_STATE.absolute())
    return StateDir(platformdirs.user_state_path("forkwatch"))
