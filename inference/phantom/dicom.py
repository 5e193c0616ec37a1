"""A rendered phantom as CT Image Storage files: the only place in `phantom` that knows DICOM.

Every file says that it is synthetic: SyntheticData, QualityControlImage, the patient's name, the comments.
Nothing in the headers depends on whether there is a fracture.
"""

from __future__ import annotations

import uuid
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from inference.phantom.cervical_ct import Rendered
from inference.phantom.specification import GENERATOR_VERSION, PhantomSpec, Scan

IMPLEMENTATION_UID = "2.25." + str(uuid.uuid5(uuid.NAMESPACE_URL, "dicomnode-spine/phantom").int)
INTERCEPT = -1024
COMMENT = "Synthetic phantom, not a patient"
STUDY_DATE, STUDY_TIME = "20260101", "120000"


def uid(spec: PhantomSpec, *parts: str) -> str:
    """The UID of a part of a phantom: the same for the same generator version, seed and profile."""
    text = "/".join(["cervical-ct", str(spec.generator_version), spec.profile, str(spec.seed), *parts])
    return "2.25." + str(uuid.uuid5(uuid.NAMESPACE_URL, text).int)


def sop_uid(spec: PhantomSpec, index: int) -> str:
    """SOP Instance UID of axial slice `index` (0 lowest)."""
    return uid(spec, "axial", str(index))


def position(scan: Scan, index: int) -> tuple[float, float, float]:
    """Image Position (Patient) of slice `index`, mm."""
    x, y, z = (o + t for o, t in zip(scan.origin, scan.table, strict=True))
    return round(x, 4), round(y, 4), round(z + index * scan.spacing[0], 4)


def write_dicom(phantom: Rendered, folder: Path, *, localizer: bool) -> None:
    """Write the axial series, and one localizer in a series of its own, as `IM0001.dcm` and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, pixels in enumerate(phantom.volume):
        # Scanned from the head down: the order of numbers says nothing about z.
        number = len(phantom.volume) - index
        dataset = _axial(phantom.spec, index, number, pixels)
        dataset.save_as(folder / f"IM{number:04d}.dcm", enforce_file_format=True)
    if localizer:
        _localizer(phantom).save_as(folder / "LOC0001.dcm", enforce_file_format=True)


def _axial(spec: PhantomSpec, index: int, number: int, pixels: np.ndarray) -> Dataset:
    scan = spec.scan
    dataset = _image(spec, sop_uid(spec, index), pixels)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SeriesInstanceUID = uid(spec, "axial")
    dataset.SeriesNumber = "2"
    dataset.SeriesDescription = f"C-SPINE BONE {scan.spacing[0]}"
    dataset.InstanceNumber = str(number)
    dataset.ImagePositionPatient = list(position(scan, index))
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.SliceLocation = position(scan, index)[2]
    dataset.PixelSpacing = list(scan.spacing[1:])
    dataset.SliceThickness = scan.spacing[0]
    dataset.ConvolutionKernel = scan.kernel
    dataset.WindowCenter, dataset.WindowWidth = 500, 1800
    return dataset


def _localizer(phantom: Rendered) -> Dataset:
    """A side view: mean HU along x, head up."""
    spec, scan = phantom.spec, phantom.spec.scan
    view = phantom.volume[::-1].mean(2).round().astype(np.int16)  # (slices from the head, rows)
    dataset = _image(spec, uid(spec, "localizer", "0"), view)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    dataset.SeriesInstanceUID = uid(spec, "localizer")
    dataset.SeriesNumber = "1"
    dataset.SeriesDescription = "TOPOGRAM"
    dataset.InstanceNumber = "1"
    x, y, z = position(scan, len(phantom.volume) - 1)
    dataset.ImagePositionPatient = [x + scan.shape[2] * scan.spacing[2] / 2, y, z]
    dataset.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    dataset.PixelSpacing = [scan.spacing[0], scan.spacing[1]]
    dataset.SliceThickness = scan.shape[2] * scan.spacing[2]
    dataset.ConvolutionKernel = "LOC"
    dataset.WindowCenter, dataset.WindowWidth = 0, 1000
    dataset.RescaleType = "US"  # a projection has no Hounsfield units
    return dataset


def _image(spec: PhantomSpec, instance_uid: str, hu: np.ndarray) -> Dataset:
    """What all images of the study share."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(instance_uid)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_UID)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, instance_uid
    _patient_and_study(dataset, spec)
    _equipment(dataset, spec)
    dataset.FrameOfReferenceUID = uid(spec, "frame of reference")
    dataset.PositionReferenceIndicator = ""
    dataset.AcquisitionNumber = "1"
    dataset.ImageComments = COMMENT
    dataset.QualityControlImage = "YES"
    dataset.BurnedInAnnotation = "NO"
    _pixels(dataset, hu)
    return dataset


def _patient_and_study(dataset: Dataset, spec: PhantomSpec) -> None:
    dataset.PatientName = f"PHANTOM^CERVICAL CT {spec.seed}"
    dataset.PatientID = f"PHANTOM-CCT-{spec.generator_version}-{spec.profile}-{spec.seed}"
    dataset.PatientBirthDate = ""
    dataset.PatientSex = "O"
    dataset.PatientPosition = "HFS"
    dataset.StudyInstanceUID = uid(spec, "study")
    dataset.StudyDate, dataset.StudyTime = STUDY_DATE, STUDY_TIME
    dataset.SeriesDate, dataset.SeriesTime = STUDY_DATE, STUDY_TIME
    dataset.AcquisitionDate, dataset.AcquisitionTime = STUDY_DATE, STUDY_TIME
    dataset.ContentDate, dataset.ContentTime = STUDY_DATE, STUDY_TIME
    dataset.StudyID = str(spec.seed)
    dataset.AccessionNumber = f"PH{spec.seed}"
    dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = "CT CERVICAL SPINE"
    dataset.BodyPartExamined = "CSPINE"
    dataset.SyntheticData = "YES"


def _equipment(dataset: Dataset, spec: PhantomSpec) -> None:
    dataset.Modality = "CT"
    dataset.Manufacturer = "Synthetic phantom"
    dataset.ManufacturerModelName = "cervical-ct"
    dataset.DeviceSerialNumber = "0"
    dataset.SoftwareVersions = str(GENERATOR_VERSION)
    dataset.KVP = str(spec.scan.kvp)
    dataset.GantryDetectorTilt = "0"
    dataset.TableHeight = str(spec.scan.table[1])
    dataset.RotationDirection = "CW"


def _pixels(dataset: Dataset, hu: np.ndarray) -> None:
    """12 bits unsigned with an intercept, as most scanners store HU."""
    dataset.Rows, dataset.Columns = hu.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = str(INTERCEPT), "1", "HU"
    stored = np.clip(hu.astype(np.int32) - INTERCEPT, 0, 4095).astype("<u2")
    dataset.PixelData = stored.tobytes()
