"""A rendered phantom as a study of DICOM files: scouts, axial series with two kernels, reformats, dose report.

Every file says that it is synthetic: SyntheticData, the manufacturer, the patient's name, the comments. Nothing in
the headers depends on whether there is a fracture; UIDs differ with the content, and tell nothing about it.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from functools import lru_cache
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, XRayRadiationDoseSRStorage

from inference.phantom import dose_report
from inference.phantom.cervical_ct import Rendered
from inference.phantom.dose_report import Dose
from inference.phantom.series import Image, Series, all_series
from inference.phantom.specification import GENERATOR_VERSION, PhantomSpec
from inference.phantom.vendors import HU_RANGE, VENDORS, Storage

IMPLEMENTATION_UID = "2.25." + str(uuid.uuid5(uuid.NAMESPACE_URL, "dicomnode-spine/phantom").int)
COMMENT = "Synthetic phantom, not a patient"
STUDY_DATE = "20260101"
#: When the scouts and the spiral were acquired, and when each series was made of them.
SCOUT_TIME, SPIRAL_TIME = "120000", "120100"
SERIES_TIMES = {
    "scout": SCOUT_TIME,
    "axial": SPIRAL_TIME,
    "soft": "120130",
    "sagittal": "120200",
    "coronal": "120230",
    "dose": "120300",
}
#: Window centre and width, HU, where it is not that for bone.
WINDOWS = {"scout": (0, 1000), "soft": (40, 400)}
BONE_WINDOW = (500, 1800)


def uid(spec: PhantomSpec, *parts: str) -> str:
    """The UID of a part of a phantom: the same for the same specification, and for no other."""
    names = ["cervical-ct", str(spec.generator_version), spec.profile, str(spec.seed), _digest(spec), *parts]
    return "2.25." + str(uuid.uuid5(uuid.NAMESPACE_URL, "/".join(names)).int)


@lru_cache(maxsize=8)
def _digest(spec: PhantomSpec) -> str:
    """Of everything in a specification: the same seed with another label forced is another study."""
    # The last digits of a computed number may depend on the machine, and a UID must not.
    content = json.loads(spec.to_json(), parse_float=lambda text: f"{float(text):.6g}")
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def sop_uid(spec: PhantomSpec, index: int) -> str:
    """SOP Instance UID of axial slice `index` (0 lowest)."""
    return uid(spec, "axial", str(index))


def write_dicom(phantom: Rendered, folder: Path) -> None:
    """Write the whole study into one folder, flat: series 2 image 15 is `SE0002IM0015.dcm`."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = phantom.spec
    for series in all_series(phantom.volume, spec.scan):
        for number in range(1, len(series.images) + 1):
            _save(image(spec, series, number), folder)
    _save(radiation_dose(spec), folder)


def image(spec: PhantomSpec, series: Series, number: int) -> Dataset:
    """The file of image `number` (from 1) of a series: CT Image Storage (PS3.3 A.3)."""
    vendor, shown = VENDORS[spec.scan.vendor], series.images[number - 1]
    dataset = _file(spec, CTImageStorage, uid(spec, series.kind, shown.name))
    names = vendor.names[series.kind]
    _series(dataset, spec, series.kind, names.number)
    dataset.Modality = "CT"
    dataset.ImageType = list(names.image_type)
    dataset.ConvolutionKernel = list(names.kernel)
    millimetres = f"{shown.plane.thickness_mm:.2f}".rstrip("0").rstrip(".")
    dataset.SeriesDescription = names.description.format(mm=millimetres, kernel=names.kernel[0])
    dataset.InstanceNumber = str(number)
    dataset.WindowCenter, dataset.WindowWidth = WINDOWS.get(series.kind, BONE_WINDOW)
    dataset.ImageComments = COMMENT
    dataset.QualityControlImage = "YES"
    dataset.BurnedInAnnotation = "NO"
    if names.image_type[0] == "DERIVED":
        dataset.DerivationDescription = "Multiplanar reformat"
    _plane(dataset, spec, shown)
    _acquisition(dataset, spec, series.kind, shown)
    _pixels(dataset, shown.pixels, vendor.storage, circle=series.kind in ("axial", "soft"))
    dataset.RescaleType = "US" if series.kind == "scout" else "HU"  # a projection has no Hounsfield units
    return dataset


def radiation_dose(spec: PhantomSpec) -> Dataset:
    """The dose report of the study: X-Ray Radiation Dose SR Storage (PS3.3 A.35.8)."""
    vendor, scan = VENDORS[spec.scan.vendor], spec.scan
    dataset = _file(spec, XRayRadiationDoseSRStorage, uid(spec, "dose", "0"))
    _series(dataset, spec, "dose", vendor.dose_number)
    dataset.SeriesDescription = vendor.dose_description
    length = (scan.shape[0] - 1) * scan.spacing[0]
    doses = [
        Dose(
            event_uid=uid(spec, "irradiation", kind),
            spiral=kind == "spiral",
            kvp=scan.kvp,
            length_mm=length,
            vendor=vendor,
        )
        for kind in ("side", "front", "spiral")
    ]
    dose_report.fill(dataset, doses, start=STUDY_DATE + SCOUT_TIME, end=STUDY_DATE + SPIRAL_TIME)
    return dataset


