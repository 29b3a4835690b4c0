"""The newest verdicts of a release as rows, and their documents one at a time.

A row is derived from a document once and kept in the store. It is derived anew when this program would derive
another one, which the digest of the code that does it tells. Kept rows are two lines of JSON: what lists and
forecasts ask of every fork, and the row itself, which is read for few.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, field, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter

import reports.rows
import reports.scan
from forkwatch.pipeline import forecast as forecasting
from forkwatch.pipeline.context import Context
from forkwatch.pipeline.forecast import Evidence, NoPredictor, Predictor, evidence, fit_on, forecast_view
from forkwatch.store.models import Release
from forkwatch.store.store import Store
from forkwatch.store.verdict_log import (
    Figures,
    LoggedVerdict,
    documents,
    index_heads,
    index_rows,
    newest_figures,
    put_index_rows,
    verdict_log,
)
from reports.interface import ForkHistory, MetricPoint
from reports.plan import digest_of
from reports.rows import IN_MEMORY, Counted, ForkRow, KeptRow, LightScan, counted, light
from reports.scan import ScanDocument, VerdictView

_FEW = 20
"""Rows that are read one by one. Who asks for more goes through all of them."""


@cache
def _light() -> TypeAdapter[LightScan]:
    return TypeAdapter(LightScan)


class StoredRow(NamedTuple):
    """The newest verdict about a repository."""

    verdict_id: int
    repo_id: int
    snapshot_id: int
    row: KeptRow
    """Under the name that the repository had then."""
    evidence: Evidence
    """With features where it was measured what they led to: a fit asks for those of all such forks."""
    version: str
    """Digest of the whole row, and of its evidence."""


@dataclass
class _StoredRows:
    """Whole rows, from the store: `reports.rows.Rows`."""

    store: Store
    numbers: tuple[int, ...]
    _found: dict[int, LightScan] = field(default_factory=dict)

    def row(self, number: int) -> LightScan:
        """One; after a few, all are read at once."""
        if number not in self._found:
            many = len(self._found) >= _FEW
            wanted = [each for each in self.numbers if each not in self._found] if many else [number]
            for id_, text in index_rows(self.store, wanted, row_format()).items():
                self._found[id_] = _light().validate_json(text.partition("\n")[2])
        return self._found[number]


@cache
def row_format() -> str:
    """Digest of the code that derives a row."""
    found = hashlib.sha256()
    for path in (reports.rows.__file__, reports.scan.__file__, forecasting.__file__, __file__):
        found.update(Path(str(path)).read_bytes())
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
    wanted = sorted(verdict.id for verdict in last.values())
    heads = index_heads(context.store, wanted, row_format())
    missing = [id_ for id_ in wanted if id_ not in heads]
    if missing:
        heads |= _derive(context, missing)
    rows = _StoredRows(context.store, tuple(wanted))
    loaded = dict(zip(heads, json.loads(f"[{','.join(heads.values())}]"), strict=True))
    return {repo_id: _stored(rows, verdict, *loaded[verdict.id]) for repo_id, verdict in last.items()}


def _derive(context: Context, missing: list[int]) -> dict[int, str]:
    found: dict[int, str] = {}
    for done, (id_, document) in enumerate(documents(context.store, missing), 1):
        found[id_] = _kept(light(document), evidence(document))
        if done % 100 == 0:
            context.talk.progress("verdicts read", done, len(missing))
    put_index_rows(context.store, row_format(), found)
    return {id_: text.partition("\n")[0] for id_, text in found.items()}


def _kept(row: LightScan, found: Evidence) -> str:
    """As the store keeps it. No text of JSON holds a newline."""
    whole = _light().dump_json(row).decode()
    known = dict(found.features)
    version = hashlib.sha256(f"{whole}\n{json.dumps(known)}".encode()).hexdigest()[:32]
    needed = known if found.observed is not None else {}
    head = (
        version,
        (row.repo, row.commit, row.scanned_at),
        (row.verdict.label, row.verdict.certainty, row.verdict.summary, row.verdict.not_measured),
        astuple(counted(row)),
        (row.hub.downloads, row.hub.likes),
        (needed, found.observed, found.reason),
    )
    return f"{json.dumps(head)}\n{whole}"


def _stored(  # noqa: PLR0913 - what `_kept` wrote
    rows: _StoredRows,
    logged: LoggedVerdict,
    version: str,
    named: tuple[str, str, str],
    verdict: tuple[Any, Any, str, list[str]],
    counts: list[Any],
    figures: tuple[int, int],
    found: tuple[dict[str, float], float | None, str],
) -> StoredRow:
    label, certainty, summary, not_measured = verdict
    row = KeptRow(
        logged.id,
        rows,
        *named,
        VerdictView(label=label, certainty=certainty, summary=summary, not_measured=tuple(not_measured)),
        _counted(*counts),
        figures,
    )
    features, observed, reason = found
    known = _without_features(observed, reason) if not features else Evidence(features, observed, reason)
    return StoredRow(logged.id, logged.repo_id, logged.snapshot_id, row, known, version)


_counted = lru_cache(maxsize=1 << 12)(Counted)
"""Few differ."""


@lru_cache(maxsize=1 << 12)
def _without_features(observed: float | None, reason: str) -> Evidence:
    return Evidence({}, observed, reason)


class _Place(NamedTuple):
    """Where a row of the site comes from."""

    verdict_id: int
    repo_id: int
    version: str


@dataclass
class StoredDocuments:
    """Documents of rows, from the store: `reports.rows.Documents`. The last one is kept, and no other."""

    store: Store
    predictor: Predictor | NoPredictor
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
            forecast = forecast_view(evidence(document), self.predictor)
            hub = row.updated(document.hub) if isinstance(row, KeptRow) else row.hub
            whole = replace(document, repo=row.repo, hub=hub, forecast=forecast)
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

    rows: Mapping[int, KeptRow]
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
    predicts = digest_of((repr(predictor), row_format()))
    rows: dict[int, KeptRow] = {}
    places: dict[str, _Place] = {}
    for repo_id in sorted(stored.keys() & names.keys(), key=lambda repo_id: (names[repo_id], repo_id)):
        each, seen = stored[repo_id], figures.get(repo_id)
        row = _current(each.row, names[repo_id], seen)
        sampled = "" if seen is None else f"{seen.downloads}\t{seen.likes}\t{seen.samples}\t{seen.at}"
        # What is forecast depends on the whole row, which `each.version` is of, and on the predictor.
        version = (
            f"{each.verdict_id}\t{each.version}\t{row.repo}\t{sampled}\t{each.evidence.reason or predicts}"
        )
        rows[repo_id] = row
        places[row.repo] = _Place(each.verdict_id, repo_id, version)
    return Current(rows, StoredDocuments(context.store, predictor, places, samples_of))


def _current(row: KeptRow, repo: str, figures: Figures | None) -> KeptRow:
    newest = row.figures if figures is None else (figures.downloads, figures.likes)
    return KeptRow(row.number, row.rows, repo, row.commit, row.scanned_at, row.verdict, row.counted, newest)
