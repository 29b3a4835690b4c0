"""What the settings say of a guarded release, held against what it was added with."""

from __future__ import annotations

from forkwatch.errors import SettingsError
from forkwatch.sections.release import ReleaseSettings
from forkwatch.settings import Settings
from forkwatch.store.models import Release
from forkwatch.store.upstream import UpstreamChange, UpstreamKind
from forkwatch.trust import describe, load_policy, read_policy


def section_of(settings: Settings, repo: str) -> ReleaseSettings | None:
    """The section of a release, if there is one. The Hub does not tell names apart by case."""
    named = {name.lower(): section for name, section in settings.releases.items()}
    return settings.releases.get(repo) or named.get(repo.lower())


def settings_difference(settings: Settings, row: Release) -> UpstreamChange | None:
    """What the settings say of a release, where it differs from what it was added with.

    A change of the settings is never adopted silently: neither is the old trust used on against them.

    Raises:
        SettingsError: a file that they name cannot be read.
    """
    section = section_of(settings, row.repo)
    if section is None:
        return None
    policy, stored = read_policy(section, settings.folder), load_policy(row.trust)
    before, after = [], []
    if policy != stored:
        before.append(f"trust in {describe(stored)}")
        after.append(f"trust in {describe(policy)}")
    if section.signature != row.signature:
        before.append(f"bundle {row.signature}")
        after.append(f"bundle {section.signature}")
    if section.revision is not None and section.revision != row.commit:
        before.append(f"commit {row.commit[:12]}")
        after.append(f"commit {section.revision[:12]}")
    if not after:
        return None
    said = "; ".join(before), "; ".join(after)
    note = "The settings differ from what the release was added with."
    return UpstreamChange(UpstreamKind.SETTINGS_CHANGED, *said, note)


def require_agreement(settings: Settings, row: Release) -> None:
    """Neither the trust of the settings nor the stored one is used while they differ.

    Raises:
        SettingsError: they differ, or a file that the settings name cannot be read.
    """
    difference = settings_difference(settings, row)
    if difference is not None:
        raise SettingsError(
            f"{row.repo}: the settings say {difference.after}, and it was added with {difference.before}",
            tip=f"Adopt the settings with `forkwatch release add {row.repo} --replace`, or undo the change.",
        )
