"""`forkwatch daemon` and `forkwatch health`."""

from __future__ import annotations

import json

import typer

from forkwatch.cli.handled import handled
from forkwatch.cli.options import JsonOption
from forkwatch.cli.output import data, data_json
from forkwatch.errors import Exit, ForkwatchError


class NoDaemonError(ForkwatchError):
    """No daemon answers."""

    code = Exit.INTERNAL
    tip = "Start one with `forkwatch daemon`; [daemon] port says where it listens."


@handled
def daemon() -> None:
    """Watch for months: crawl, compare, evaluate and publish on schedule, with workers of its own.

    SIGTERM stops after the present jobs, a second signal at once; SIGHUP reads the settings again.
    """
    from forkwatch import logs
    from forkwatch.cli.session import open_database, open_state
    from forkwatch.daemon.lock import sole_daemon
    from forkwatch.daemon.supervisor import Signals, supervise
    from forkwatch.settings import load_settings

    logs.configure()
    state, signals = open_state(), Signals()
    with sole_daemon(state.root):
        signals.install()
        settings = load_settings()
        supervise(settings, state, signals, _gpus, lambda which: open_database(which, state))


def _gpus(device: str) -> int:
    """GPUs by their device files: the daemon itself imports no torch."""
    from evals.plan import gpu_devices

    names = [path.name.removeprefix("nvidia") for path in gpu_devices(device)]
    return sum(name.isdecimal() for name in names)


@handled
def health(json_output: JsonOption = False) -> None:
    """Ask the daemon on this machine how it is. Exit code 0 when it is ready, 5 when it is not."""
    import httpx2

    from forkwatch.settings import load_settings

    options = load_settings().daemon
    try:
        answer = httpx2.get(f"http://{options.listen}:{options.port}/readyz", timeout=10.0)
        said = json.loads(answer.content)
        problems = [str(problem) for problem in said["problems"]]
    except (httpx2.HTTPError, ValueError, KeyError, TypeError) as error:
        raise NoDaemonError(f"no daemon answers on {options.listen}:{options.port}") from error
    if json_output:
        data_json({"schema": "forkwatch.health/1", "ready": not problems, "problems": problems})
    else:
        data("\n".join(problems) or "ready")
    if problems:
        raise typer.Exit(Exit.INTERNAL)
