"""Sections [database] and [daemon]: how the program runs for months."""

from __future__ import annotations

from ipaddress import IPv4Address

from pydantic import Field, SecretStr, field_validator

from forkwatch.sections.base import Section


class DatabaseSettings(Section):
    """Where the database is."""

    url: SecretStr | None = None
    """`postgresql+psycopg://user:password@host/name` for several boxes; None: a file in the state folder."""


class DaemonSettings(Section):
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
    """IPv4 address of /healthz, /readyz and /metrics."""
    port: int = Field(default=9464, ge=0, le=65535)
    """0: any free one."""
    ray_address: str | None = None
    """Of a Ray cluster that the workers run on (extra `ray`; needs [database] url); None: on this machine."""
    ray_gpus_each: float = Field(default=1.0, ge=0)
    """Of an evaluator on Ray; 0.5: two share one."""
    stalled_after_hours: float = Field(default=24.0, gt=0)
    """A crawl that has not succeeded for so long is an alert, and the daemon is not ready."""

    @field_validator("listen")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        return str(IPv4Address(value))
