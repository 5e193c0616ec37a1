"""Reading a header: what is taken, what is refused, and that nothing else ever happens."""

from __future__ import annotations

import os
import random
import tracemalloc
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EncapsulatedPDFStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from dicomnode.doctor import encode_sample
from dicomnode.errors import Refused
from dicomnode.header import KEYWORDS, read_instance
from dicomnode.network.listen import TRANSFER_SYNTAXES
from tests.receivers import ct_file

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES, ids=[s.name for s in TRANSFER_SYNTAXES])
def test_every_transfer_syntax_is_read_whole_and_refused_cut(tmp_path, syntax):
    path, _ = encode_sample(syntax, tmp_path)
    instance = read_instance(path)
    assert instance.transfer_syntax_uid == syntax
    assert instance.header["Modality"] == "CT"
    content = path.read_bytes()
    for share in (0.3, 0.6, 0.9, 0.999):
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(Refused):
            read_instance(path)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless], ids=lambda s: s.name)
def test_a_damaged_file_is_read_or_refused_and_nothing_else(tmp_path, syntax):
    path, _ = encode_sample(syntax, tmp_path)
    content, rng = path.read_bytes(), random.Random(3)
    refused = 0
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(rng.randint(1, 20)):
            damaged[rng.randrange(132, 3000)] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            read_instance(path)
        except Refused as error:
            refused += 1
            assert error.status == Refused.CANNOT_UNDERSTAND
    assert refused > 20


def test_only_what_assembly_and_selection_need_is_kept_and_nothing_about_the_patient(tmp_path):
    instance = read_instance(ct_file(tmp_path, PatientName="DOE^JOHN", PatientID="4711", AccessionNumber="A1"))
    assert set(instance.header) <= set(KEYWORDS)
    assert not [word for word in KEYWORDS if word.startswith(("Patient", "Accession"))]
    assert "DOE" not in str(instance)


@pytest.mark.parametrize(
    ("keyword", "stored", "read"),
    [
        ("SliceThickness", "0", 0.0),
        ("InstanceNumber", "0", 0.0),
        ("SliceThickness", "", None),
        ("SliceThickness", "thin", None),
        ("SliceThickness", "nan", None),
        ("SliceThickness", "1e400", None),
        ("PixelSpacing", ["0.5", "0.4"], [0.5, 0.4]),
        ("PixelSpacing", ["0.5", ""], None),
    ],
)
def test_odd_values_are_read_or_left_out(tmp_path, keyword, stored, read):
    path = ct_file(tmp_path)
    dataset = pydicom.dcmread(path)
    tag = pydicom.datadict.tag_for_keyword(keyword)
    raw = "\\".join(stored) if isinstance(stored, list) else stored
    encoded = raw.encode() + b" " * (len(raw.encode()) % 2)
    vr = pydicom.datadict.dictionary_VR(tag)
    dataset[tag] = pydicom.dataelem.RawDataElement(
        pydicom.tag.Tag(tag), vr, len(encoded), encoded, 0, is_implicit_VR=False, is_little_endian=True
    )
    dataset.save_as(path, enforce_file_format=True)
    assert read_instance(path).header.get(keyword) == read


@pytest.mark.parametrize("charset", ["ISO_IR 100", "ISO_IR 192", "GB18030"])
def test_a_description_is_read_in_its_character_set(tmp_path, charset):
    text = "颈椎" if charset == "GB18030" else "Wirbelsäule"
    path = ct_file(tmp_path, SpecificCharacterSet=charset, SeriesDescription=text)
    assert read_instance(path).header["SeriesDescription"] == text


def test_a_deflated_file_is_refused_because_its_size_has_no_bound(tmp_path):
    path = ct_file(tmp_path)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)
    with pytest.raises(Refused, match="deflated"):
        read_instance(path)


@pytest.mark.parametrize("content", [b"", b"x", bytes(200), bytes(128) + b"DICM", b"%PDF-1.7" + bytes(500)])
def test_what_is_no_dicom_is_refused(tmp_path, content):
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(Refused):
        read_instance(path)


def test_an_image_without_pixels_is_refused_and_a_report_without_pixels_is_not(tmp_path):
    path = ct_file(tmp_path)
    dataset = pydicom.dcmread(path)
    del dataset.PixelData
    dataset.save_as(path, enforce_file_format=True)
    with pytest.raises(Refused, match="without pixel data"):
        read_instance(path)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.22"
    dataset.save_as(path, enforce_file_format=True)
    assert read_instance(path).sop_class_uid.endswith("88.22")


@pytest.mark.fault(12, "b")
def test_an_image_with_fewer_pixels_than_it_declares_is_refused(tmp_path):
    path = ct_file(tmp_path, Rows=4096, Columns=4096)
    with pytest.raises(Refused, match="less pixel data"):
        read_instance(path)


@pytest.mark.skipif(not DATA.exists(), reason="the real studies are not beside this checkout")
def test_every_real_image_is_taken():
    files = [p for folder in ("ct-philips-study", "ct-philips-tilt", "mr-t1-brain") for p in (DATA / folder).rglob("*")]
    read = [read_instance(path) for path in files if path.is_file()]
    assert len(read) > 50


ODD_NUMBERS = ["SeriesNumber", "EchoTime", "ImagesInAcquisition", "NumberOfStudyRelatedInstances"]


@pytest.mark.parametrize("keyword", ODD_NUMBERS)
@pytest.mark.parametrize("value", [b"1\\2", b"many", b"1e400", b"nan "])
def test_what_must_be_one_number_is_one_or_absent_whatever_vr_it_comes_with(tmp_path, keyword, value):
    data = with_element(tmp_path, pydicom.datadict.tag_for_keyword(keyword), b"LO", value)
    assert read_instance(data).header.get(keyword) is None


@pytest.mark.filterwarnings("ignore:Found unknown escape sequence")
def test_a_text_holds_no_sign_that_moves_a_cursor_or_turns_the_direction_of_writing(tmp_path):
    text = "neck\x1b[2J\n\u202e\u2066\0\u0085C1 \u00e4\u9888"
    path = ct_file(tmp_path, SpecificCharacterSet="ISO_IR 192", SeriesDescription=text)
    assert read_instance(path).header["SeriesDescription"] == "neck [2J     C1 \u00e4\u9888"


def test_a_text_of_unreasonable_length_is_absent_and_never_read(tmp_path):
    path = with_element(tmp_path, 0x00081030, b"UT", b"a" * 8_000_000)
    tracemalloc.start()
    assert "StudyDescription" not in read_instance(path).header
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def with_element(folder: Path, tag: int, vr: bytes, value: bytes) -> Path:
    """A CT image with one element replaced by these bytes."""
    path = ct_file(folder)
    dataset = pydicom.dcmread(path)
    element = pydicom.dataelem.RawDataElement(pydicom.tag.Tag(tag), vr.decode(), len(value), value, 0, False, True)
    dataset[tag] = element
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_a_large_document_takes_no_memory_and_is_refused_if_it_is_cut(tmp_path):
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = EncapsulatedPDFStorage, "1.2.3"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2", "1.2.9"
    dataset.EncapsulatedDocument = bytes(8 << 20)
    path = tmp_path / "document.dcm"
    dataset.save_as(path, enforce_file_format=True)
    tracemalloc.start()
    assert read_instance(path).sop_uid == "1.2.3"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
    os.truncate(path, path.stat().st_size - 100)
    with pytest.raises(Refused, match="truncated inside"):
        read_instance(path)
