"""A loopback hub on which things happen: faults, new commits, new forks, forks that go.

What changes is real for every stage: a new fork has weights that nobody has, so it is read and evaluated.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

from forkwatch.demo.hub import Fault, LoopbackHub
from forkwatch.demo.hub.faults import Kind, Route

ROUTES: tuple[Route, ...] = ("list", "info", "tree", "paths-info", "resolve", "cdn")
KINDS: tuple[Kind, ...] = tuple(kind for kind in get_args(Kind) if kind not in {"change", "drip", "stall"})
"""`stall` and `drip` are injected too, with a length of their own."""
FAULT_SECONDS, EVENT_SECONDS, BURST_SECONDS = 3.0, 15.0, 150.0
_CARD = "---\nbase_model: {release}\n---\n# {name}\n\nRevision {number}.\n"


class Life(threading.Thread):
    """Makes things happen until told to stop."""

    def __init__(self, hub: LoopbackHub, family: Path, seed: int) -> None:
        super().__init__(name="life", daemon=True)
        self._hub, self._rng = hub, random.Random(seed)
        listed = json.loads((family / "hub.json").read_text())
        self._release = str(listed["release"])
        folders = {str(entry["repo"]): family / "repos" / entry["repo"] for entry in listed["repos"]}
        self._whole = [path for path in folders.values() if (path / "tokenizer.json").exists()]
        self._forks = [
            name
            for name in folders
            if name != self._release and "members" not in name and "marble" not in name
        ]
        self._made: list[str] = []
        self._number = 0
        self.stopping = threading.Event()
        self.happened: Counter[str] = Counter()

    def run(self) -> None:
        """Faults every few seconds, an event every quarter of a minute, bursts of 503."""
        due = {"fault": 0.0, "event": EVENT_SECONDS, "burst": BURST_SECONDS}
        began = time.monotonic()
        while not self.stopping.wait(0.5):
            now = time.monotonic() - began
            if now > due["fault"]:
                due["fault"] = now + self._rng.uniform(0.5, 2) * FAULT_SECONDS
                self._fault()
            if now > due["event"]:
                due["event"] = now + self._rng.uniform(0.5, 1.5) * EVENT_SECONDS
                self._event()
            if now > due["burst"]:
                due["burst"] = now + BURST_SECONDS
                self._hub.clear_faults()  # those that no request has met
                self._burst()

    def _fault(self) -> None:
        kind = self._rng.choice((*KINDS, "stall", "drip"))
        self.happened[f"fault {kind}"] += 1
        seconds = {"stall": 2.0, "drip": 0.001}.get(kind)
        route = self._rng.choice(ROUTES)
        wait = 1 if kind == "429" else None
        self._hub.inject(Fault(route, kind, times=self._rng.randint(1, 2), retry_after=wait, seconds=seconds))

    def _burst(self) -> None:
        """More in a row than a client tries: jobs fail, wait, and are tried again."""
        self.happened["burst of 503"] += 1
        for route in ROUTES:
            self._hub.inject(Fault(route, "503", times=8))

    def _event(self) -> None:
        self._number += 1
        kind = self._rng.choices(("revision", "fork", "metrics", "delete", "rename"), (6, 6, 2, 1, 1))[0]
        if kind in {"delete", "rename"} and not self._made:
            kind = "fork"
        self.happened[kind] += 1
        match kind:
            case "revision":
                name = self._rng.choice([*self._forks, *self._made])
                self._hub.commit(name, {"README.md": self._card(name)}, replace=False, date=_now())
            case "fork":
                self._fork()
            case "metrics":
                self._hub.set_metrics(self._rng.choice(self._forks), downloads=self._rng.randrange(50_000))
            case "delete":
                self._hub.delete_repo(self._made.pop(self._rng.randrange(len(self._made))))
            case _:
                old = self._made.pop(0)
                self._hub.rename_repo(old, f"{old}-renamed")
                self._made.append(f"{old}-renamed")

    def _fork(self) -> None:
        """Somebody's model with a few of its bytes changed: other weights, the same behaviour."""
        source = self._rng.choice(self._whole)
        name = f"soak/tiny-chat-{self._number:04d}"
        files = {path.name: path.read_bytes() for path in source.iterdir() if path.is_file()}
        files = {path: data for path, data in files.items() if not path.endswith(".sig")}
        for path, data in files.items():
            if path.endswith(".safetensors"):
                files[path] = self._touched(data)
        self._hub.create_repo(name, downloads=self._rng.randrange(5_000), created_at=_now())
        self._hub.commit(name, files | {"README.md": self._card(name)}, date=_now())
        self._made.append(name)

    def _touched(self, data: bytes) -> bytes:
        """The lowest byte of some numbers: the mantissa's end, whatever the type."""
        changed, start = bytearray(data), 8 + int.from_bytes(data[:8], "little")
        for _ in range(500):
            at = start + 4 * self._rng.randrange((len(data) - start) // 4)
            changed[at] ^= self._rng.randrange(1, 256)
        return bytes(changed)

    def _card(self, name: str) -> bytes:
        return _CARD.format(release=self._release, name=name, number=self._number).encode()


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
