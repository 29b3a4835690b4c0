"""A signature that leaves out a file which changes the model is refused, though the library accepts it."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from detector.provenance.coverage import files_below, is_loaded
from detector.provenance.interface import KeyTrust, SignatureCheck, SignatureStatus, Trust
from detector.provenance.sign import KeyPair
from detector.provenance.verify import verify_release
from tests.detector.provenance.bundles import NOW, seal, statement_of

LOADED = [
    *("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json"),
    *("adapter_config.json", "adapter_model.safetensors", "model.safetensors.index.json", "params.json"),
    *("model-00001-of-00002.safetensors", "model-Q4_K_M.gguf", "pytorch_model.bin", "consolidated.00.pth"),
    *("model.onnx", "model.onnx_data", "model.ckpt.data-00000-of-00001", "model.nemo", "rank0.engine"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("tokenizer.model", "tokenizer.model.v3", "tekken.json", "qwen.tiktoken", "bpe.codes", "source.spm"),
    *("vocab.json", "vocab.txt", "merges.txt", "vocab", "SYSTEM_PROMPT.txt"),
    *("chat_template.jinja", "chat_template.json", "additional_chat_templates/tool_use.jinja"),
    *("modeling_example.py", "kernel.so", "1_Pooling/config.json", "modules.json", "Modelfile", "setup.sh"),
    *("template", "model.unheard-of"),
    *("ocdbt.process_0/d/1a2b3c", "checkpoint", "params/c/0/0", "params/.zarray", "onnx__MatMul_3044"),
    *(".metadata", ".safetensors", "data/0", "weights"),
]
HARMLESS = [
    *("LICENSE", "LICENSE.txt", "USE_POLICY.md", "NOTICE.txt", "logo.png", "images/plot.SVG", "paper.pdf"),
    *(".gitattributes", ".DS_Store", "a/CODEOWNERS", "model.sig", "checksums.sha256"),
    *("docs/guide.html", "train.log", "citation.bib"),
]


@pytest.mark.parametrize("name", LOADED)
def test_loaded(name: str) -> None:
    """Weights, configuration, vocabulary, templates and code count, in doubt too."""
    assert is_loaded(name)
    assert is_loaded(name.upper())


@pytest.mark.parametrize("name", HARMLESS)
def test_not_loaded(name: str) -> None:
    """Prose, pictures, legal texts and git's files may be left out."""
    assert not is_loaded(name)


def check_ignoring(
    folder: Path, ignored: str, keys: KeyPair, private_key: ec.EllipticCurvePrivateKey
) -> SignatureCheck:
    """Sign with a manifest that ignores one path, and verify."""
    payload = statement_of(folder, ignored=("README.md", "model.sig", ignored))
    (folder / "model.sig").write_bytes(seal(payload, private_key))
    return verify_release(folder, Trust((KeyTrust(keys.public.read_bytes()),)), at=NOW)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "chat_template.jinja", "modeling_x.py"])
def test_ignored(
    name: str, release: Path, keys: KeyPair, private_key: ec.EllipticCurvePrivateKey, tmp_path: Path
) -> None:
    """A config, a weight file, a template or code that the signer ignores could be anything."""
    from model_signing import verifying

    (release / name).write_bytes(b"anything")
    result = check_ignoring(release, name, keys, private_key)
    assert (result.status, result.manifest) == (SignatureStatus.INVALID, None)
    assert result.reason == f"InvalidBundleError: not covered: {name}"
    library = verifying.Config().use_elliptic_key_verifier(public_key=keys.public)
    library.verify(release, release / "model.sig")
    (release / name).unlink()
    assert check_ignoring(release, name, keys, private_key).status is SignatureStatus.VERIFIED


def test_ignored_folder(
    release: Path, keys: KeyPair, private_key: ec.EllipticCurvePrivateKey, tmp_path: Path
) -> None:
    """A whole folder can be ignored: each file in it is looked at, and a link to a folder is one."""
    folder = release / "additional_chat_templates"
    folder.mkdir()
    assert check_ignoring(release, folder.name, keys, private_key).status is SignatureStatus.VERIFIED
    (folder / "tool_use.jinja").write_bytes(b"{{ x }}")
    assert folder.name in check_ignoring(release, folder.name, keys, private_key).reason
    (folder / "tool_use.jinja").unlink()
    folder.rmdir()
    folder.symlink_to(tmp_path)
    assert folder.name in set(files_below(release))
    assert check_ignoring(release, folder.name, keys, private_key).status is SignatureStatus.INVALID


@pytest.mark.parametrize("name", ["LICENSE.txt", "logo.png", ".gitattributes", ".cache/huggingface/x.json"])
def test_uncovered_but_harmless(
    name: str, release: Path, keys: KeyPair, private_key: ec.EllipticCurvePrivateKey
) -> None:
    """Licence texts, pictures, git's files and the Hub client's bookkeeping need no signature."""
    (release / name).parent.mkdir(parents=True, exist_ok=True)
    (release / name).write_bytes(b"anything")
    assert check_ignoring(release, name, keys, private_key).status is SignatureStatus.VERIFIED
