"""Sections [hub] and [crawl]: the Hub, and what is looked for there."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from crawler.dataset import InvalidDatasetPathError, parse_dataset_path
from forkwatch.sections.base import Section

DEMO_ENDPOINT = "demo"
"""As `hub.endpoint`: serve the demo's families from this machine instead of talking to the Hub."""

ChannelName = Literal["declared", "tag", "name", "statement", "namespace", "shape"]


def is_remote(place: str) -> bool:
    """Whether text names something by a URL, rather than a file on the disk."""
    return "://" in place


class HubSettings(Section):
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

    @field_validator("endpoint")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        if value != DEMO_ENDPOINT and not _is_http(value):
            raise ValueError("it is no http(s) address, like 'https://huggingface.co'")
        return value


def _is_http(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none, a broken IPv6 address
        return False


class CrawlSettings(Section):
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
