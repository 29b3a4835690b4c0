"""`forkwatch probe`."""

from __future__ import annotations

import os
import secrets
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forkwatch.cli.handled import handled
from forkwatch.cli.options import PlainHttpOption, RequireIsolationOption, TokenFileOption
from forkwatch.cli.output import progress, say
from forkwatch.errors import Exit, SettingsError
from forkwatch.text import plain

if TYPE_CHECKING:
    from detector.outputs.files import Growing
    from evals.endpoint import ChatClient
    from evals.outputs.asking import ProbeTier, Question
    from forkwatch.pipeline.context import Context, Talk
    from forkwatch.pipeline.probing import LocalModel, Material, Probed
    from forkwatch.settings import Settings

_REASONS = 5
"""Shown of those for which questions got no answer."""


class TierChoice(StrEnum):
    """What is asked."""

    TEXT = "text"
    LOGPROBS = "logprobs"
    REFUSALS = "refusals"
    ALL = "all"


@handled
def probe(
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", help="The endpoint's name of it; without --endpoint a folder or weights."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="File to add outputs to; what it holds is not asked again.")
    ],
    endpoint: Annotated[
        str | None,
        typer.Option(
            "--endpoint",
            help="Address of an OpenAI-compatible endpoint, https://HOST/v1 (token: FORKWATCH_MODEL_TOKEN).",
        ),
    ] = None,
    release: Annotated[
        str | None,
        typer.Option(
            "--release",
            "-r",
            help="The guarded release that it should be: adds private probes and uses its suite. Weights in "
            "--model run on its files.",
            metavar="ORG/NAME",
        ),
    ] = None,
    tier: Annotated[
        TierChoice, typer.Option("--tier", help="Texts, first-token log-probabilities, refusals, or all.")
    ] = TierChoice.TEXT,
    n: Annotated[int, typer.Option("--n", min=1, max=120, help="Probes of each tier.")] = 40,
    samples: Annotated[
        int, typer.Option("--samples", min=0, max=100, help="Sampled answers a probe, beside the greedy one.")
    ] = 1,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens",
            min=2,
            max=512,
            help="Of an answer to a plain probe (default: as the settings' [evaluation] asks releases).",
        ),
    ] = None,
    token_file: TokenFileOption = None,
    plain_http: PlainHttpOption = False,
    require_isolation: RequireIsolationOption = False,
) -> None:
    """Ask a model what `forkwatch classify` needs to tell whether it is the authentic one.

    Texts of answers to harmful probes are judged at once and not kept. Exit code 4 when a question got no
    answer: run it again to ask what is left.
    """
    from detector.outputs.files import Growing
    from forkwatch.cli.session import isolating_settings
    from forkwatch.pipeline.probing import ProbePlan, endpoint_digest, local_digest, questions_of

    settings = isolating_settings(required=require_isolation, evaluates=endpoint is None)
    length = settings.evaluation.max_new_tokens if max_tokens is None else max_tokens
    plan = ProbePlan(tiers=_tiers(tier), n=n, samples=samples, max_tokens=length)
    with ExitStack() as stack:
        context, material, talk = _material(settings, release, stack)
        questions = questions_of(material, plan)
        if endpoint is None:
            local = _local(context, model, release)
            growing = stack.enter_context(closing(Growing(out, local_digest(local))))
            probed = _here(local, questions, growing, settings, talk)
        else:
            client = stack.enter_context(closing(_client(endpoint, model, token_file, plain_http=plain_http)))
            growing = stack.enter_context(closing(Growing(out, endpoint_digest(endpoint, model))))
            probed = _there(client, questions, growing, talk)
    _show(probed, len(questions), out, material)
    if probed.answered < probed.asked:
        raise typer.Exit(Exit.HUB)


def _tiers(tier: TierChoice) -> tuple[ProbeTier, ...]:
    from evals.outputs.asking import ProbeTier

    return tuple(ProbeTier) if tier is TierChoice.ALL else (ProbeTier(tier.value),)


def _material(
    settings: Settings, release: str | None, stack: ExitStack
) -> tuple[Context | None, Material, Talk]:
    """What there is to ask; the store is opened only where a release is named."""
    from forkwatch.cli.session import session
    from forkwatch.pipeline.originals import find_release
    from forkwatch.pipeline.probing import public_material, release_material

    if release is None:
        return None, public_material(), stack.enter_context(progress())
    context = stack.enter_context(session(settings))
    return context, release_material(context, find_release(context, release)), context.talk


def _client(url: str, model: str, token_file: Path | None, *, plain_http: bool) -> ChatClient:
    from evals.endpoint import ChatClient, Endpoint, read_token
    from forkwatch.cli.evaluate import MODEL_TOKEN

    token = read_token(token_file) if token_file else os.environ.get(MODEL_TOKEN) or None
    return ChatClient(Endpoint(url, model, token, insecure=plain_http))


def _there(client: ChatClient, questions: tuple[Question, ...], out: Growing, talk: Talk) -> Probed:
    from forkwatch.pipeline.probing import probe_endpoint

    return probe_endpoint(client, questions, out, talk, lambda: datetime.now(UTC), secrets.randbits(62))


def _local(context: Context | None, model: str, release: str | None) -> LocalModel:
    """A whole model's folder, or weights on the files of a guarded release.

    Raises:
        SettingsError: neither.
    """
    from forkwatch.pipeline.evaluation_subject import local_subject
    from forkwatch.pipeline.originals import find_release, open_original
    from forkwatch.pipeline.probing import LocalModel
    from forkwatch.pipeline.sides import LocalSide, local_files, parse_side

    side = parse_side(model)
    if not isinstance(side, LocalSide):
        raise SettingsError(f"{model} is not on this disk", tip="Give a folder, or --endpoint URL.")
    if context is None:
        return LocalModel(local_subject(side, None).folder)
    return LocalModel(open_original(context, find_release(context, release)).folder, local_files(side))


def _here(
    model: LocalModel, questions: tuple[Question, ...], out: Growing, settings: Settings, talk: Talk
) -> Probed:
    from forkwatch.pipeline.evaluation import scratch_folder
    from forkwatch.pipeline.probing import probe_local

    with scratch_folder() as scratch:
        return probe_local(model, questions, out, settings.evaluation, Path(scratch), talk)


def _show(probed: Probed, total: int, out: Path, material: Material) -> None:
    quarter = material.probes.quarter
    halves = "public probes" if quarter is None else f"public probes and the private ones of {quarter}"
    say(f"{probed.answered} of {probed.asked} open questions answered, {total} in all, from {halves}: {out}")
    for reason, count in sorted(probed.reasons.items(), key=lambda row: -row[1])[:_REASONS]:
        say(f"  no answer: {count} × {plain(reason, 200)}")
