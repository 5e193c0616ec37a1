"""The same image again, in the same or another encoding: what its sender is told, and which copy stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSNearLossless

from dicomnode.copies import LOSSLESS
from dicomnode.doctor import encode_sample
from dicomnode.network.listen import TRANSFER_SYNTAXES
from dicomnode.spool import dataset_offset
from inference.volume import decode_pixels
from tests.receivers import Running, association_to, ct_file

LOSSY_FIRST = "A900 a copy that may have lost pixels came first and is kept"
LOSSY_LATER = "A900 this copy may have lost pixels; the lossless one is kept"


def offer(receiver: Running, *paths: Path) -> list[str]:
    """What the sender of each file is told; the first is stored, and stays byte for byte whatever comes after."""
    answers = [told(receiver, path) for path in paths]
    [item] = receiver.ledger.instances()
    assert item.path.read_bytes()[dataset_offset(item.path) :] == paths[0].read_bytes()[dataset_offset(paths[0]) :]
    assert receiver.files() == {item.path}
    return answers


def told(receiver: Running, path: Path) -> str:
    """The answer to a file that is sent in its own transfer syntax and no other."""
    with association_to(receiver, syntax=pydicom.dcmread(path).file_meta.TransferSyntaxUID) as peer:
        answer = peer.send_c_store(path)
    return f"{answer.Status:04X} {answer.get('ErrorComment', '')}".strip()


def sample(folder: Path, syntax: str) -> Path:
    """One and the same image in a transfer syntax."""
    (folder / syntax).mkdir(parents=True)
    return encode_sample(UID(syntax), folder / syntax)[0]


def lossy(path: Path) -> Path:
    """The image as it comes out of a compression that loses pixels."""
    dataset = pydicom.dcmread(path)
    before = dataset.pixel_array
    dataset.compress(JPEGLSNearLossless, jls_error=20, generate_instance_uid=False)
    assert not np.array_equal(dataset.pixel_array, before)
    return save(dataset, path.with_name("lossy.dcm"))


def save(dataset: pydicom.Dataset, path: Path) -> Path:
    dataset.save_as(path)
    return path


def with_past(path: Path, word: str) -> Path:
    """The same image with a word about the compressions it went through."""
    dataset = pydicom.dcmread(path)
    dataset.LossyImageCompression = word
    return save(dataset, path.with_name(f"{word}.dcm"))


@pytest.mark.fault(14, "b")
def test_the_same_bytes_again_are_acknowledged(receiver, tmp_path):
    path = ct_file(tmp_path)
    assert offer(receiver, path, path, path) == ["0000"] * 3


@pytest.mark.fault(14, "b")
def test_other_content_under_the_same_uid_is_refused(receiver, tmp_path):
    first, other = (ct_file(tmp_path, WindowCenter=number) for number in (1, 2))
    assert offer(receiver, first, other)[1].startswith("A900 another data set")


@pytest.mark.fault(14, "b")
@pytest.mark.parametrize("syntax", sorted(LOSSLESS - {ExplicitVRLittleEndian}))
def test_another_lossless_encoding_has_the_same_pixels_and_is_acknowledged(receiver, tmp_path, syntax):
    plain, other = sample(tmp_path, ExplicitVRLittleEndian), sample(tmp_path, syntax)
    assert np.array_equal(*(decode_pixels(pydicom.dcmread(path), path) for path in (plain, other)))
    assert offer(receiver, plain, other, with_past(other, "00"), plain) == ["0000"] * 4


def test_every_accepted_transfer_syntax_that_promises_to_lose_nothing_counts_as_lossless():
    exact = {syntax for syntax in TRANSFER_SYNTAXES if not syntax.is_compressed or "Lossless" in syntax.keyword}
    assert exact - {JPEGLSNearLossless} == LOSSLESS


@pytest.mark.fault(14, "b")
def test_a_lossy_copy_of_a_lossless_image_is_refused(receiver, tmp_path):
    plain = sample(tmp_path, ExplicitVRLittleEndian)
    unpacked = with_past(sample(tmp_path, JPEG2000Lossless), "01")
    assert offer(receiver, plain, lossy(plain), unpacked) == ["0000", LOSSY_LATER, LOSSY_LATER]


@pytest.mark.fault(14, "b")
def test_a_lossless_copy_is_not_said_to_be_stored_when_a_lossy_one_came_first(receiver, tmp_path):
    plain = sample(tmp_path, ExplicitVRLittleEndian)
    first, packed = lossy(plain), sample(tmp_path, JPEG2000Lossless)
    assert offer(receiver, first, plain, packed, first) == ["0000", LOSSY_FIRST, LOSSY_FIRST, "0000"]


@pytest.mark.fault(14, "b")
def test_an_image_that_was_lossy_once_is_a_copy_of_itself_and_not_of_the_original(receiver, tmp_path):
    plain, packed = (sample(tmp_path, syntax) for syntax in (ExplicitVRLittleEndian, JPEG2000Lossless))
    answers = offer(receiver, with_past(plain, "01"), with_past(packed, "01"), packed)
    assert answers == ["0000", "0000", LOSSY_FIRST]
