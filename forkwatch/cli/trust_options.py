"""The options that say whom a release is believed to come from, and what they mean beside the settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forkwatch.errors import SettingsError

if TYPE_CHECKING:
    from forkwatch.sections.release import ReleaseSettings
    from forkwatch.settings import Settings
    from forkwatch.trust import TrustPolicy

KeyOption = Annotated[Path | None, typer.Option("--public-key", help="PEM of the publisher's EC public key.")]
RootOption = Annotated[
    list[Path] | None,
    typer.Option("--certificate-root", help="PEM of a private root; with a subject or SPKI."),
]
SubjectOption = Annotated[
    list[str] | None,
    typer.Option("--certificate-subject", help="RFC 4514 name of the signer, or of an intermediate."),
]
SpkiOption = Annotated[
    list[str] | None,
    typer.Option("--certificate-spki", help="SHA-256 (hex) of the signer's key, or of an intermediate's."),
]
IdentityOption = Annotated[str | None, typer.Option("--identity", help="Sigstore identity; with --issuer.")]
IssuerOption = Annotated[str | None, typer.Option("--issuer", help="OpenID Connect issuer of the identity.")]
TrustedRootOption = Annotated[
    Path | None, typer.Option("--trusted-root", help="trusted_root.json of a private Sigstore.")
]
UnsignedOption = Annotated[
    bool, typer.Option("--unsigned", help="Nobody signs it: pin the files by hash, as they are now.")
]
BundleOption = Annotated[
    str | None, typer.Option("--signature", help="Path of the signature bundle (default: model.sig).")
]
LegacyOption = Annotated[bool, typer.Option("--legacy", help="Accept bundles from before the specification.")]
ReregisteredOption = Annotated[
    bool,
    typer.Option("--reregistered", help="Take the repository that has the release's name by now."),
]


def require_text(**options: object) -> None:
    """An option that is given says something: `--identity "$UNSET"` must not mean that nobody was named.

    Raises:
        SettingsError: one is empty.
    """
    for name, value in options.items():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, str) and not each.strip():
                raise SettingsError(
                    f"--{name.replace('_', '-')} is empty", tip="Give a value, or leave it out."
                )


def said_by_options(options: dict[str, Any]) -> TrustPolicy | None:
    """The policy that the options of a command say, by their names in the settings; None if they say nothing.

    Raises:
        SettingsError: they contradict each other, one is empty, or names a file that cannot be read.
    """
    from forkwatch.settings import release_settings
    from forkwatch.trust import read_policy

    require_text(**options)
    given = {name: value for name, value in options.items() if value}
    return read_policy(release_settings(**given), Path.cwd()) if given else None


def whom_to_trust(
    settings: Settings, repo: str, options: dict[str, Any]
) -> tuple[ReleaseSettings | None, TrustPolicy]:
    """The settings' section for a release, if there is one, and the policy of the options or of that section.

    Raises:
        SettingsError: neither says whom to trust, or they contradict each other.
    """
    from forkwatch.pipeline.release_section import section_of
    from forkwatch.trust import read_policy

    section = section_of(settings, repo)
    said = None if section is None else read_policy(section, settings.folder)
    policy = said_by_options(options)
    if policy is None:
        if said is None:
            raise SettingsError(
                f"nothing says whom to trust for {repo}",
                tip="Give --public-key, certificates, --identity or --unsigned, or a [releases] section.",
            )
        return section, said
    if said is not None and policy != said:
        raise SettingsError(
            f"the settings trust others for {repo} than the options say",
            tip="Leave the options out, or change the settings first: else they would disagree ever after.",
        )
    return section, policy


def agreed(repo: str, name: str, option: str | None, setting: str | None) -> str | None:
    """An option or a setting, which must not contradict each other.

    Raises:
        SettingsError: they do, or the option is empty.
    """
    require_text(**{name: option})
    if option is not None and setting is not None and option != setting:
        raise SettingsError(
            f"the settings say {name} {setting} for {repo}",
            tip=f"Leave --{name} out, or change the settings first.",
        )
    return setting if option is None else option
