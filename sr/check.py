"""The last look at a result before it leaves: what is wrong here would be wrong in the patient's record.

The object is encoded and read back, so everything is checked as a receiver will see it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EncapsulatedPDFStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from inference.findings import Mask
from inference.volume import Volume
from sr import codes, frames, headers, label_map

#: Label Map Segmentation (PS3.4 B.5, since 2024d), which pydicom has no name for.
LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"

_ENHANCED = (
    "ContentDate", "ContentTime", "Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions",
    "FrameOfReferenceUID", "NumberOfFrames", "Rows", "Columns", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence", "DimensionIndexSequence", "ReferencedSeriesSequence",
)  # fmt: skip
_SEGMENTATION = (*_ENHANCED, "SegmentSequence", "PixelData")
_DOCUMENT = (
    "ContentDate", "ContentTime", "ValueType", "ConceptNameCodeSequence", "ContinuityOfContent",
    "ContentTemplateSequence", "ContentSequence", "CurrentRequestedProcedureEvidenceSequence",
)  # fmt: skip
_REPORT = (*_DOCUMENT, "CompletionFlag", "VerificationFlag")
#: Type 1 attributes by SOP class; "" for every object (PS3.3 A.8.3, A.33.1, A.35.4, A.35.13, A.45.1, A.51, A.75).
TYPE_1: dict[str, tuple[str, ...]] = {
    "": (
        "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "SeriesNumber",
        "InstanceNumber", "InstanceCreationDate", "ContributingEquipmentSequence",
    ),
    Comprehensive3DSRStorage: _REPORT,
    ComprehensiveSRStorage: _REPORT,
    KeyObjectSelectionDocumentStorage: _DOCUMENT,
    SegmentationStorage: _SEGMENTATION,
    LABEL_MAP: _SEGMENTATION,
    ParametricMapStorage: (*_ENHANCED, "FloatPixelData"),
    SecondaryCaptureImageStorage: ("ConversionType", "Rows", "Columns", "PixelData"),
    GrayscaleSoftcopyPresentationStateStorage: (
        "ContentLabel", "PresentationCreationDate", "ReferencedSeriesSequence", "DisplayedAreaSelectionSequence",
        "PresentationLUTShape", "GraphicAnnotationSequence", "GraphicLayerSequence",
    ),
    EncapsulatedPDFStorage: ("ConversionType", "BurnedInAnnotation", "MIMETypeOfEncapsulatedDocument",
                             "EncapsulatedDocument"),
}  # fmt: skip

#: References in these are not to images of this run: earlier results, and what was copied from the source.
_FOREIGN = frozenset({"PredecessorDocumentsSequence", *headers.INHERITED})


class InvalidResult(ValueError):
    """A result object that must not leave; the message names the object and the problem."""

    def __init__(self, message: str, dataset: Dataset | None = None) -> None:
        super().__init__(message)
        #: The object, to be kept aside for whoever looks into it; None if it could not be made or encoded.
        self.dataset = dataset


def check(dataset: Dataset, *, sources: Mapping[str, Dataset], volume: Volume | None, masks: Sequence[Mask]) -> None:
    """Raise InvalidResult unless the object is whole, belongs to its sources and shows what was found.

    `sources` are the headers of everything it may reference, by SOP Instance UID: the images received and the
    results of the same run. `masks` are those the segments were made of, in order of segment number.
    """
    name = f"{dataset.get('Modality', 'object')} {dataset.get('SOPInstanceUID', '')}"
    received = _reread(dataset, name)
    try:
        _require_values(received)
        _require_well_formed(received)
        _require_same_patient(received, sources)
        _require_known_references(received, sources)
        _require_known_codes(received)
        if received.Modality == "SR":
            _require_template(received)
            _require_inside_image(received, sources)
        if received.Modality == "SEG" and volume is not None:
            _require_position(received, volume, masks)
        if received.SOPClassUID == ParametricMapStorage and volume is not None:
            _require_order(received, volume)
    except InvalidResult as error:
        raise InvalidResult(f"{name}: {error}", received) from error


def _reread(dataset: Dataset, name: str) -> Dataset:
    buffer = BytesIO()
    try:
        pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
        buffer.seek(0)
        received = pydicom.dcmread(buffer)
        for _ in received.iterall():
            pass  # decodes every element
    except Exception as error:  # an element of a wrong type can fail anywhere in the encoder
        raise InvalidResult(f"{name}: cannot be encoded: {type(error).__name__}: {error}") from error
    return received


def _require_values(dataset: Dataset) -> None:
    needed = TYPE_1[""] + TYPE_1.get(dataset.get("SOPClassUID", ""), ())
    missing = [keyword for keyword in needed if dataset.get(keyword) in (None, "", b"")]
    missing += [keyword for keyword in headers.TYPE_2 if keyword not in dataset]
    if missing:
        raise InvalidResult(f"has no {', '.join(missing)}")


def _require_well_formed(dataset: Dataset) -> None:
    """What was inherited is excused: it is passed on as it came."""
    for item in (dataset, *_items(dataset)):
        for element in item:
            if not (item is dataset and element.keyword in _FOREIGN or headers.well_formed(item, element.keyword)):
                raise InvalidResult(f"{element.keyword} has a value that its VR {element.VR} does not allow")


def _require_same_patient(dataset: Dataset, sources: Mapping[str, Dataset]) -> None:
    source = next(iter(sources.values()))
    for keyword in ("StudyInstanceUID", *headers.TYPE_2):
        if str(dataset.get(keyword) or "") != str(source.get(keyword) or ""):
            raise InvalidResult(f"{keyword} differs from the source")


def _require_known_references(dataset: Dataset, sources: Mapping[str, Dataset]) -> None:
    for item in _items(dataset):
        if "ReferencedSOPInstanceUID" not in item:
            continue
        source = sources.get(item.ReferencedSOPInstanceUID)
        if source is None:
            raise InvalidResult(f"references {item.ReferencedSOPInstanceUID}, which was not received")
        if item.get("ReferencedSOPClassUID") != source.SOPClassUID:
            raise InvalidResult(f"references {source.SOPInstanceUID} as another SOP class")
        _require_within(item, "ReferencedFrameNumber", int(source.get("NumberOfFrames") or 1))
        _require_within(item, "ReferencedSegmentNumber", len(source.get("SegmentSequence") or ()))


def _require_within(item: Dataset, keyword: str, last: int) -> None:
    if item.get(keyword) is None:
        return
    for number in np.atleast_1d(item[keyword].value):
        if not 1 <= int(number) <= last:
            raise InvalidResult(f"{keyword} {number} of {item.ReferencedSOPInstanceUID}, which has {last}")


def _require_known_codes(dataset: Dataset) -> None:
    for item in _items(dataset):
        if "CodeValue" in item and not codes.known(item.get("CodingSchemeDesignator", ""), item.CodeValue):
            raise InvalidResult(
                f"code {item.get('CodingSchemeDesignator', '')} {item.CodeValue} "
                f"({item.get('CodeMeaning', '')}) is neither in DICOM PS3.16 nor in {codes.TABLE.name}"
            )


def _require_template(dataset: Dataset) -> None:
    template, title = dataset.ContentTemplateSequence[0], dataset.ConceptNameCodeSequence[0]
    if (template.get("TemplateIdentifier"), title.get("CodeValue")) != ("1500", "126000"):
        raise InvalidResult("is not an Imaging Measurement Report by TID 1500")


def _require_inside_image(dataset: Dataset, sources: Mapping[str, Dataset]) -> None:
    """A box that leaves its image has its axes swapped, or belongs to another one."""
    for item in _items(dataset):
        if item.get("ValueType") == "SCOORD":
            image = sources[item.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID]
            points = np.array(item.GraphicData, float).reshape(-1, 2)  # (column, row)
            if points.min() < 0 or (points.max(axis=0) > (image.Columns, image.Rows)).any():
                raise InvalidResult(f"has a region outside image {image.SOPInstanceUID}")


def _require_order(dataset: Dataset, volume: Volume) -> None:
    """A map has one frame for each slice, in their order: viewers lay them over the images by number."""
    places = [g.PlanePositionSequence[0].ImagePositionPatient for g in dataset.PerFrameFunctionalGroupsSequence]
    expected = frames.origins(volume)
    if len(places) != len(expected) or not np.allclose(np.array(places, float), expected, atol=1e-3):
        raise InvalidResult("has its frames in another order than the slices")


def _require_position(dataset: Dataset, volume: Volume, masks: Sequence[Mask]) -> None:
    """Compare what is drawn where with the masks: number of voxels exactly, centre within half a voxel."""
    origins = frames.origins(volume)
    index = np.arange(len(origins))[:, None]
    drift = np.linalg.norm(origins - (volume.affine[:3, 3] + index * volume.affine[:3, 0]), axis=1).max()
    if drift > max(1.0, volume.spacing[0]):
        raise InvalidResult(f"the headers place the slices up to {drift:.1f} mm away from the volume")
    numbers = [int(segment.SegmentNumber) for segment in dataset.SegmentSequence if segment.SegmentNumber]
    if len(numbers) != len(masks):
        raise InvalidResult(f"has {len(numbers)} segments for {len(masks)} masks")
    arrays = [mask.array for mask in masks]
    if dataset.SOPClassUID == LABEL_MAP:
        merged = label_map.labels(arrays)
        arrays = [merged == number for number in numbers]
    pixels = pixel_array(dataset).reshape(-1, dataset.Rows, dataset.Columns)
    for number, mask, array in zip(numbers, masks, arrays, strict=True):
        if not array.any():
            raise InvalidResult(f"segment {number} ({mask.label}) lies wholly under others")
        count, centre = _drawn(dataset, pixels, number)
        expected_count, expected = _meant(array, origins, volume)
        if count != expected_count:
            raise InvalidResult(f"segment {number} ({mask.label}) has {count} voxels instead of {expected_count}")
        offset = np.linalg.solve(volume.affine[:3, :3], centre - expected)  # in voxels
        if np.abs(offset).max() > 0.5:
            raise InvalidResult(
                f"segment {number} ({mask.label}) lies {np.linalg.norm(centre - expected):.1f} mm off its mask"
            )


def _drawn(dataset: Dataset, pixels: np.ndarray, number: int) -> tuple[int, np.ndarray]:
    """Count the voxels of a segment as a viewer does; return their centre in LPS mm too."""
    shared = dataset.SharedFunctionalGroupsSequence[0]
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    spacing = np.array(shared.PixelMeasuresSequence[0].PixelSpacing, float)
    count, total = 0, np.zeros(3)
    for frame, groups in zip(pixels, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        rows, columns = np.nonzero(_of_segment(dataset, frame, groups, number))
        origin = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
        count += len(rows)
        total += len(rows) * origin
        total += rows.sum() * spacing[0] * cosines[3:] + columns.sum() * spacing[1] * cosines[:3]
    return count, total / max(count, 1)


def _of_segment(dataset: Dataset, frame: np.ndarray, groups: Dataset, number: int) -> np.ndarray:
    """Return the part of a frame that is one segment: by its value in a label map, else by whose frame it is."""
    if dataset.SOPClassUID == LABEL_MAP:
        return np.asarray(frame == number)
    place = groups if "SegmentIdentificationSequence" in groups else dataset.SharedFunctionalGroupsSequence[0]
    mine = place.SegmentIdentificationSequence[0].ReferencedSegmentNumber == number
    return frame if mine else np.zeros_like(frame)


def _meant(array: np.ndarray, origins: np.ndarray, volume: Volume) -> tuple[int, np.ndarray]:
    slices, rows, columns = np.nonzero(array)
    centre = origins[slices].mean(axis=0)
    centre = centre + rows.mean() * volume.affine[:3, 1] + columns.mean() * volume.affine[:3, 2]
    return len(slices), centre


def _items(dataset: Dataset, depth: int = 0) -> Iterator[Dataset]:
    """Every sequence item that is ours, at any depth."""
    for element in dataset:
        if element.VR == "SQ" and not (depth == 0 and element.keyword in _FOREIGN):
            for item in element.value:
                yield item
                yield from _items(item, depth + 1)
