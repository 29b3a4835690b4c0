"""Settings: command line, then FORKWATCH_* variables, then forkwatch.toml, then the defaults below."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from crawler.dataset import InvalidDatasetPathError, parse_dataset_path
from crawler.interface import InvalidRepoIdError, parse_repo_id
from forkwatch.errors import SettingsError
from forkwatch.state import find_state_dir
from reports.text import is_https_url, is_mail_address

DEMO_ENDPOINT = "demo"
"""As `hub.endpoint`: serve the demo's families from this machine instead of talking to the Hub."""

ChannelName = Literal["declared", "tag", "name", "statement", "namespace", "shape"]
Share = Annotated[float, Field(gt=0, lt=1)]


def is_remote(place: str) -> bool:
    """Whether text names something by a URL, rather than a file on the disk."""
    return "://" in place


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class HubSettings(_Section):
    """How to reach the Hub."""

    endpoint: str = "https://huggingface.co"
    timeout_seconds: float = Field(default=30.0, gt=0)
    retries: int = Field(default=5, ge=0)
    free_space_floor_gb: float = Field(default=2.0, ge=0)
    cache_quota_gb: float = Field(default=500.0, gt=0)
    """Of downloaded files; those that were used longest ago go first."""
    repo_budget_gb: float = Field(default=500.0, gt=0)
    """Of files that any one repository may cost in one run."""
    xet: bool = False
    """Ask the Hub's content-addressed store which bytes of a changed weight file are the release's."""


class CrawlSettings(_Section):
    """How candidates are found."""

    tags: tuple[str, ...] = ("heretic", "abliterated", "uncensored", "decensored")
    channels: tuple[ChannelName, ...] = ("declared", "tag", "name", "statement", "namespace", "shape")
    cards: int = Field(default=10_000, ge=0)
    """Cards read in one crawl."""
    refresh_calls: int | None = Field(default=None, ge=0)
    """Calls to look at known forks by name; None: 20, or one for each hundred known."""
    bulk: str | None = None
    """A dump of the Hub's model table (Parquet) to start from: a file, or `hf://datasets/org/name/path`."""

    @field_validator("bulk")
    @classmethod
    def _is_a_place(cls, value: str | None) -> str | None:
        """A file on the Hub is named as one; that a file on the disk is there is seen when it is read."""
        if value is None or not is_remote(value):
            return value
        try:
            parse_dataset_path(value)
        except InvalidDatasetPathError as error:
            raise ValueError(f"{error}. {error.tip}") from error
        return value


class EvaluationSettings(_Section):
    """How models are measured."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    tier: Literal["screen", "quick", "full"] = "quick"
    """How much of a release's prompt suite is asked."""
    max_new_tokens: int = Field(default=40, ge=8)
    samples: int = Field(default=2, ge=1)
    seed: int = 0
    timeout_seconds: float = Field(default=1800.0, gt=0)
    memory_gib: float | None = Field(default=None, ge=1)
    """Memory of one evaluation; None: three quarters of what this machine or container has."""
    require_isolation: bool = False
    """Evaluate nothing where the child process would run with reduced isolation."""


class OutputsSettings(_Section):
    """How a release's classifier of outputs is made."""

    classifier: bool = True
    """Train it after a run that measured other forks than the last one, on the answers that are there."""


class PolicySettings(_Section):
    """Where the lines are. Policy, not science: docs/methodology.md argues the defaults."""

    alpha: Share = 0.01
    removed_below: Share = 0.5
    degraded_drop: Share = 0.15
    fail_on: Literal["info", "low", "medium", "high", "critical"] = "high"


class AttestSettings(_Section):
    """Who signs verdicts."""

    private_key: Path | None = None
    """PEM of an EC key; None: the one that `forkwatch attest key` made, if it did."""


class SiteSettings(_Section):
    """The published site."""

    base_url: str | None = None
    """The https address that it is published at; None: mails and feeds have no absolute links."""
    contact: str | None = Field(default=None, max_length=200)
    """Where results are disputed: a mail address, an https address, or a sentence."""

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        if value is not None and not is_https_url(value):
            raise ValueError("it is no plain https address, like 'https://example.org/forkwatch/'")
        return value


