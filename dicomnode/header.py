"""Read the header of a stored file, and refuse what cannot be filed or is not whole.

A truncated data set parses without complaint in pydicom, so declared and present lengths are compared
before the sender is told that its copy is no longer needed.
"""

from __future__ import annotations

import math
import re
import struct
from pathlib import Path
from typing import Any, BinaryIO

import pydicom
import pydicom.config
import pydicom.multival
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_dataset
from pydicom.tag import Tag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian
from pydicom.valuerep import VR

from dicomnode.errors import Refused
from dicomnode.study import Instance

# Real headers break the rules of their value representations; what matters is checked here, by use.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

IDENTIFIERS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
#: What assembly and selection look at. Nothing that identifies a patient.
KEYWORDS = (
    "Modality", "ImageType", "BodyPartExamined", "StudyDescription", "SeriesDescription", "ProtocolName",
    "InstanceNumber", "SeriesNumber", "AcquisitionNumber", "ImagesInAcquisition", "NumberOfStudyRelatedInstances",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "Rows", "Columns",
    "NumberOfFrames", "SamplesPerPixel", "ConvolutionKernel", "ContrastBolusAgent", "FrameOfReferenceUID",
    "ScanningSequence", "SequenceVariant", "RepetitionTime", "EchoTime", "InversionTime", "ScanOptions",
)  # fmt: skip
_LAYOUT = ("BitsAllocated", "SamplesPerPixel", "PixelData", "FloatPixelData", "DoubleFloatPixelData")
_KEYWORD_TAGS = {word: tag for word in KEYWORDS if (tag := tag_for_keyword(word)) is not None}
_NUMBERS = (VR.DS, VR.IS, VR.US, VR.FD)
_TAGS = [Tag(word) for word in (*IDENTIFIERS, *KEYWORDS, *_LAYOUT)]
_PIXELS = {tag_for_keyword(word) for word in _LAYOUT[2:]}
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_UNDEFINED = 0xFFFFFFFF
_LARGE_BYTES = 1 << 16  # a longer value of a document is passed over: it would take its size in memory


def read_instance(path: Path, *, sha256: str = "") -> Instance:
    """Read a DICOM file's header into an Instance.

    Raises Refused (CANNOT_UNDERSTAND) for anything that is not a whole, identifiable DICOM object.
    """
    try:
        with path.open("rb") as file:
            dataset = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_TAGS)
            _refuse_damaged(dataset, file, path.stat().st_size)
        uids = [_uid(dataset, keyword) for keyword in IDENTIFIERS]
        header = {word: value for word, tag in _KEYWORD_TAGS.items() if (value := _plain(dataset, tag)) is not None}
    except Refused:
        raise
    except (Exception, RecursionError) as error:  # noqa: BLE001 - hostile bytes raise anything inside the parser
        raise Refused(Refused.CANNOT_UNDERSTAND, f"not a readable DICOM object: {type(error).__name__}") from error
    return Instance(
        sop_class_uid=uids[0],
        sop_uid=uids[1],
        study_uid=uids[2],
        series_uid=uids[3],
        transfer_syntax_uid=str(dataset.file_meta.TransferSyntaxUID),
        path=path,
        sha256=sha256,
        header=header,
    )


def _uid(dataset: Dataset, keyword: str) -> str:
    value = str(dataset.get(keyword) or "")
    if len(value) > 64 or not _UID.fullmatch(value):
        raise Refused(Refused.CANNOT_UNDERSTAND, f"{keyword} is missing or not a UID of at most 64 characters")
    return value


def _plain(dataset: Dataset, tag: int) -> Any:
    """A value as JSON can hold it; None if it is absent, empty or not what its VR promises."""
    if tag not in dataset:
        return None
    try:
        element = dataset[tag]
        value = element.value
        if value is None or value == "":
            return None
        several = isinstance(value, pydicom.multival.MultiValue)
        if element.VR not in _NUMBERS:
            return [str(x) for x in value] if several else str(value)
        numbers = [float(x) for x in (value if several else [value])]
        if not all(map(math.isfinite, numbers)):
            return None
        return numbers if several else numbers[0]
    except (ValueError, TypeError, OverflowError, KeyError):
        return None