def _save(dataset: Dataset, folder: Path) -> None:
    name = f"SE{int(dataset.SeriesNumber):04d}IM{int(dataset.InstanceNumber):04d}.dcm"
    dataset.save_as(folder / name, enforce_file_format=True)


def _file(spec: PhantomSpec, sop_class: UID, instance_uid: str) -> Dataset:
    """What all files of the study share: file meta information, patient, study and equipment."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(instance_uid)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_UID)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, instance_uid
    dataset.SyntheticData = "YES"
    dataset.PatientName = f"PHANTOM^CERVICAL CT {spec.seed}"
    dataset.PatientID = f"PHANTOM-CCT-{spec.generator_version}-{spec.profile}-{spec.seed}"
    dataset.PatientBirthDate = ""
    dataset.PatientSex = "O"
    dataset.StudyInstanceUID = uid(spec, "study")
    dataset.StudyDate, dataset.StudyTime = STUDY_DATE, SCOUT_TIME
    dataset.StudyID = str(spec.seed)
    dataset.AccessionNumber = f"PH{spec.seed}"
    dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = "CT CERVICAL SPINE"
    dataset.Manufacturer = VENDORS[spec.scan.vendor].manufacturer
    dataset.ManufacturerModelName = "cervical-ct"
    dataset.DeviceSerialNumber = "0"
    dataset.SoftwareVersions = str(GENERATOR_VERSION)
    return dataset


def _series(dataset: Dataset, spec: PhantomSpec, kind: str, number: int) -> None:
    dataset.SeriesInstanceUID = uid(spec, kind)
    dataset.SeriesNumber = str(number)
    dataset.SeriesDate = dataset.ContentDate = STUDY_DATE
    dataset.SeriesTime = dataset.ContentTime = SERIES_TIMES[kind]


def _plane(dataset: Dataset, spec: PhantomSpec, shown: Image) -> None:
    dataset.FrameOfReferenceUID = uid(spec, "frame of reference")
    dataset.PositionReferenceIndicator = ""
    dataset.PatientPosition = "HFS"
    dataset.ImagePositionPatient = list(shown.position)
    dataset.ImageOrientationPatient = list(shown.plane.orientation)
    dataset.PixelSpacing = list(shown.plane.pixel_spacing)
    dataset.SliceThickness = shown.plane.thickness_mm
    normal = np.cross(shown.plane.orientation[:3], shown.plane.orientation[3:])
    dataset.SliceLocation = round(float(np.abs(normal) @ np.array(shown.position)), 4)


def _acquisition(dataset: Dataset, spec: PhantomSpec, kind: str, shown: Image) -> None:
    """How the X-rays were used: the scouts stand still, everything else is made of the one spiral."""
    vendor, scan, spiral = VENDORS[spec.scan.vendor], spec.scan, kind != "scout"
    dataset.BodyPartExamined = "CSPINE"
    dataset.ProtocolName = vendor.protocol
    dataset.AcquisitionNumber = "2" if spiral else "1"
    dataset.AcquisitionDate = STUDY_DATE
    dataset.AcquisitionTime = SPIRAL_TIME if spiral else SCOUT_TIME
    view = "spiral" if spiral else ("side", "front")[int(shown.name)]
    dataset.IrradiationEventUID = uid(spec, "irradiation", view)
    dataset.KVP = str(scan.kvp)
    dataset.GantryDetectorTilt = "0"
    dataset.TableHeight = str(scan.table[1])
    dataset.XRayTubeCurrent = str(dose_report.tube_current(spiral=spiral))
    if spiral:
        dataset.RotationDirection = "CW"
        dataset.RevolutionTime = vendor.rotation_s
        dataset.SingleCollimationWidth, dataset.TotalCollimationWidth = vendor.collimation_mm
        dataset.SpiralPitchFactor = vendor.pitch
        dataset.CTDIvol = dose_report.ctdi_vol(scan.kvp, spiral=True)
        dataset.CTDIPhantomTypeCodeSequence = [dose_report.code(dose_report.NECK_PHANTOM)]
        dataset.DataCollectionDiameter = "500"
        dataset.ReconstructionDiameter = str(round(scan.shape[2] * scan.spacing[2], 2))


def _pixels(dataset: Dataset, hu: np.ndarray, storage: Storage, *, circle: bool) -> None:
    """Encode HU as the manufacturer does; with `circle`, corners outside the reconstructed circle may be padded."""
    dataset.Rows, dataset.Columns = hu.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, storage.bits_stored, storage.bits_stored - 1
    dataset.PixelRepresentation = int(storage.signed)
    dataset.RescaleIntercept, dataset.RescaleSlope = str(storage.intercept), f"{storage.slope:g}"
    stored = np.rint((np.clip(hu, *HU_RANGE).astype(np.float32) - storage.intercept) / storage.slope)
    if circle and storage.padding is not None:
        dataset.PixelPaddingValue = storage.padding
        stored[outside_circle(*hu.shape)] = storage.padding
    dataset.PixelData = stored.astype("<i2" if storage.signed else "<u2").tobytes()


def outside_circle(rows: int, columns: int) -> np.ndarray:
    """Pixels whose centre lies outside the largest circle in the image: no scanner reconstructs them."""
    down, across = np.arange(rows) - (rows - 1) / 2, np.arange(columns) - (columns - 1) / 2
    return np.asarray(down[:, None] ** 2 + across[None] ** 2 > (min(rows, columns) / 2) ** 2)
