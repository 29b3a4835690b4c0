"""The loopback hub, serving every family that was built in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from forkwatch.demo.hub import LoopbackHub, load_family
from forkwatch.errors import SettingsError


@contextmanager
def demo_hub(folder: Path) -> Iterator[LoopbackHub]:
    """A running hub with all families under `folder`.

    Raises:
        SettingsError: none was built there.
    """
    families = sorted(path.parent for path in folder.glob("*/hub.json"))
    if not families:
        raise SettingsError(f"no demo family in {folder}", tip="Run `forkwatch demo` first.")
    hub = LoopbackHub()
    for family in families:
        load_family(hub, family)
    with hub:
        yield hub
