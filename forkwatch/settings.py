"""Settings: command line, then FORKWATCH_* variables, then forkwatch.toml, then the defaults below."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Any

from pydantic import Field, PrivateAttr, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from crawler.interface import InvalidRepoIdError, parse_repo_id
from forkwatch.errors import SettingsError
from forkwatch.sections.hub import CrawlSettings, HubSettings
from forkwatch.sections.judging import AttestSettings, EvaluationSettings, OutputsSettings, PolicySettings
from forkwatch.sections.release import ReleaseSettings
from forkwatch.sections.running import DaemonSettings, DatabaseSettings
from forkwatch.sections.telling import AlertSettings, MailSettings, SiteSettings
from forkwatch.state import find_state_dir


class Settings(BaseSettings):
    """Everything that can be configured."""

    model_config = SettingsConfigDict(
        env_prefix="FORKWATCH_",
        env_nested_delimiter="__",
        frozen=True,
        extra="ignore",
        nested_model_default_partial_update=True,
    )

    hub: HubSettings = HubSettings()
    crawl: CrawlSettings = CrawlSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    outputs: OutputsSettings = OutputsSettings()
    policy: PolicySettings = PolicySettings()
    attest: AttestSettings = AttestSettings()
    database: DatabaseSettings = DatabaseSettings()
    daemon: DaemonSettings = DaemonSettings()
    alerts: AlertSettings = AlertSettings()
    site: SiteSettings = SiteSettings()
    mail: MailSettings = MailSettings()
    releases: dict[str, ReleaseSettings] = Field(default_factory=dict)
    """By repository."""
    _folder: Path | None = PrivateAttr(default=None)

    @property
    def folder(self) -> Path:
        """Where relative paths of these settings start."""
        return settings_folder() if self._folder is None else self._folder

    @field_validator("releases")
    @classmethod
    def _are_of_repositories(cls, value: dict[str, ReleaseSettings]) -> dict[str, ReleaseSettings]:
        for name in value:
            try:
                parse_repo_id(name)
            except InvalidRepoIdError as error:
                raise ValueError(str(error)) from error
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment over file; no dotenv and no secrets folder, so that there is one place to look."""
        file = find_settings_file()
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=file))


class _Handed(Settings):
    """Settings that another process has read and checked: neither file nor environment is asked again."""

    def read_in(self, folder: Path) -> Settings:
        """These, with the folder that the other process found the file in."""
        self._folder = folder
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is handed over, and nothing else."""
        return (init_settings,)


def hand_over(settings: Settings) -> str:
    """Settings for another process of this version, with secrets: for a pipe, never for a command line."""
    return json.dumps(
        {"folder": str(settings.folder), "settings": settings.model_dump(exclude_defaults=True)},
        default=lambda value: value.get_secret_value() if isinstance(value, SecretStr) else str(value),
    )


def take_over(text: str | bytes) -> Settings:
    """Settings as they were handed over.

    Raises:
        SettingsError: they are none.
    """
    try:
        found = json.loads(text)
        settings = _Handed(**found["settings"]).read_in(Path(found["folder"]))
    except (ValueError, KeyError, TypeError) as error:  # a ValidationError is a ValueError
        raise SettingsError("no settings were handed over", tip="`--handed` is for the daemon.") from error
    return settings


def gib(amount: float) -> int:
    """GiB, as settings say them, in bytes."""
    return int(amount * (1 << 30))


def find_settings_file() -> Path | None:
    """FORKWATCH_CONFIG, else ./forkwatch.toml, else the state folder's forkwatch.toml."""
    if chosen := os.environ.get("FORKWATCH_CONFIG"):
        if not Path(chosen).is_file():
            raise SettingsError(f"FORKWATCH_CONFIG names {chosen}, which is not a file")
        return Path(chosen)
    places = (Path("forkwatch.toml"), find_state_dir().root / "forkwatch.toml")
    return next((place for place in places if place.is_file()), None)


def settings_folder() -> Path:
    """Where relative paths of the settings start: the file's folder; without a file, the present one."""
    file = find_settings_file()
    return Path.cwd() if file is None else file.absolute().parent


def release_settings(**values: Any) -> ReleaseSettings:
    """What a section `[releases."org/name"]` would say, from the options of a command.

    Raises:
        SettingsError: it would not be valid; says why.
    """
    try:
        return ReleaseSettings(**values)
    except ValidationError as error:
        raise SettingsError(_first(error), tip="See `--help` of the command.") from error


def load_settings() -> Settings:
    """Read the settings.

    Raises:
        SettingsError: a value is wrong; names it and says why.
    """
    try:
        _refuse_unknown_sections(find_settings_file())
        return Settings()
    except ValidationError as error:
        raise SettingsError(f"setting {_first(error)}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{find_settings_file()} is not valid TOML: {error}") from error


def _first(error: ValidationError) -> str:
    """Where the first mistake is, and what is wrong there."""
    first, *others = error.errors()
    where = ".".join(str(part) for part in first["loc"])
    unknown = first["type"] == "extra_forbidden"
    what = "there is no such setting" if unknown else first["msg"].removeprefix("Value error, ")
    more = ", ".join(".".join(str(part) for part in other["loc"]) for other in others[:5])
    return ": ".join(part for part in (where, what) if part) + (f" (also wrong: {more})" if more else "")


def _refuse_unknown_sections(file: Path | None) -> None:
    """A misspelt section is an error; unknown FORKWATCH_* variables are not, they may not be ours."""
    if file is None:
        return
    with file.open("rb") as stream:
        unknown = sorted(set(tomllib.load(stream)) - set(Settings.model_fields))
    if unknown:
        raise SettingsError(f"{file}: unknown section [{unknown[0]}]")


def publish_token() -> SecretStr:
    """The token that may write to the Space, from FORKWATCH_PUBLISH_TOKEN only: the crawler's may only read.

    Raises:
        SettingsError: there is none.
    """
    token = os.environ.get("FORKWATCH_PUBLISH_TOKEN", "").strip()
    if not token:
        raise SettingsError(
            "no token that may write to the Space",
            tip="Set FORKWATCH_PUBLISH_TOKEN to a fine-grained token with write access to that Space alone.",
        )
    return SecretStr(token)


def hub_token() -> SecretStr | None:
    """The read token: HF_TOKEN, else the first line of the file that HF_TOKEN_FILE names.

    Never from a login: a forgotten token must not be sent by a crawler.

    Raises:
        SettingsError: the file cannot be read.
    """
    token = os.environ.get("HF_TOKEN", "").strip()
    if not token and (file := os.environ.get("HF_TOKEN_FILE", "")):
        try:
            token = Path(file).read_text(encoding="utf-8").partition("\n")[0].strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"HF_TOKEN_FILE names {file}, which cannot be read", tip="Check the path and its owner."
            ) from error
    return SecretStr(token) if token else None
