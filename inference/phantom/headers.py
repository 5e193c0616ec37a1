"""What the DICOM files of all phantoms share: UIDs, patient, study and equipment, places of images, pixels.

Every file says that it is synthetic: SyntheticData, the manufacturer, the patient's name, the comments. Nothing in
the headers depends on the label; UIDs differ with the content, and tell nothing about it.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from inference.phantom.series import Image
from inference.phantom.vendors import Storage

IMPLEMENTATION_UID = "2.25." + str(uuid.uuid5(uuid.NAMESPACE_URL, "dicomnode-spine/phantom").int)
COMMENT = "Synthetic phantom, not a patient"
STUDY_DATE = "20260101"


class Specification(Protocol):
    """What a phantom of any kind says of itself."""

    @property
    def product(self) -> str:
        """The name of its kind, such as "cervical-ct"."""

    @property
    def seed(self) -> int: ...

    @property
    def profile(self) -> str: ...

    @property
    def generator_version(self) -> int: ...

    def to_json(self) -> str: ...

    def __hash__(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Equipment:
    """Who examined what, as the headers say it."""

    manufacturer: str
    study_description: str
    #: HHMMSS.
    study_time: str


def uid(spec: Specification, *parts: str) -> str:
    """The UID of a part of a phantom: the same for the same specification, and for no other."""
    names = [spec.product, str(spec.generator_version), spec.profile, str(spec.seed), _digest(spec), *parts]
    return "2.25." + str(uuid.uuid5(uuid.NAMESPACE_URL, "/".join(names)).int)


@lru_cache(maxsize=8)
def _digest(spec: Specification) -> str:
    """Of everything in a specification: the same seed with another label forced is another study."""
    # The last digits of a computed number may depend on the machine, and a UID must not.
    content = json.loads(spec.to_json(), parse_float=lambda text: f"{float(text):.6g}")
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def file(spec: Specification, equipment: Equipment, sop_class: UID, instance_uid: str) -> Dataset:
    """What all files of a study share: file meta information, patient, study and equipment."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(instance_uid)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_UID)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, instance_uid
    dataset.SyntheticData = "YES"
    region, modality = spec.product.upper().split("-")
    dataset.PatientName = f"PHANTOM^{region} {modality} {spec.seed}"
    dataset.PatientID = f"PHANTOM-{region[0]}{modality}-{spec.generator_version}-{spec.profile}-{spec.seed}"
    dataset.PatientBirthDate = ""
    dataset.PatientSex = "O"
    dataset.StudyInstanceUID = uid(spec, "study")
    dataset.StudyDate, dataset.StudyTime = STUDY_DATE, equipment.study_time
    dataset.StudyID = str(spec.seed)
    dataset.AccessionNumber = f"PH{spec.seed}"
    dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = equipment.study_description
    dataset.Manufacturer = equipment.manufacturer
    dataset.ManufacturerModelName = spec.product
    dataset.DeviceSerialNumber = "0"
    dataset.SoftwareVersions = str(spec.generator_version)
    return dataset


def series(dataset: Dataset, spec: Specification, kind: str, number: int, time: str) -> None:
    """Which series of the study a file belongs to, and when that was made."""
    dataset.SeriesInstanceUID = uid(spec, kind)
    dataset.SeriesNumber = str(number)
    dataset.SeriesDate = dataset.ContentDate = STUDY_DATE
    dataset.SeriesTime = dataset.ContentTime = time


def marks(dataset: Dataset) -> None:
    """What every image says against being taken for a patient's."""
    dataset.ImageComments = COMMENT
    dataset.QualityControlImage = "YES"
    dataset.BurnedInAnnotation = "NO"


def plane(dataset: Dataset, spec: Specification, shown: Image) -> None:
    """Where an image lies in the patient."""
    dataset.FrameOfReferenceUID = uid(spec, "frame of reference")
    dataset.PositionReferenceIndicator = ""
    dataset.PatientPosition = "HFS"
    dataset.ImagePositionPatient = list(shown.position)
    dataset.ImageOrientationPatient = list(shown.plane.orientation)
    dataset.PixelSpacing = list(shown.plane.pixel_spacing)
    dataset.SliceThickness = shown.plane.thickness_mm
    normal = np.cross(shown.plane.orientation[:3], shown.plane.orientation[3:])
    dataset.SliceLocation = round(float(np.abs(normal) @ np.array(shown.position)), 4)


def pixels(dataset: Dataset, stored: np.ndarray, storage: Storage) -> None:
    """Encode stored values (rows, columns) with the bits of a manufacturer."""
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, storage.bits_stored, storage.bits_stored - 1
    dataset.PixelRepresentation = int(storage.signed)
    dataset.PixelData = stored.astype("<i2" if storage.signed else "<u2").tobytes()


def save(dataset: Dataset, folder: Path) -> None:
    """Write a file: series 2 image 15 is `SE0002IM0015.dcm`."""
    name = f"SE{int(dataset.SeriesNumber):04d}IM{int(dataset.InstanceNumber):04d}.dcm"
    dataset.save_as(folder / name, enforce_file_format=True)
