"""The settings' dump of the Hub's model table, local or on the Hub: its name, and its rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from crawler.dataset import parse_dataset_path
from crawler.interface import RangeSource
from crawler.sources.bulk import fetch_columns
from forkwatch.errors import SettingsError
from forkwatch.pipeline.context import Context
from forkwatch.pipeline.scratch import scratch_folder
from forkwatch.sections.hub import is_remote
from forkwatch.settings import gib


@dataclass(frozen=True, slots=True)
class Dump:
    """One state of a dump: a newer file of the same name is another one."""

    name: str
    """Other than that of any other state."""
    label: str
    """For people."""
    source: Path | RangeSource


def find_dump(context: Context, place: str) -> Dump:
    """Find it; one on the Hub costs a call, and is pinned.

    Raises:
        SettingsError: there is no such file on the disk.
        CrawlerError: the Hub does not have it, or does not give it.
    """
    if is_remote(place):
        wanted = parse_dataset_path(place)
        commit, source = context.hub.dataset_file(wanted)
        return Dump(f"datasets/{wanted.repo}@{commit}/{wanted.path}", wanted.path, source)
    path = Path(place)
    try:
        status = path.stat()
    except OSError as error:
        raise SettingsError(
            f"crawl.bulk: cannot read {path}: {error.strerror}", tip="Check the path."
        ) from error
    return Dump(f"{path.name}:{status.st_size}:{int(status.st_mtime)}", path.name, path)


@contextmanager
def on_disk(context: Context, dump: Dump) -> Iterator[Path]:
    """A local file with all that is read of it.

    Raises:
        CrawlerError: its bytes could not be had.
    """
    if isinstance(dump.source, Path):
        yield dump.source
        return
    floor = gib(context.settings.hub.free_space_floor_gb)
    with scratch_folder(context) as folder:
        copy = folder / "dump.parquet"
        fetch_columns(dump.source, copy, dump.label, floor=floor, progress=context.talk.progress)
        yield copy
