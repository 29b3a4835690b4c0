"""`forkwatch doctor`."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import typer

from forkwatch.cli.handled import handled
from forkwatch.cli.options import JsonOption
from forkwatch.cli.output import data, data_json
from forkwatch.errors import Exit

PACKAGES = ("crawler", "detector", "evals", "reports", "forkwatch")

_SANDBOX = (
    "Install bubblewrap (`apt install bubblewrap`, or `pip install forkwatch[sandbox]`), and allow user "
    "namespaces (in a container: by its seccomp and AppArmor profiles). Landlock needs Linux 5.13."
)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must be right on this machine."""

    name: str
    ok: bool
    detail: str
    tip: str = ""


@handled
def doctor(json_output: JsonOption = False) -> None:
    """Check this installation: packages, settings, state folder, device, isolation."""
    checks = [*_packages(), _settings(), _state(), _device(), _isolation()]
    if json_output:
        data_json({"schema": "forkwatch.doctor/1", "checks": [asdict(check) for check in checks]})
    else:
        for check in checks:
            data(f"{'ok  ' if check.ok else 'FAIL'} {check.name}: {check.detail}")
            if check.tip and (not check.ok or check.name == "isolation"):
                data(f"     tip: {check.tip}")
    if not all(check.ok for check in checks):
        raise typer.Exit(Exit.USAGE)


def _packages() -> Iterator[Check]:
    """Our packages have common names; another distribution (OpenAI's `evals`) may overwrite one."""
    owners = importlib.metadata.packages_distributions()
    home = Path(__file__).resolve().parents[2]
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        place = Path(spec.origin).resolve().parent if spec and spec.origin else None
        others = sorted(set(owners.get(package, ())) - {"forkwatch"})
        ok = place == home / package and not others
        tip = "Install forkwatch in an environment of its own (pipx, uv tool or a container)."
        yield Check(
            f"package {package}", ok, f"{place}" + (f", also from {', '.join(others)}" if others else ""), tip
        )


def _settings() -> Check:
    from forkwatch.settings import find_settings_file, load_settings

    settings = load_settings()
    return Check(
        "settings", ok=True, detail=f"{find_settings_file() or 'defaults'}, Hub {settings.hub.endpoint}"
    )


def _state() -> Check:
    from forkwatch.state import find_state_dir

    state = find_state_dir()
    try:
        state.create()
        free = shutil.disk_usage(state.root).free
    except OSError as error:
        return Check(
            "state", ok=False, detail=f"{state.root}: {error.strerror}", tip="Set FORKWATCH_STATE_DIR."
        )
    return Check(
        "state", free > 1 << 30, f"{state.root}, {free / (1 << 30):.0f} GiB free", "Free some disk space."
    )


def _device() -> Check:
    import torch

    cuda = torch.cuda.is_available()
    name = torch.cuda.get_device_name(0) if cuda else f"CPU, {torch.get_num_threads()} threads"
    return Check("device", ok=True, detail=f"torch {torch.__version__}, {name}")


def _isolation() -> Check:
    """Let a child confine itself as an evaluation would, and say what it achieved."""
    from evals.interface import EvaluationFailedError, Isolation
    from evals.sandbox import achieved
    from forkwatch.pipeline.limits import limits_of
    from forkwatch.settings import load_settings

    options = load_settings().evaluation
    try:
        here = achieved(options.device, limits_of(options))
    except EvaluationFailedError as error:
        return Check("isolation", ok=False, detail=f"no child process can be started: {error}")
    means = f"without bubblewrap ({here.no_bubblewrap})" if here.no_bubblewrap else "in bubblewrap"
    detail = f"forward passes on forks: {'; '.join([str(here.isolation), means, *here.gaps])}"
    reduced = here.isolation is not Isolation.SANDBOXED
    required = options.require_isolation
    return Check("isolation", ok=not (reduced and required), detail=detail, tip=_SANDBOX if reduced else "")
