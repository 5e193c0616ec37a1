"""Synthetic source images: CT headers and volumes for any patient, character set and orientation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian

from inference.findings import Analysis, Code, Finding, Mask, ModelIdentity
from inference.volume import Volume
from sr.results import Run

#: Direction cosines of a row (towards higher columns) and a column (towards higher rows), LPS.
AXIAL = (1, 0, 0, 0, 1, 0)
SAGITTAL = (0, 1, 0, 0, 0, -1)
OBLIQUE = (0.8, 0.6, 0, -0.36, 0.48, -0.8)
#: Feet-first supine: the patient is turned about the vertical, rows run towards the right.
FEET_FIRST = (-1, 0, 0, 0, 1, 0)

FRACTURE = Code(scheme="SCT", value="72704001", meaning="Fracture")
CERVICAL_SPINE = Code(scheme="SCT", value="122494005", meaning="Cervical spine")
C5 = Code(scheme="SCT", value="36978003", meaning="C5 vertebra")

SPACING = (2.0, 0.5, 0.75)  # slice, row, column; mm; all different so that swapped axes show
SHAPE = (12, 40, 48)


def ct_headers(
    count: int = SHAPE[0],
    *,
    orientation: Sequence[float] = AXIAL,
    tilt: float = 0.0,
    positions: Sequence[float] | None = None,
    patient: Mapping[str, Any] | None = None,
    uid_root: str = "1.2.826.0.1.3680043.10.1",
    rows: int = SHAPE[1],
    columns: int = SHAPE[2],
) -> list[Dataset]:
    """Return one CT header per slice, lowest slice along the normal first, without pixel data.

    `positions` are mm along the normal, default regular; `tilt` shifts every slice by that many mm along the
    columns, as a tilted gantry does; `patient` sets any attribute by keyword, SpecificCharacterSet included;
    a value of None removes it.
    """
    row, column = np.array(orientation[:3], float), np.array(orientation[3:], float)
    normal = np.cross(row, column)
    steps = [i * SPACING[0] for i in range(count)] if positions is None else positions
    result = []
    for index, step in enumerate(steps):
        header = Dataset()
        header.SpecificCharacterSet = "ISO_IR 100"
        header.SOPClassUID = CTImageStorage
        header.SOPInstanceUID = f"{uid_root}.1.1.{index + 1}"
        header.StudyInstanceUID, header.SeriesInstanceUID = f"{uid_root}.1", f"{uid_root}.1.1"
        header.FrameOfReferenceUID = f"{uid_root}.9"
        header.PositionReferenceIndicator = ""
        header.StudyDate, header.StudyTime = "20260105", "101500"
        header.StudyID, header.AccessionNumber = "S1", "A4711"
        header.StudyDescription = "CT cervical spine"
        header.PatientName, header.PatientID = "Doe^Jane", "P-1"
        header.PatientBirthDate, header.PatientSex = "19700102", "F"
        header.ReferringPhysicianName = "Refer^Ring"
        header.Modality, header.Manufacturer = "CT", "Scanner Works"
        header.ManufacturerModelName, header.SeriesNumber = "Model 1", 3
        header.SeriesDescription, header.InstanceNumber = "bone 2 mm", index + 1
        header.Rows, header.Columns = rows, columns
        header.PixelSpacing, header.SliceThickness = list(SPACING[1:]), SPACING[0]
        header.ImageOrientationPatient = list(orientation)
        origin = np.array([-20.0, -90.0, 400.0]) + normal * step + column * tilt * index
        header.ImagePositionPatient = [round(float(x), 6) for x in origin]
        for keyword, value in (patient or {}).items():
            if value is None:
                header.pop(keyword, None)
            else:
                setattr(header, keyword, value)
        result.append(header)
    return result


def enhanced_header(headers: Sequence[Dataset], order: Sequence[int] | None = None) -> Dataset:
    """Return one Enhanced CT header with the given headers as its frames, in the given order."""
    result = Dataset()
    for element in headers[0]:
        if element.keyword not in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
            result.add(element)
    result.SOPClassUID = EnhancedCTImageStorage
    result.NumberOfFrames = len(headers)
    result.SharedFunctionalGroupsSequence = [
        _groups(headers[0], PlaneOrientationSequence=["ImageOrientationPatient"],
                PixelMeasuresSequence=["PixelSpacing", "SliceThickness"])
    ]  # fmt: skip
    result.PerFrameFunctionalGroupsSequence = [
        _groups(headers[i], PlanePositionSequence=["ImagePositionPatient"]) for i in order or range(len(headers))
    ]
    return result


def _groups(header: Dataset, **groups: list[str]) -> Dataset:
    result = Dataset()
    for name, keywords in groups.items():
        item = Dataset()
        for keyword in keywords:
            item[keyword] = header[keyword]
        setattr(result, name, [item])
    return result


def volume_of(headers: Sequence[Dataset]) -> Volume:
    """Return a volume of soft tissue with a block of bone in the middle, over single-frame headers."""
    first, last = headers[0], headers[-1]
    shape = (len(headers), int(first.Rows), int(first.Columns))
    array = np.full(shape, 40.0, np.float32)
    array[:, shape[1] // 4 : shape[1] * 3 // 4, shape[2] // 4 : shape[2] * 3 // 4] = 700.0
    origin, end = np.array(first.ImagePositionPatient, float), np.array(last.ImagePositionPatient, float)
    orientation = np.array(first.ImageOrientationPatient, float)
    affine = np.eye(4)
    affine[:3, 0] = (end - origin) / (len(headers) - 1)
    affine[:3, 1] = orientation[3:] * float(first.PixelSpacing[0])
    affine[:3, 2] = orientation[:3] * float(first.PixelSpacing[1])
    affine[:3, 3] = origin
    return Volume(array=array, affine=affine, headers=tuple(headers), frames=(None,) * len(headers))


def enhanced_volume(headers: Sequence[Dataset], order: Sequence[int]) -> Volume:
    """Return the same volume as frames of one Enhanced file, stored in the given order."""
    plain = volume_of(headers)
    header = enhanced_header(headers, order)
    frames = tuple(list(order).index(i) + 1 for i in range(len(headers)))
    return Volume(array=plain.array, affine=plain.affine, headers=(header,) * len(headers), frames=frames)


def analysis_of(volume: Volume, *, positive: bool = True, masks: bool = True, **changes: Any) -> Analysis:
    """Return a finding with an L-shaped mask at C5, or a negative answer."""
    box = ((3, 10, 12), (7, 22, 30))
    array = np.zeros(volume.array.shape, bool)
    array[3:7, 10:22, 12:18] = True
    array[3:5, 16:22, 18:30] = True
    mask = Mask(label="C5 fracture", array=array, kind=FRACTURE, tracking_id="fracture-1")
    finding = Finding(
        tracking_id="fracture-1", code=FRACTURE, site=C5, level="C5", probability=0.93, raw_probability=0.88,
        uncertainty=0.04, box=box, key_slice=4,
    )  # fmt: skip
    values: dict[str, Any] = {
        "pipeline": "c-spine-fracture", "state": "done", "reason": "", "model": MODEL, "target": FRACTURE,
        "site": CERVICAL_SPINE, "case_probability": 0.93 if positive else 0.04, "threshold": 0.5,
        "slice_probabilities": tuple(np.linspace(0, 0.93 if positive else 0.04, volume.array.shape[0])),
        "level_probabilities": {"C4": 0.02, "C5": 0.93 if positive else 0.04},
        "findings": (finding,) if positive else (),
        "masks": (mask,) if positive and masks else (),
        "quality": ("gantry tilt of 3.0 degrees: the volume is sheared",),
    }  # fmt: skip
    return Analysis(**values | changes)


MODEL = ModelIdentity(
    name="cspine-fracture-net",
    version="0.3.0",
    sha256="ab" * 32,
    manufacturer="dicomnode",
    trained_on="Generated phantoms of the cervical spine.",
    notice="Research use only. Trained on generated phantoms.",
)


def run_for(headers: Sequence[Dataset], **changes: Any) -> Run:
    """Return what produced a result of these headers."""
    values: dict[str, Any] = {
        "pipeline": "c-spine-fracture",
        "weights_sha256": MODEL.sha256,
        "configuration_sha256": "cd" * 32,
        "code_version": "0.1.0",
        "source_uids": tuple(header.SOPInstanceUID for header in headers),
        "created": datetime(2026, 1, 5, 10, 30, tzinfo=UTC),
        "device_uid": "2.25.123456789",
    }
    return Run(**values | changes)


def as_file(dataset: Dataset) -> Dataset:
    """Return the data set with the file meta information it needs to be saved."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset
