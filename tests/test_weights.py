"""Nothing is loaded that is not exactly what was pinned."""

import hashlib
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from inference import weights
from inference.weights import UntrustedWeights
from tests.models import manifest, networks, write_model


def pinned(folder: Path, content: bytes) -> dict[str, object]:
    """Write any bytes as weights and return a manifest that pins them rightly."""
    (folder / "weights.safetensors").write_bytes(content)
    return manifest(sha256=hashlib.sha256(content).hexdigest())


def pin_manifest(folder: Path, content: object) -> str:
    text = json.dumps(content).encode()
    (folder / "manifest.json").write_bytes(text)
    return hashlib.sha256(text).hexdigest()


def test_what_was_saved_is_what_is_loaded_in_half_precision(tmp_path):
    saved, fresh = networks(case_bias=1.5), networks()
    digest = write_model(tmp_path, nets=saved)
    tensors = weights.load_tensors(tmp_path, weights.read_manifest(tmp_path, sha256=digest))
    for part, net in fresh.items():
        weights.fill(net, tensors, part=part)
        for name, tensor in saved[part].state_dict().items():
            loaded = net.state_dict()[name]
            assert loaded.dtype == tensor.dtype
            expected = tensor.half().float() if tensor.is_floating_point() else tensor
            assert torch.equal(loaded, expected), name


def test_the_same_networks_have_the_same_digest(tmp_path):
    first = weights.save(tmp_path / "a", networks())
    assert weights.save(tmp_path / "b", networks()) == first
    assert weights.save(tmp_path / "c", networks(case_bias=1)) != first
    assert hashlib.sha256((tmp_path / "a").read_bytes()).hexdigest() == first


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), 65_520.0])  # the last one is rounded to infinity
def test_a_value_that_half_precision_does_not_have_is_named_and_nothing_is_written(value, tmp_path):
    with pytest.raises(FloatingPointError, match=r"sequence\.case_head\.bias is not finite in half precision"):
        weights.save(tmp_path / "weights", networks(case_bias=value))
    assert list(tmp_path.iterdir()) == []


def test_the_identity_in_results_is_that_of_the_manifest():
    identity = weights.identity(manifest(sha256="ab" * 32))
    assert (identity.name, identity.version, identity.sha256) == ("cervical-ct-fracture", "0.0.1", "ab" * 32)
    assert (identity.manufacturer, identity.trained_on, identity.notice) == ("tests", "Nothing.", "Untrained.")


@pytest.mark.fault(24, "c")
def test_a_changed_manifest_is_refused_with_both_digests(tmp_path):
    digest = write_model(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text(path.read_text().replace('"threshold": 0.5', '"threshold": 0.9'))
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(UntrustedWeights, match=f"expected SHA-256 {digest}, found {found}"):
        weights.read_manifest(tmp_path, sha256=digest)


@pytest.mark.parametrize("wrong", ["", "0" * 64, "AB" * 32])
def test_a_wrong_pin_is_refused(wrong, tmp_path):
    write_model(tmp_path)
    with pytest.raises(UntrustedWeights, match="expected SHA-256"):
        weights.read_manifest(tmp_path, sha256=wrong)


def test_a_missing_manifest_is_refused_with_its_path(tmp_path):
    with pytest.raises(UntrustedWeights, match=r"manifest\.json: cannot be read \(No such file"):
        weights.read_manifest(tmp_path, sha256="0" * 64)


@pytest.mark.parametrize("schema", [0, 2, None, "1"])
def test_a_manifest_of_another_schema_is_refused(schema, tmp_path):
    digest = write_model(tmp_path, schema=schema)
    with pytest.raises(UntrustedWeights, match="this version reads 1"):
        weights.read_manifest(tmp_path, sha256=digest)


@pytest.mark.parametrize("key", ["notice", "sha256", "operating_points", "trained_on"])
def test_a_manifest_that_lacks_a_key_is_refused_with_the_key(key, tmp_path):
    content = manifest()
    del content[key]
    with pytest.raises(UntrustedWeights, match=f"lacks {key}"):
        weights.read_manifest(tmp_path, sha256=pin_manifest(tmp_path, content))


@pytest.mark.parametrize("position", [0, 8, 200, -1])
@pytest.mark.fault(24, "c")
def test_one_flipped_bit_in_the_weights_is_refused(position, tmp_path):
    digest = write_model(tmp_path)
    path = tmp_path / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(UntrustedWeights, match="restore the weights that belong to this manifest"):
        weights.load_tensors(tmp_path, weights.read_manifest(tmp_path, sha256=digest))


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_truncated_weights_are_refused(kept, tmp_path):
    digest = write_model(tmp_path)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UntrustedWeights, match="expected SHA-256"):
        weights.load_tensors(tmp_path, weights.read_manifest(tmp_path, sha256=digest))


def test_missing_weights_are_refused(tmp_path):
    with pytest.raises(UntrustedWeights, match="cannot be read"):
        weights.load_tensors(tmp_path, manifest(sha256="0" * 64))


@pytest.mark.parametrize("file", ["../weights.safetensors", "sub/weights.safetensors", "/etc/hostname", "..", "."])
def test_weights_outside_the_model_folder_are_refused(file, tmp_path):
    folder = tmp_path / "model"
    write_model(folder)
    for place in (tmp_path, folder / "sub"):
        place.mkdir(exist_ok=True)
        (place / "weights.safetensors").write_bytes((folder / "weights.safetensors").read_bytes())
    digest = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    with pytest.raises(UntrustedWeights):
        weights.load_tensors(folder, manifest(file=file, sha256=digest))


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.write_text, (self.target, "sprung"))


def test_a_pickle_is_refused_and_not_run_even_if_its_digest_is_pinned(tmp_path):
    target = tmp_path / "sprung"
    trap = pinned(tmp_path, pickle.dumps(Trap(target)))
    with pytest.raises(UntrustedWeights, match="is no safetensors file"):
        weights.load_tensors(tmp_path, trap)
    assert not target.exists()


def test_a_torch_checkpoint_is_refused_even_if_its_digest_is_pinned(tmp_path):
    torch.save(networks()["slices"].state_dict(), tmp_path / "checkpoint.pt")
    with pytest.raises(UntrustedWeights, match="is no safetensors file"):
        weights.load_tensors(tmp_path, pinned(tmp_path, (tmp_path / "checkpoint.pt").read_bytes()))


def test_truncated_safetensors_are_refused_even_if_their_digest_is_pinned(tmp_path):
    with pytest.raises(UntrustedWeights, match="is no safetensors file"):
        weights.load_tensors(tmp_path, pinned(tmp_path, save({"a": torch.ones(9)})[:-1]))


def test_a_missing_tensor_is_refused_by_name():
    net = networks()["sequence"]
    tensors = {f"sequence.{name}": tensor for name, tensor in net.state_dict().items()}
    del tensors["sequence.case_head.bias"]
    with pytest.raises(UntrustedWeights, match=r"'sequence' do not fit .*\n.*case_head\.bias"):
        weights.fill(net, tensors, part="sequence")


def test_a_tensor_too_many_is_refused_by_name():
    net = networks()["sequence"]
    tensors = {f"sequence.{name}": tensor for name, tensor in net.state_dict().items()}
    with pytest.raises(UntrustedWeights, match="another_head"):
        weights.fill(net, tensors | {"sequence.another_head": torch.ones(1)}, part="sequence")


def test_a_tensor_of_another_shape_is_refused_by_name():
    net = networks()["sequence"]
    tensors = {f"sequence.{name}": tensor for name, tensor in net.state_dict().items()}
    with pytest.raises(UntrustedWeights, match="size mismatch for case_head.bias"):
        weights.fill(net, tensors | {"sequence.case_head.bias": torch.ones(2)}, part="sequence")


def test_the_tensors_of_another_part_do_not_count():
    net = networks()["sequence"]
    tensors = {f"slices.{name}": tensor for name, tensor in net.state_dict().items()}
    with pytest.raises(UntrustedWeights, match="Missing key"):
        weights.fill(net, tensors, part="sequence")


def test_reading_a_manifest_costs_no_start_of_torch(tmp_path):
    digest = write_model(tmp_path)
    program = (
        "import sys, pathlib; from inference import weights, pipeline; "
        "weights.identity(weights.read_manifest(pathlib.Path(sys.argv[1]), sha256=sys.argv[2])); "
        "assert not {'torch', 'pydicom', 'SimpleITK'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path), digest], check=True)
