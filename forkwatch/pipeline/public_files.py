"""Files of public prompt sets that lie in datasets on the Hub."""

from __future__ import annotations

from pathlib import PurePosixPath

from crawler.dataset import parse_dataset_path
from evals.tables import MAX_BYTES, InputFileError, Row, parse_rows
from forkwatch.pipeline.context import Context


def dataset_rows(context: Context, address: str) -> tuple[str, list[Row]]:
    """Name and rows of a file at `hf://datasets/org/name[@revision]/path`, read at one commit.

    Raises:
        InvalidDatasetPathError: it is no such address.
        CrawlerError: the Hub does not have it, or does not give it.
        InputFileError: it is too large, or no table.
    """
    wanted = parse_dataset_path(address)
    _commit, source = context.hub.dataset_file(wanted)
    if source.size > MAX_BYTES:
        raise InputFileError(f"{wanted.path}: larger than {MAX_BYTES >> 20} MiB")
    path = PurePosixPath(wanted.path)
    try:
        return path.name, parse_rows(source.read(0, source.size), path.suffix.lower())
    except InputFileError as error:
        raise InputFileError(f"{wanted.path}: {error}") from error
