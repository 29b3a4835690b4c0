"""The newest verdicts of a release as rows, and their documents one at a time.

A row is derived from a document once and kept in the store. It is derived anew when this program would derive
another one, which the digest of the code that does it tells.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter

import reports.rows
import reports.scan
from forkwatch.pipeline import forecast as forecasting
from forkwatch.pipeline.context import Context
from forkwatch.pipeline.forecast import Evidence, evidence, fit_on, forecast_view
from forkwatch.store.models import Release
from forkwatch.store.store import Store
from forkwatch.store.verdict_log import (
    Figures,
    LoggedVerdict,
    documents,
    index_rows,
    newest_figures,
    put_index_rows,
    verdict_log,
)
from reports.interface import ForkHistory, MetricPoint
from reports.plan import digest
from reports.rows import IN_MEMORY, ForkRow, LightScan, light
from reports.scan import ForecastView, ScanDocument


@dataclass(frozen=True, slots=True)
class _Kept:
    row: LightScan
    evidence: Evidence


def _version(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


_KEPT = TypeAdapter(_Kept)


@dataclass(frozen=True, slots=True)
class StoredRow:
    """The newest verdict about a repository."""

    verdict_id: int
    repo_id: int
    snapshot_id: int
    row: LightScan
    """Under the name that the repository had then."""
    evidence: Evidence
    version: str
    """Digest of both."""


@cache
def row_format() -> str:
    """Digest of the code that derives a row."""
    found = hashlib.sha256()
    for module in (reports.rows, reports.scan, forecasting):
        found.update(Path(str(module.__file__)).read_bytes())
    return found.hexdigest()[:32]


def newest(log: tuple[LoggedVerdict, ...]) -> dict[int, LoggedVerdict]:
    """The newest verdict of each repository, repositories in the order of their first."""
    return {verdict.repo_id: verdict for verdict in log}


def stored_rows(
    context: Context, release: Release, log: tuple[LoggedVerdict, ...] | None = None
) -> dict[int, StoredRow]:
    """The newest verdict of each repository, by its id; rows that are not kept yet are derived."""
    if release.id is None:
        raise AssertionError("a stored release has an id")
    last = newest(verdict_log(context.store, release.id) if log is None else log)
    wanted = {verdict.id: verdict for verdict in last.values()}
    kept = {
        id_: (_KEPT.validate_json(text), _version(text))
        for id_, text in index_rows(context.store, wanted, row_format()).items()
    }
    missing = sorted(wanted.keys() - kept.keys())
    if missing:
        kept |= _derive(context, missing)
    return {
        repo_id: StoredRow(verdict.id, repo_id, verdict.snapshot_id, each.row, each.evidence, version)
        for repo_id, verdict in last.items()
        for each, version in (kept[verdict.id],)
    }


def _derive(context: Context, missing: list[int]) -> dict[int, tuple[_Kept, str]]:
    found: dict[int, _Kept] = {}
    for done, (id_, document) in enumerate(documents(context.store, missing), 1):
        found[id_] = _Kept(light(document), evidence(document))
        if done % 100 == 0:
            context.talk.progress("verdicts read", done, len(missing))
    contents = {id_: _KEPT.dump_json(kept).decode() for id_, kept in found.items()}
    put_index_rows(context.store, row_format(), contents)
    return {id_: (kept, _version(contents[id_])) for id_, kept in found.items()}


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a row of the site comes from."""

    verdict_id: int
    repo_id: int
    version: str
    forecast: ForecastView


@dataclass
class StoredDocuments:
    """Documents of rows, from the store: `reports.rows.Documents`. The last one is kept, and no other."""

    store: Store
    places: Mapping[str, _Place]
    """By name of the row, which no two have."""
    samples_of: Callable[[int], tuple[MetricPoint, ...]]
    _last: tuple[str, ScanDocument] | None = field(default=None, repr=False)
    _sampled: tuple[str, tuple[MetricPoint, ...]] | None = field(default=None, repr=False)

    def whole(self, row: ForkRow) -> ScanDocument:
        """The document under the present name, with the newest figures and the forecast."""
        if isinstance(row, ScanDocument):
            return row
        if self._last is None or self._last[0] != row.repo:
            place = self.places[row.repo]
            ((_, document),) = documents(self.store, [place.verdict_id])
            whole = replace(document, repo=row.repo, hub=row.hub, forecast=place.forecast)
            self._last = row.repo, whole
        return self._last[1]

    def version(self, row: ForkRow) -> str:
        """Of the verdict, the figures, the samples and the forecast."""
        if isinstance(row, ScanDocument):
            return IN_MEMORY.version(row)
        return self.places[row.repo].version

    def samples(self, row: ForkRow, history: ForkHistory) -> tuple[MetricPoint, ...]:
        """Downloads and likes over time."""
        if isinstance(row, ScanDocument):
            return history.samples
        if self._sampled is None or self._sampled[0] != row.repo:
            self._sampled = row.repo, self.samples_of(self.places[row.repo].repo_id)
        return self._sampled[1]


@dataclass(frozen=True, slots=True)
class Current:
    """Rows of repositories that hold their name, as the site has them."""

    rows: Mapping[int, LightScan]
    """By repository, under its present name."""
    documents: StoredDocuments


def current(
    context: Context,
    release: Release,
    stored: Mapping[int, StoredRow],
    names: Mapping[int, str],
    samples_of: Callable[[int], tuple[MetricPoint, ...]],
) -> Current:
    """Bring rows up to date: names and figures change without a new verdict, forecasts with others'.

    Args:
        context: the store.
        release: whose forks.
        stored: their rows.
        names: present names, of the repositories that hold them.
        samples_of: reads the samples of a repository.
    """
    figures = newest_figures(context.store, release.id or 0)
    predictor = fit_on(each.evidence for each in stored.values())
    rows: dict[int, LightScan] = {}
    places: dict[str, _Place] = {}
    for repo_id in sorted(stored.keys() & names.keys(), key=lambda repo_id: (names[repo_id], repo_id)):
        each, seen = stored[repo_id], figures.get(repo_id)
        row = _current(each.row, names[repo_id], seen)
        forecast = forecast_view(each.evidence, predictor)
        version = digest(each.verdict_id, each.version, row.repo, seen, forecast)
        rows[repo_id] = row
        places[row.repo] = _Place(each.verdict_id, repo_id, version, forecast)
    return Current(rows, StoredDocuments(context.store, places, samples_of))


def _current(row: LightScan, repo: str, figures: Figures | None) -> LightScan:
    hub = row.hub
    if figures is not None:
        hub = replace(hub, downloads=figures.downloads, likes=figures.likes)
    return replace(row, repo=repo, hub=hub)
