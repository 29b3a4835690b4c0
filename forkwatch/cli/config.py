"""`forkwatch config`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from forkwatch.cli.handled import handled
from forkwatch.cli.options import JsonOption
from forkwatch.cli.output import data, data_json, say

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
    from forkwatch.smtp import server_of

    settings = load_settings()
    if settings.mail.host is not None:
        server_of(settings.mail)
    file = find_settings_file()
    say(f"{file or 'no settings file'}: no mistake found")


@app.command("schema")
@handled
def schema() -> None:
    """JSON Schema of the settings, for editors."""
    from forkwatch.settings import Settings

    data_json(Settings.model_json_schema())


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