def _refuse_damaged(dataset: Dataset, file: BinaryIO, size: int) -> None:
    """Compare declared with present lengths. `file` stands where the pixel data starts, or at its end."""
    if dataset.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian:
        raise Refused(
            Refused.CANNOT_UNDERSTAND, "deflated transfer syntax: its size cannot be bounded, send it inflated"
        )
    _refuse_short(dataset, size)
    if file.tell() >= size:
        if UID(dataset.get("SOPClassUID", "")).name.endswith("Image Storage"):
            raise Refused(Refused.CANNOT_UNDERSTAND, "an image without pixel data, or truncated before it")
        file.seek(0)
        _refuse_cut(pydicom.dcmread(file, defer_size=_LARGE_BYTES), size)
        return
    length = _pixel_length(file, dataset)
    if length == _UNDEFINED:
        _walk_fragments(file, size, _byte_order(dataset))
    elif file.tell() + length > size:
        raise Refused(Refused.CANNOT_UNDERSTAND, "truncated inside the pixel data")
    elif length < _native_length(dataset):
        raise Refused(Refused.CANNOT_UNDERSTAND, "less pixel data than Rows, Columns and Bits Allocated declare")
    else:
        file.seek(length, 1)
    if file.tell() < size:
        implicit, little = dataset.original_encoding
        _refuse_cut(read_dataset(file, bool(implicit), bool(little), defer_size=_LARGE_BYTES), size)


def _refuse_short(dataset: Dataset, size: int) -> None:
    """Every top-level element must be wholly there."""
    for tag in list(dataset.keys()):  # iterating the data set itself would convert every element
        raw = dataset.get_item(tag, keep_deferred=True)
        if isinstance(raw, RawDataElement) and raw.length != _UNDEFINED and raw.value_tell + raw.length > size:
            raise Refused(Refused.CANNOT_UNDERSTAND, f"truncated inside {Tag(tag)}")


def _refuse_cut(dataset: Dataset, size: int) -> None:
    """The last element must end where the file ends: pydicom ignores an element header that is not whole."""
    _refuse_short(dataset, size)
    last = dataset.get_item(max(dataset.keys()), keep_deferred=True) if len(dataset) else None
    if last is None or isinstance(last, RawDataElement) and last.value_tell + last.length != size:
        raise Refused(Refused.CANNOT_UNDERSTAND, "truncated at the end")


def _byte_order(dataset: Dataset) -> str:
    return "<" if dataset.original_encoding[1] else ">"


def _pixel_length(file: BinaryIO, dataset: Dataset) -> int:
    """Read the pixel data element's header and leave the file at its value."""
    order, implicit = _byte_order(dataset), dataset.original_encoding[0]
    group, element = struct.unpack(order + "HH", file.read(4))
    if Tag(group, element) not in _PIXELS:
        raise Refused(Refused.CANNOT_UNDERSTAND, f"unexpected end of header at {Tag(group, element)}")
    if not implicit:
        file.read(4)  # VR (OB, OW, OF or OD) and two reserved bytes
    return int(struct.unpack(order + "L", file.read(4))[0])


def _native_length(dataset: Dataset) -> int:
    """Bytes that uncompressed grey pixel data must have at least; 0 where that is not so simply known."""
    if int(dataset.get("SamplesPerPixel") or 1) > 1:
        return 0
    counts = (dataset.get(word) or 0 for word in ("Rows", "Columns", "BitsAllocated"))
    rows, columns, bits = (int(count) for count in counts)
    return rows * columns * bits * int(dataset.get("NumberOfFrames") or 1) // 8


def _walk_fragments(file: BinaryIO, size: int, order: str) -> None:
    """Encapsulated pixel data (PS3.5 A.4): items up to a sequence delimiter."""
    while True:
        head = file.read(8)
        if len(head) < 8:
            raise Refused(Refused.CANNOT_UNDERSTAND, "compressed pixel data ends without its delimiter")
        group, element, length = struct.unpack(order + "HHL", head)
        if (group, element) == (0xFFFE, 0xE0DD):
            return
        if (group, element) != (0xFFFE, 0xE000) or file.tell() + length > size:
            raise Refused(Refused.CANNOT_UNDERSTAND, "truncated inside the compressed pixel data")
        file.seek(length, 1)
