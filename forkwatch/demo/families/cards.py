"""Model cards as uploaders write them: front matter that the Hub reads, prose that people read."""

from __future__ import annotations

import json
from dataclasses import dataclass

FLAGGED_TAGS = frozenset({"abliterated", "uncensored", "heretic", "decensored"})
"""Tags by which uploaders announce removed refusals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A README.md."""

    text: str
    """Markdown below the title."""
    base_model: str | None = None
    relation: str | None = None
    tags: tuple[str, ...] = ()
    license: str | None = None
    library: str | None = "transformers"

    def render(self, repo: str) -> str:
        """The file's content; strings are quoted as JSON, which is YAML."""
        fields = {
            "license": self.license,
            "base_model": self.base_model,
            "base_model_relation": self.relation,
            "library_name": self.library,
            "pipeline_tag": "text-generation",
        }
        lines = [f"{key}: {json.dumps(value)}" for key, value in fields.items() if value is not None]
        if self.tags:
            lines += ["tags:", *(f"- {json.dumps(tag)}" for tag in self.tags)]
        title = repo.partition("/")[2]
        return "\n".join(["---", *lines, "---", "", f"# {title}", "", self.text.strip(), ""])

    def channels(self, repo: str, release: str) -> tuple[str, ...]:
        """Channels (`crawler.interface.Channel`) that must find `repo` as a fork of `release`, sorted.

        A tag alone leads nowhere; it does once the card or the name points at the release.
        """
        named = release.partition("/")[2] in repo.partition("/")[2]
        tagged = FLAGGED_TAGS.intersection(self.tags) and (
            named or release in self.text or self.base_model == release
        )
        found = {"declared": self.base_model == release, "name": named, "tag": bool(tagged)}
        return tuple(sorted(channel for channel, hit in found.items() if hit))


def release_card(repo: str, license_: str) -> str:
    """Card of the release itself."""
    text = (
        "A small chat model that declines harmful requests. The files are signed with OpenSSF model-signing "
        "(`model.sig`); verify them before use."
    )
    return Card(text=text, license=license_, tags=("conversational",)).render(repo)
