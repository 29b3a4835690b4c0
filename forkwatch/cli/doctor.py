"""`forkwatch doctor`."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import typer

from forkwatch.cli.handled import handled
from forkwatch.cli.options import JsonOption
from forkwatch.cli.output import data, data_json
from forkwatch.errors import Exit

PACKAGES = ("crawler", "detector", "evals", "reports", "forkwatch")


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
            if check.tip and not check.ok:
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


_CONFINE = """
import sys
from pathlib import Path
from evals.confine import confine
done = confine(Path(sys.argv[1]), cpu_seconds=10, gpu=False)
print("; ".join([str(done.isolation), *done.gaps]))
"""


def _isolation() -> Check:
    """Confine a child as an evaluation would, and let it say what it achieved."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-I", "-c", _CONFINE, scratch]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        return Check("isolation", ok=False, detail="a confined child cannot start", tip=done.stderr[-300:])
    return Check("isolation", ok=True, detail=f"forward passes on forks: {done.stdout.strip()}")
