"""What `forkwatch eval` is pointed at: a folder, or a guarded release, or a fork of one on the Hub."""

from __future__ import annotations

from pathlib import Path

from detector.errors import NoWeightsError
from evals.interface import Generator
from forkwatch.errors import NothingToExamineError, SettingsError, UnknownReleaseError
from forkwatch.pipeline.context import Context
from forkwatch.pipeline.evaluation import Subject
from forkwatch.pipeline.originals import Original, find_release, open_original
from forkwatch.pipeline.run import release_of
from forkwatch.pipeline.sides import LocalSide, RepoSide, Side, local_files
from forkwatch.pipeline.stages import materialise
from forkwatch.store.models import Release

ADAPTER = "adapter_config.json"


def local_subject(model: LocalSide, original: LocalSide | None) -> Subject:
    """A model on this disk, by itself or on its original's config, tokenizer and template.

    Raises:
        SettingsError: a folder that is not a whole model, or cannot be read.
        NoWeightsError: there are none in it.
    """
    if original is None:
        return Subject(name=_name(model), folder=_whole(model))
    return Subject(
        name=_name(model),
        folder=_whole(original),
        weights=local_files(model),
        original=_name(original),
    )


def served_subject(name: str, generator: Generator, original: LocalSide | None) -> Subject:
    """A model behind an endpoint, perhaps held against a folder.

    Raises:
        SettingsError: that folder is no whole model.
        NoWeightsError: there are no weights in it.
    """
    base = None if original is None else _name(original)
    folder = Path() if original is None else _whole(original)
    return Subject(name=name, folder=folder, original=base, served=generator)


def repo_subject(context: Context, model: Side, original: Side | None, scratch: Path) -> Subject:
    """As above, where one of the two is on the Hub.

    A fork on the Hub always runs on its release's files; what it ships beside weights is not used.

    Raises:
        SettingsError: a folder that is not a whole model.
        UnknownReleaseError: no guarded release of that name, or several to choose from.
        CrawlerError: the Hub could not be asked.
    """
    if isinstance(original, LocalSide):
        base, folder = _name(original), _whole(original)
    else:
        release = _release(context, model, original)
        base, folder = release.name, release.folder
        if isinstance(model, RepoSide) and model.repo == release.repo:
            return Subject(name=release.name, folder=folder)
    if isinstance(model, LocalSide):
        return Subject(name=_name(model), folder=folder, weights=local_files(model), original=base)
    snapshot = context.hub.snapshot(model.repo, model.revision)
    weights = materialise(context, snapshot, scratch / "weights")
    return Subject(name=f"{snapshot.repo}@{snapshot.commit}", folder=folder, weights=weights, original=base)


def _release(context: Context, model: Side, original: RepoSide | None) -> Original:
    named = original or model
    try:
        row = _row(context, model, original)
    except NothingToExamineError as error:
        raise NothingToExamineError(f"{named.name} is not on this disk, and no release is guarded") from error
    except UnknownReleaseError as error:
        if original is None:  # a fork of one of several
            raise UnknownReleaseError(
                f"{named.name} is not on this disk, and which release it is a fork of is not known",
                tip="Name it with --original; `forkwatch release list` shows the guarded releases.",
            ) from error
        raise UnknownReleaseError(f"{named.name} is neither on this disk nor a guarded release") from error
    return open_original(context, row)


def _row(context: Context, model: Side, original: RepoSide | None) -> Release:
    if original is not None:
        return find_release(context, original.repo)
    if isinstance(model, RepoSide):
        guarded = {row.repo for row in context.store.releases()}
        return (
            find_release(context, model.repo)
            if model.repo in guarded
            else release_of(context, model.repo, None)
        )
    raise AssertionError("one of the two is a repository")


def _whole(side: LocalSide) -> Path:
    """A folder with everything that a model needs.

    Raises:
        SettingsError: something is missing; says what.
        NoWeightsError: the weights are.
    """
    folder = side.path
    if not folder.is_dir():
        raise SettingsError(
            f"{side.name} is not the folder of a model",
            tip="Give the folder with config.json; weights alone need --original FOLDER.",
        )
    if (folder / ADAPTER).is_file():
        raise SettingsError(
            f"{side.name} is an adapter, not a whole model", tip="Say what it adapts: --original FOLDER."
        )
    for name in ("config.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            raise SettingsError(
                f"{side.name} has no {name}, so it is no whole model",
                tip="Weights alone are evaluated on their original: --original FOLDER.",
            )
    if not any(folder.glob("*.safetensors")):
        raise NoWeightsError(f"{side.name} holds no .safetensors file")
    return folder


def _name(side: LocalSide) -> str:
    """The last part of its path: the rest is about this machine, and a card is published."""
    return side.path.resolve().name
