"""`forkwatch probe`: what a model is asked, of an endpoint or here, and what its answers are kept as."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from pathlib import Path

from detector.outputs.files import Growing
from detector.outputs.interface import Output
from evals.endpoint import ChatClient
from evals.interface import EvaluationFailedError, Prompt, PromptKind
from evals.judges.builtin import BuiltinJudge
from evals.outputs.asking import TOP, ProbeTier, Question, Unanswered, answered, ask, still_open
from evals.outputs.interface import AUTHENTIC, CELLS, Collected, CollectRequest, Job, Model
from evals.outputs.probes import (
    ProbeSet,
    load_probes,
    order_key,
    private_probes,
    private_quarter,
    probe_set,
    quarter_of,
    shuffled,
)
from evals.suite import CORE, load_suite
from forkwatch.pipeline.blobs import blob_path
from forkwatch.pipeline.context import Context, Talk
from forkwatch.pipeline.limits import limits_of
from forkwatch.pipeline.operator_secret import operator_secret
from forkwatch.sections.judging import EvaluationSettings
from forkwatch.store.models import Release

REFUSAL_TOKENS = 24
"""Of an answer to a harmful probe: enough to tell a refusal, too little to be of use."""
SHIFT = 1000
"""Questions for which a model is given the time of one evaluation."""


@dataclass(frozen=True, slots=True)
class Material:
    """What there is to ask about a release."""

    probes: ProbeSet
    harmful: tuple[Prompt, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbePlan:
    """How much is asked."""

    tiers: tuple[ProbeTier, ...]
    n: int = 40
    """Probes of each tier at most."""
    samples: int = 1
    """Sampled answers a probe, beside the one at temperature 0."""
    max_tokens: int
    """Of an answer to a plain probe."""


@dataclass(frozen=True, slots=True)
class Probed:
    """How it went."""

    asked: int
    """Questions that were open."""
    answered: int
    reasons: Mapping[str, int]
    """Why others were not, and how often."""


def public_material() -> Material:
    """The public probes and our own suite, for a model of no guarded release."""
    return Material(probe_set(load_probes()), _harmful(CORE, b""))


def release_material(context: Context, release: Release) -> Material:
    """Both halves of the probes of this quarter, and the release's suite."""
    key = order_key(operator_secret(context.state), release.root_digest, quarter_of(context.now()))
    harmful = _harmful(blob_path(context.state, release.suite), key)
    return Material(release_probes(context, release.root_digest), harmful)


def _harmful(suite: Path, key: bytes) -> tuple[Prompt, ...]:
    """The harmful headline prompts in random order: a suite's own goes topic by topic."""
    prompts = {prompt.id: prompt for prompt in load_suite(suite).headline(PromptKind.HARMFUL)}
    return tuple(prompts[name] for name in shuffled(prompts, key))


def release_probes(context: Context, root_digest: str) -> ProbeSet:
    """Both halves of the probes of this quarter for a release."""
    file, quarter = load_probes(), quarter_of(context.now())
    secret = operator_secret(context.state)
    private = private_probes(file, secret, root_digest, quarter)
    return probe_set(file, private, quarter, order_key(secret, root_digest, quarter))


def past_probes(context: Context, release: Release, ids: Iterable[str]) -> Mapping[str, str]:
    """Texts of private probes of whatever quarters these ids are of."""
    quarters = {quarter for name in ids if (quarter := private_quarter(name)) is not None}
    if not quarters:
        return {}
    file, secret = load_probes(), operator_secret(context.state)
    return {
        probe.id: probe.text
        for quarter in sorted(quarters)
        for probe in private_probes(file, secret, release.root_digest, quarter)
    }


def questions_of(material: Material, plan: ProbePlan) -> tuple[Question, ...]:
    """All questions of a plan, tier by tier."""
    probes = material.probes.probes[: plan.n]
    found: list[Question] = []
    if ProbeTier.TEXT in plan.tiers:
        found += [Question(probe.id, probe.text, 0.0, plan.max_tokens) for probe in probes]
        found += [
            Question(probe.id, probe.text, 1.0, plan.max_tokens)
            for _ in range(plan.samples)
            for probe in probes
        ]
    if ProbeTier.LOGPROBS in plan.tiers:
        found += [Question(probe.id, probe.text, 0.0, 1, top=TOP) for probe in probes]
    if ProbeTier.REFUSALS in plan.tiers:
        found += [
            Question(prompt.id, prompt.text, 1.0, REFUSAL_TOKENS, harmful=True)
            for prompt in material.harmful[: plan.n]
        ]
    return tuple(found)


