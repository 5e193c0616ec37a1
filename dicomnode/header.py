"""Read the header of a stored file, and refuse what cannot be filed or is not whole.

A truncated data set parses without complaint in pydicom, so declared and present lengths are compared
before the sender is told that its copy is no longer needed. Of the values only those that are looked at are read, and
what leaves this module is short, of one kind for each keyword, and without control characters.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, BinaryIO

import pydicom.config
import pydicom.multival
from pydicom import Dataset
from pydicom.datadict import dictionary_VM, dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.filereader import read_file_meta_info
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian
from pydicom.valuerep import VR

from dicomnode.errors import Refused
from dicomnode.spool import dataset_offset
from dicomnode.structure import UNDEFINED, Place, walk
from dicomnode.study import Instance

# Real headers break the rules of their value representations; what matters is checked here, by use.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

IDENTIFIERS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
#: What assembly, selection and the comparison of copies look at. Nothing that identifies a patient.
KEYWORDS = (
    "Modality", "ImageType", "BodyPartExamined", "StudyDescription", "SeriesDescription", "ProtocolName",
    "InstanceNumber", "SeriesNumber", "AcquisitionNumber", "ImagesInAcquisition", "NumberOfStudyRelatedInstances",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "Rows", "Columns",
    "NumberOfFrames", "SamplesPerPixel", "ConvolutionKernel", "ContrastBolusAgent", "FrameOfReferenceUID",
    "ScanningSequence", "SequenceVariant", "RepetitionTime", "EchoTime", "InversionTime", "ScanOptions",
    "LossyImageCompression",
)  # fmt: skip
_LAYOUT = ("SpecificCharacterSet", "BitsAllocated", "SamplesPerPixel")
_PIXELS = {Tag(word) for word in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")}
_KEYWORD_TAGS = {word: tag for word in KEYWORDS if (tag := tag_for_keyword(word)) is not None}
_NUMBERS = {tag for tag in _KEYWORD_TAGS.values() if dictionary_VR(tag) in (VR.DS, VR.IS, VR.US, VR.FD)}
_SINGLE = {tag for tag in _NUMBERS if dictionary_VM(tag) == "1"}
_VALUES = {Tag(word) for word in (*IDENTIFIERS, *KEYWORDS, *_LAYOUT)}
_WANTED = _VALUES | _PIXELS
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
MAX_VALUE_BYTES = 4096  # of a value that is looked at: a longer one counts as absent


def read_instance(path: Path, *, sha256: str = "") -> Instance:
    """Read a DICOM file's header into an Instance.

    Raises Refused (CANNOT_UNDERSTAND) for anything that is not a whole, identifiable DICOM object.
    """
    try:
        syntax = UID(read_file_meta_info(path).TransferSyntaxUID)
        if syntax == DeflatedExplicitVRLittleEndian:
            raise Refused(
                Refused.CANNOT_UNDERSTAND, "deflated transfer syntax: its size cannot be bounded, send it inflated"
            )
        big = syntax == ExplicitVRBigEndian
        with path.open("rb") as file:
            places = walk(file, dataset_offset(path), path.stat().st_size, _WANTED, order=">" if big else "<")
            dataset = _values(file, places, little=not big)
        _refuse_without_pixels(dataset, places)
        uids = [_uid(dataset, keyword) for keyword in IDENTIFIERS]
        header = {word: value for word, tag in _KEYWORD_TAGS.items() if (value := _plain(dataset, tag)) is not None}
    except Refused:
        raise
    except Exception as error:  # noqa: BLE001 - hostile bytes raise anything inside the parser
        raise Refused(Refused.CANNOT_UNDERSTAND, f"not a readable DICOM object: {type(error).__name__}") from error
    return Instance(
        sop_class_uid=uids[0],
        sop_uid=uids[1],
        study_uid=uids[2],
        series_uid=uids[3],
        transfer_syntax_uid=str(syntax),
        path=path,
        sha256=sha256,
        header=header,
    )


def _values(file: BinaryIO, places: dict[int, Place], *, little: bool) -> Dataset:
    """The wanted values of reasonable length, for pydicom to decode when they are used."""
    found: dict[BaseTag, DataElement | RawDataElement] = {}
    for tag, place in places.items():
        if tag in _VALUES and place.length <= MAX_VALUE_BYTES:
            file.seek(place.start)
            value, vr = file.read(place.length), place.vr.decode() or None
            found[Tag(tag)] = RawDataElement(Tag(tag), vr, place.length, value, place.start, not place.vr, little)
    return Dataset(found)


def _uid(dataset: Dataset, keyword: str) -> str:
    value = str(dataset.get(keyword) or "")
    if len(value) > 64 or not _UID.fullmatch(value):
        raise Refused(Refused.CANNOT_UNDERSTAND, f"{keyword} is missing or not a UID of at most 64 characters")
    return value


def _plain(dataset: Dataset, tag: int) -> Any:
    """A value as JSON can hold it; None if it is absent, empty or not what the dictionary promises."""
    if tag not in dataset:
        return None
    try:
        value = dataset[tag].value
        several = isinstance(value, pydicom.multival.MultiValue)
        parts = list(value) if several else [value]
        if tag in _NUMBERS:
            numbers = [float(part) for part in parts]
            if not all(map(math.isfinite, numbers)) or (several and tag in _SINGLE):
                return None
            return numbers if several else numbers[0]
        texts = [_printable(part) for part in parts]
        return texts if several else texts[0] or None
    except (ValueError, TypeError, OverflowError, KeyError):
        return None


def _printable(text: Any) -> str:
    """Text that neither moves a cursor nor turns the direction of writing, wherever it is shown."""
    if not isinstance(text, str | float | int):
        raise TypeError("a sequence or bytes where a text belongs")
    text = str(text)
    return text if text.isprintable() else "".join(sign if sign.isprintable() else " " for sign in text)


def _refuse_without_pixels(dataset: Dataset, places: dict[int, Place]) -> None:
    """An image has pixel data, and uncompressed at least as much of it as it declares."""
    pixels = next((places[tag] for tag in places if tag in _PIXELS), None)
    if pixels is None:
        if UID(dataset.get("SOPClassUID", "")).name.endswith("Image Storage"):
            raise Refused(Refused.CANNOT_UNDERSTAND, "an image without pixel data, or truncated before it")
    elif pixels.length != UNDEFINED and pixels.length < _native_length(dataset):
        raise Refused(Refused.CANNOT_UNDERSTAND, "less pixel data than Rows, Columns and Bits Allocated declare")


def _native_length(dataset: Dataset) -> int:
    """Bytes that uncompressed grey pixel data must have at least; 0 where that is not so simply known."""
    if int(dataset.get("SamplesPerPixel") or 1) > 1:
        return 0
    counts = (dataset.get(word) or 0 for word in ("Rows", "Columns", "BitsAllocated"))
    rows, columns, bits = (int(count) for count in counts)
    return rows * columns * bits * int(dataset.get("NumberOfFrames") or 1) // 8