class MailSettings(_Section):
    """How the weekly digest is sent. Mail leaves this machine over TLS only."""

    host: str | None = None
    """Of the SMTP server; None: nothing is sent."""
    port: int | None = Field(default=None, ge=1, le=65535)
    """None: 587 with starttls, 465 with ssl."""
    security: Literal["starttls", "ssl"] = "starttls"
    """A server that does not offer it gets nothing: neither mail nor password."""
    ca_file: Path | None = None
    """PEM of the server's root; None: the roots that the system trusts."""
    user: str | None = None
    password_file: Path | None = None
    """Readable by its owner alone; the password is its first line."""
    sender: str | None = None
    recipients: tuple[str, ...] = ()
    """Each gets a message of its own, and sees no other address."""
    timeout_seconds: float = Field(default=30.0, gt=0, le=120)
    attempts: int = Field(default=4, ge=1, le=8)
    """For one recipient in one run."""
    pause_seconds: float = Field(default=5.0, ge=0, le=60)
    """Before the second attempt; each further pause is twice as long."""

    @field_validator("sender", "recipients")
    @classmethod
    def _are_addresses(cls, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        for address in (value,) if isinstance(value, str) else value or ():
            if not is_mail_address(address):
                raise ValueError(f"{address!r} is no plain mail address")
        return value

    @model_validator(mode="after")
    def _goes_together(self) -> MailSettings:
        if self.host is not None and (self.sender is None or not self.recipients):
            raise ValueError("a host needs a sender and recipients")
        if (self.user is None) != (self.password_file is None):
            raise ValueError("a user and a password_file go together")
        return self


class DatabaseSettings(_Section):
    """Where the database is."""

    url: SecretStr | None = None
    """`postgresql+psycopg://user:password@host/name` for several boxes; None: a file in the state folder."""


class DaemonSettings(_Section):
    """How `forkwatch daemon` works."""

    crawl_workers: int = Field(default=1, ge=0)
    read_workers: int = Field(default=1, ge=0)
    eval_workers: int = Field(default=1, ge=0)
    """One for each GPU; 0 where other boxes evaluate."""
    publish_workers: int = Field(default=1, ge=0)
    crawl_every_minutes: float = Field(default=60.0, gt=0)
    digest: bool = True
    """Write the weekly digest on Mondays, and send it where [mail] says to whom."""
    purge_after_days: float = Field(default=90.0, gt=0)
    """Finished jobs are forgotten then; what they found stays."""
    crawl_timeout_seconds: float = Field(default=4 * 3600.0, gt=0)
    read_timeout_seconds: float = Field(default=4 * 3600.0, gt=0)
    eval_timeout_seconds: float = Field(default=4 * 3600.0, gt=0)
    publish_timeout_seconds: float = Field(default=3600.0, gt=0)
    grace_seconds: float = Field(default=60.0, ge=0)
    """What a job gets to finish when the daemon is told to stop."""
    jobs_per_process: int = Field(default=200, ge=1)
    """A worker process is replaced after so many."""
    listen: str = "127.0.0.1"
    """Address of /healthz, /readyz and /metrics."""
    port: int = Field(default=9464, ge=0, le=65535)
    """0: any free one."""
    ray_address: str | None = None
    """Of a Ray cluster that the workers run on (extra `ray`; needs [database] url); None: on this machine."""
    ray_gpus_each: float = Field(default=1.0, ge=0)
    """Of an evaluator on Ray; 0.5: two share one."""
    stalled_after_hours: float = Field(default=24.0, gt=0)
    """A crawl that has not succeeded for so long is an alert, and the daemon is not ready."""


AlertName = Literal["safety-removed", "safety-degraded", "misrepresented", "unsafe-files", "verdict-changed"]


class AlertSettings(_Section):
    """Who is told at once, and of what. At least once each, by a key that tells a copy from news."""

    on: tuple[AlertName, ...] = ("safety-removed", "misrepresented", "unsafe-files")
    """Verdicts that are news; `verdict-changed`: every change of one."""
    min_downloads: int = Field(default=0, ge=0)
    """Of the last 30 days; forks with fewer are no news."""
    upstream: bool = True
    """A guarded release changed upstream: its signature, its owner, its files."""
    stalled: bool = True
    webhook: str | None = None
    """Gets a POST of JSON with an Idempotency-Key."""
    webhook_token_file: Path | None = None
    """Sent as a bearer token; readable by its owner alone."""
    command: tuple[str, ...] = ()
    """Started with the JSON on its standard input."""
    mail: bool = False
    """To the recipients of [mail]."""

    @field_validator("webhook")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        if value is not None and not is_https_url(value) and not value.startswith("http://127.0.0.1"):
            raise ValueError("it is no plain https address")
        return value

    @property
    def wanted(self) -> bool:
        """Somebody is to be told."""
        return self.webhook is not None or bool(self.command) or self.mail


class ReleaseSettings(_Section):
    """Whom to trust for one release, and which commit is pinned. Paths start at the file's folder."""

    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None = None
    """The pinned commit; None: the one that `release add` finds."""
    signature: str = Field(default="model.sig", min_length=1)
    """Path of the bundle in the repository."""
    public_key: Path | None = None
    """PEM of an EC key."""
    certificate_roots: tuple[Path, ...] = ()
    """PEM of private roots; the web's root store is never used."""
    certificate_subjects: tuple[str, ...] = ()
    """RFC 4514 names; the leaf or an intermediate must have one of them."""
    certificate_spki: tuple[Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")], ...] = ()
    """SHA-256 of the public key of the leaf or of an intermediate."""
    identity: str | None = None
    """Of a sigstore certificate, as `issuer` asserts it."""
    issuer: str | None = None
    trusted_root: Path | None = None
    """`trusted_root.json` of a private Sigstore; None: the public instance's."""
    legacy: bool = False
    """Accept bundles from before the specification (predicate v0.1)."""
    unsigned: bool = False
    """Trust nobody; pin the files by hash on first use."""

    @model_validator(mode="after")
    def _says_whom_to_trust(self) -> ReleaseSettings:
        pins = self.certificate_subjects or self.certificate_spki
        signers = self.public_key or self.certificate_roots or self.identity
        if bool(self.certificate_roots) != bool(pins):
            raise ValueError("a certificate root and a subject or SPKI of the signer go together")
        if bool(self.identity) != bool(self.issuer):
            raise ValueError("an identity and its issuer go together")
        if self.trusted_root and not self.identity:
            raise ValueError("a trusted root needs an identity and its issuer")
        if self.unsigned and (signers or self.legacy):
            raise ValueError("it is either unsigned, or somebody is trusted to have signed it")
        if not signers and not self.unsigned:
            raise ValueError("it names nobody: give a key, certificates or an identity, or say unsigned")
        return self


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