def probe_endpoint(  # noqa: PLR0913 - each from another place
    client: ChatClient,
    questions: Sequence[Question],
    out: Growing,
    talk: Talk,
    now: Callable[[], datetime],
    seed: int,
) -> Probed:
    """Ask a served model what is not answered in the file yet, and add each answer to it.

    Args:
        client: of the endpoint.
        questions: all of them.
        out: where answers go.
        talk: told the progress.
        now: UTC.
        seed: of sampled answers, another one in each run: a server that keeps to seeds would else give the
            answers of an earlier run again, and they would count as new evidence.

    Raises:
        EndpointError: it cannot be used, or answers nothing.
        BadOutputsError: an answer could not be written.
    """
    open_ = still_open(questions, out.known)
    reasons: Counter[str] = Counter()
    done = 0
    for outcome in ask(client, open_, BuiltinJudge(), seed=seed, now=lambda: f"{now():%Y-%m-%dT%H:%M:%SZ}"):
        if isinstance(outcome, Unanswered):
            reasons[outcome.reason] += 1
        else:
            out.add(outcome)
            done += 1
        talk.progress("probe", done + reasons.total(), len(open_))
    return Probed(len(open_), done, reasons)


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model on this machine: a folder, or weights on a release's folder."""

    folder: Path
    weights: tuple[Path, ...] = ()


def endpoint_digest(url: str, model: str) -> str:
    """Which model of which endpoint, in hex: a file of outputs is of one, and does not say its address."""
    return _digest("endpoint", url.rstrip("/"), model)


def local_digest(model: LocalModel) -> str:
    """Which files, in hex, by their places, sizes and times: weights of gigabytes are not read for it."""
    files = model.weights or tuple(sorted(model.folder.glob("*.safetensors")))
    seen = [(path.resolve(), path.stat()) for path in files]
    sizes = (f"{path} {stat.st_size} {stat.st_mtime_ns}" for path, stat in seen)
    return _digest("local", str(model.folder.resolve()), *sizes)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def probe_local(  # noqa: PLR0913 - each from another place
    model: LocalModel,
    questions: Sequence[Question],
    out: Growing,
    options: EvaluationSettings,
    scratch: Path,
    talk: Talk,
) -> Probed:
    """The same of a model that runs in the confined child.

    Raises:
        EvaluationFailedError: the child died, or the weights do not fit the release.
        IsolationError: full isolation is required, and this machine does not give it.
        BadOutputsError: an answer could not be written.
    """
    from evals.outputs.run import collect

    open_ = still_open(questions, out.known)
    if not open_:
        return Probed(0, 0, {})
    known = Counter(map(answered, out.known))
    request = _request(model, questions, open_, options, scratch)
    (found,) = collect(request, progress=talk.note).collected
    if found.missing is not None:
        raise EvaluationFailedError(found.missing.reason)
    wanted = Counter(question.key for question in open_)
    done = 0
    for output in _outputs(found, request):
        key = answered(output)
        if known[key]:  # drawn before, by the same seed
            known[key] -= 1
        elif wanted[key]:
            wanted[key] -= 1
            out.add(output)
            done += 1
    return Probed(len(open_), done, {})


def _request(
    model: LocalModel,
    questions: Sequence[Question],
    open_: Sequence[Question],
    options: EvaluationSettings,
    scratch: Path,
) -> CollectRequest:
    """One job for what is open; an answer depends on prompt, number and seed, so known ones are counted."""
    plain = [question for question in open_ if not question.harmful]
    sampled = Counter(q.prompt_id for q in questions if q.temperature and not q.harmful)
    job = Job(
        model=AUTHENTIC,
        cell=CELLS["seed"],
        samples=max(sampled.values(), default=0) if any(q.temperature for q in plain) else 0,
        greedy=any(not q.temperature and not q.top for q in plain),
        first=max((question.top for question in plain), default=0),
        refusals=int(any(question.harmful for question in open_)),
    )
    return CollectRequest(
        original=model.folder,
        models=(Model(AUTHENTIC, model.weights),),
        jobs=(job,),
        prompts={question.prompt_id: question.text for question in plain},
        harmful={question.prompt_id: question.text for question in open_ if question.harmful},
        scratch=scratch,
        max_new_tokens=max((q.max_tokens for q in plain if not q.top), default=1),
        refusal_tokens=REFUSAL_TOKENS,
        seed=_probe_seed(options.seed),
        timeout_seconds=options.timeout_seconds * ceil(len(questions) / SHIFT),
        device=options.device,
        limits=limits_of(options),
    )


def _probe_seed(seed: int) -> int:
    """Not that of the reference pack, whose answers the release would else give again."""
    return int.from_bytes(hashlib.sha256(f"probe/{seed}".encode()).digest()[:8]) >> 1


def _outputs(found: Collected, request: CollectRequest) -> list[Output]:
    cell = CELLS["seed"]
    first = cell.sampling(1, temperature=0.0)
    tops = [
        Output(
            prompt_id=name,
            text=next(iter(row), ""),
            sampling=first,
            finish_reason="length",
            top_logprobs=tuple(row.items()),
        )
        for name, row in found.first.items()
    ]
    refusals = [
        Output(prompt_id=name, text=None, refused=refused, sampling=cell.sampling(request.refusal_tokens))
        for name, row in found.refused.items()
        for refused in row
    ]
    return [*found.greedy.values(), *found.samples, *tops, *refusals]
