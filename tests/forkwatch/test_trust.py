"""Whom a release is believed to come from: settings, options, and what is stored."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.provenance.interface import CertificateTrust, KeylessTrust, KeyTrust, Trust
from forkwatch.cli.init import TEMPLATE
from forkwatch.errors import SettingsError
from forkwatch.settings import load_settings, settings_folder
from forkwatch.trust import UNSIGNED, TrustPolicy, describe, dump_policy, load_policy, read_policy
from tests.forkwatch.conftest import invoke

NAME = "lab/Guarded-1B"
text = st.text(max_size=30)
pem = text.map(str.encode)
signers = st.one_of(
    st.builds(KeyTrust, pem),
    st.builds(
        CertificateTrust,
        st.lists(pem, max_size=2).map(tuple),
        st.lists(text, max_size=2).map(tuple),
        st.lists(text, max_size=2).map(tuple),
    ),
    st.builds(KeylessTrust, text, text, st.none() | pem),
)


@settings(max_examples=40)
@given(st.lists(signers, max_size=3), st.booleans(), st.booleans())
def test_a_stored_policy_is_the_policy(named: list[KeyTrust], legacy: bool, unsigned: bool) -> None:
    """Every signer survives the database, whatever text names it."""
    policy = TrustPolicy(Trust(tuple(named), legacy=legacy), unsigned=unsigned)

    assert load_policy(dump_policy(policy)) == policy


def section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, name: str = NAME) -> Path:
    """A settings file with one release; commands and this process read it."""
    folder = tmp_path / "etc"
    folder.mkdir(exist_ok=True)
    file = folder / "forkwatch.toml"
    file.write_text(f'[releases."{name}"]\n{body}')
    monkeypatch.setenv("FORKWATCH_CONFIG", str(file))
    return file


def test_paths_start_at_the_settings_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key beside the settings is found from everywhere; all ways to trust can be said at once."""
    body = (
        'public_key = "a.pub"\ncertificate_roots = ["root.pem"]\ncertificate_subjects = ["CN=x"]\n'
        'identity = "me@example.org"\nissuer = "https://issuer.example.org"\nlegacy = true\n'
    )
    section(tmp_path, monkeypatch, body)
    (tmp_path / "etc" / "a.pub").write_text("KEY")
    (tmp_path / "etc" / "root.pem").write_text("ROOT")
    policy = read_policy(load_settings().releases[NAME], settings_folder())

    assert policy == TrustPolicy(
        Trust(
            (
                KeyTrust(b"KEY"),
                CertificateTrust((b"ROOT",), ("CN=x",)),
                KeylessTrust("me@example.org", "https://issuer.example.org"),
            ),
            legacy=True,
        )
    )
    assert policy.modes == ("key", "certificate", "keyless")
    assert UNSIGNED.modes == ("unsigned",)
    assert "nobody" in describe(UNSIGNED)
    assert describe(TrustPolicy(Trust((CertificateTrust((), ("CN=x",)), KeylessTrust("me", "iss"))))) == (
        "certificate CN=x or me by iss"
    )


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("", "names nobody"),
        ('signature = "x.sig"', "names nobody"),
        ('certificate_roots = ["root.pem"]', "go together"),
        ('public_key = "a"\ncertificate_spki = ["' + "0" * 64 + '"]', "go together"),
        ('certificate_roots = ["root.pem"]\ncertificate_spki = ["AB"]', "certificate_spki"),
        ('identity = "me"', "its issuer"),
        ('public_key = "a"\ntrusted_root = "root.json"', "needs an identity"),
        ('unsigned = true\npublic_key = "a"', "either unsigned"),
        ('public_key = "a"\nrevision = "main"', "revision"),
        ('public_keys = "a"', "public_keys"),
    ],
)
def test_a_section_that_does_not_say_whom_to_trust_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, said: str
) -> None:
    """One line that names the release and the mistake; exit code 2."""
    file = section(tmp_path, monkeypatch, body + "\n")
    done = invoke(tmp_path / "state", "release", "list", FORKWATCH_CONFIG=str(file))

    assert done.exit_code == 2
    assert said in done.stderr
    assert NAME in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("forkwatch:")]) == 1


def test_a_section_is_of_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that cannot be one is refused when the settings are read."""
    section(tmp_path, monkeypatch, "unsigned = true\n", name="../etc")
    with pytest.raises(SettingsError, match="releases"):
        load_settings()


@pytest.mark.parametrize("content", [None, b"\xff\xfe"], ids=["absent", "not text"])
def test_a_key_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    """The error says which file, before anything is fetched."""
    section(tmp_path, monkeypatch, 'public_key = "a.pub"\n')
    if content is not None:
        (tmp_path / "etc" / "a.pub").write_bytes(content)
    with pytest.raises(SettingsError, match=r"a\.pub"):
        read_policy(load_settings().releases[NAME], settings_folder())


def test_the_commented_example_of_init_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uncommented, it is a section that names every kind of signer; `unsigned` alone is one, too."""
    lines = TEMPLATE[TEMPLATE.index('# [releases."org/name"]') :].splitlines()
    body = "\n".join(line.removeprefix("# ") for line in lines)
    body = body.replace("<SHA-256 of the public key, hex>", "0" * 64)
    file = tmp_path / "forkwatch.toml"
    monkeypatch.setenv("FORKWATCH_CONFIG", str(file))
    signed = "\n".join(line for line in body.splitlines() if not line.startswith("unsigned"))
    file.write_text(signed)
    release = load_settings().releases["org/name"]
    file.write_text(body)

    assert release.public_key
    assert release.certificate_roots
    assert release.identity
    assert release.legacy
    with pytest.raises(SettingsError, match="either unsigned"):
        load_settings()
