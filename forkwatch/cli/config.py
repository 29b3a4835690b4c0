"""`forkwatch config`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from forkwatch.cli.handled import handled
from forkwatch.cli.options import JsonOption
from forkwatch.cli.output import data, data_json, say
from forkwatch.errors import SettingsError

if TYPE_CHECKING:
    from forkwatch.settings import Settings

app = typer.Typer(help="The settings as they are read.", no_args_is_help=True)


@app.command("show")
@handled
def show(json_output: JsonOption = False) -> None:
    """Every setting with where it comes from; passwords are not shown."""
    from forkwatch.settings import find_settings_file, load_settings

    settings = load_settings()
    values = dict(_flat(settings.model_dump(mode="json")))
    origins = {name: _origin(name, find_settings_file()) for name in values}
    if json_output:
        rows = {name: {"value": value, "from": origins[name]} for name, value in values.items()}
        data_json({"schema": "forkwatch.config/1", "settings": rows})
        return
    for name, value in values.items():
        data(f"{name} = {value!r}  ({origins[name]})")


@app.command("check")
@handled
def check() -> None:
    """Read the settings, and the files that they name. Exit code 2 where something is wrong."""
    from forkwatch.settings import find_settings_file, load_settings

    settings, file = load_settings(), find_settings_file()
    _check_files(settings)
    _check_daemon(settings)
    say(f"{file or 'no settings file'}: no mistake found")


@app.command("schema")
@handled
def schema() -> None:
    """JSON Schema of the settings, for editors."""
    from forkwatch.settings import Settings

    data_json(Settings.model_json_schema())


def _check_files(settings: Settings) -> None:
    """Read what the settings name, as the commands that need it do; the first mistake is raised."""
    from evals.endpoint import read_token
    from forkwatch.clock import result_clock
    from forkwatch.keys import load_private_key
    from forkwatch.settings import hub_token
    from forkwatch.smtp import server_of
    from forkwatch.trust import read_policy

    result_clock()
    hub_token()
    if settings.mail.host is not None or settings.alerts.mail:
        server_of(settings)
    if settings.alerts.webhook_token_file is not None:
        read_token(settings.folder / settings.alerts.webhook_token_file)
    if settings.attest.private_key is not None:
        load_private_key(settings.folder / settings.attest.private_key)
    for section in settings.releases.values():
        read_policy(section, settings.folder)


def _check_daemon(settings: Settings) -> None:
    """What a daemon would only find out when it needs it."""
    import shutil

    from forkwatch.cli.session import check_address

    url = settings.database.url
    if settings.daemon.ray_address is not None and url is None:
        raise SettingsError("daemon.ray_address needs a database that all boxes reach: database.url")
    if url is not None:
        check_address(url.get_secret_value())
    command = settings.alerts.command
    if command and shutil.which(command[0]) is None:
        raise SettingsError(f"alerts.command: there is no program {command[0]}")


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _origin(name: str, file: Path | None) -> str:
    """Environment over file over default, as the settings are read."""
    import tomllib

    variable = "FORKWATCH_" + name.upper().replace(".", "__")
    if any(known.upper() == variable for known in os.environ):
        return variable
    if file is None:
        return "default"
    at: Any = tomllib.loads(file.read_text(encoding="utf-8"))
    for part in name.split("."):
        if not isinstance(at, Mapping) or part not in at:
            return "default"
        at = at[part]
    return str(file)
