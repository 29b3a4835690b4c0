"""A judge by the words with which a user names it."""

from __future__ import annotations

from pathlib import Path

from evals.endpoint import ChatClient, Endpoint
from evals.interface import Limits
from evals.judges.adapt import OneByOne, Progress, quiet
from evals.judges.builtin import BuiltinJudge
from evals.judges.endpoint import EndpointJudge
from evals.judges.guard import GuardJudge
from evals.judges.guard_formats import GuardKind
from evals.judges.interface import BatchJudge, JudgeError

BUILTIN = "builtin"
_SCHEMES = ("http://", "https://")
_DEFAULT_LIMITS = Limits()


def open_judge(  # noqa: PLR0913 - keyword-only
    name: str,
    *,
    token: str | None = None,
    insecure: bool = False,
    device: str = "auto",
    limits: Limits = _DEFAULT_LIMITS,
    progress: Progress = quiet,
) -> BatchJudge:
    """A judge that has read nothing yet.

    Args:
        name: `builtin`; a folder with a guard model, or `KIND:FOLDER` where its family cannot be told;
            `URL#MODEL` of an OpenAI-compatible endpoint.
        token: For the endpoint.
        insecure: Plain http is allowed to another machine.
        device: For the guard.
        limits: How the guard's child is held.
        progress: Told how many answers are judged.

    Raises:
        JudgeError: there is no such judge.
        EndpointError: the address cannot be used.
    """
    if name == BUILTIN:
        return OneByOne(BuiltinJudge(), progress=progress)
    if name.startswith(_SCHEMES):
        url, _, model = name.partition("#")
        if not model:
            raise JudgeError(f"{ascii(url[:200])[1:-1]}: add the model's name, as in https://host/v1#model")
        return EndpointJudge(ChatClient(Endpoint(url, model, token, insecure=insecure)), progress=progress)
    kind, _, folder = name.partition(":")
    if kind in tuple(GuardKind):
        return GuardJudge(Path(folder), kind=GuardKind(kind), device=device, limits=limits, progress=progress)
    if not Path(name).is_dir():
        raise JudgeError(
            f"{ascii(name[:200])[1:-1]}: neither {BUILTIN!r}, nor a folder, nor an http(s) address"
        )
    return GuardJudge(Path(name), device=device, limits=limits, progress=progress)
