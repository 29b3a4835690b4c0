"""No change of bytes makes a bundle say anything else, or raises anything undocumented."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detector.errors import InvalidBundleError
from detector.provenance.bundle import open_bundle
from detector.provenance.interface import Trust
from tests.detector.provenance.bundles import NOW, REAL
from tests.detector.provenance.test_real_bundles import CERTIFICATE, KEY, KEYLESS

SIGNERS = {"elliptic-key": KEY, "certificate": CERTIFICATE, "sigstore": KEYLESS}


@pytest.mark.parametrize("mode", SIGNERS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_mutation(mode: str, data: st.DataObject) -> None:
    """A real bundle with up to four bytes replaced, inserted or removed is refused or says the same."""
    bundle = (REAL / f"v1.1.0-{mode}" / "model.sig").read_bytes()
    trust = Trust((SIGNERS[mode],))
    start = data.draw(st.integers(0, len(bundle) - 1))
    patch = data.draw(st.binary(min_size=0, max_size=4))
    mutated = bundle[:start] + patch + bundle[start + data.draw(st.integers(0, 4)) :]
    try:
        opened = open_bundle(mutated, trust, at=NOW)
    except InvalidBundleError:
        return
    genuine = open_bundle(bundle, trust, at=NOW)
    assert (opened.signed, opened.signer) == (genuine.signed, genuine.signer)
    # The log's promise may be gone while a timestamp authority vouches: then no time is stated.
    assert opened.signed_at in (genuine.signed_at, None)


@settings(max_examples=100, deadline=None)
@given(bundle=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes(bundle: bytes) -> None:
    """Bytes that nobody made a bundle of are refused, with every signer and with none."""
    for trust in (Trust(), Trust((KEY, CERTIFICATE, KEYLESS))):
        with pytest.raises(InvalidBundleError):
            open_bundle(bundle, trust, at=NOW)
