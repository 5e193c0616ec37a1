"""A rendered phantom as a study of DICOM files: scouts, axial series with two kernels, reformats, dose report.

What it shares with the phantoms of other modalities is in `headers`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, XRayRadiationDoseSRStorage

from inference.phantom import dose_report, headers
from inference.phantom.cervical_ct import Rendered
from inference.phantom.dose_report import Dose
from inference.phantom.headers import STUDY_DATE, Equipment, uid
from inference.phantom.series import Image, Series, all_series
from inference.phantom.specification import PhantomSpec
from inference.phantom.vendors import HU_RANGE, VENDORS, Storage

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


def sop_uid(spec: PhantomSpec, index: int) -> str:
    """SOP Instance UID of axial slice `index` (0 lowest)."""
    return uid(spec, "axial", str(index))


def write_dicom(phantom: Rendered, folder: Path) -> None:
    """Write the whole study into one folder, flat: series 2 image 15 is `SE0002IM0015.dcm`."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = phantom.spec
    for series in all_series(phantom.volume, spec.scan):
        for number in range(1, len(series.images) + 1):
            headers.save(image(spec, series, number), folder)
    headers.save(radiation_dose(spec), folder)


def image(spec: PhantomSpec, series: Series, number: int) -> Dataset:
    """The file of image `number` (from 1) of a series: CT Image Storage (PS3.3 A.3)."""
    vendor, shown = VENDORS[spec.scan.vendor], series.images[number - 1]
    dataset = headers.file(spec, _equipment(spec), CTImageStorage, uid(spec, series.kind, shown.name))
    names = vendor.names[series.kind]
    headers.series(dataset, spec, series.kind, names.number, SERIES_TIMES[series.kind])
    dataset.Modality = "CT"
    dataset.ImageType = list(names.image_type)
    dataset.ConvolutionKernel = list(names.kernel)
    millimetres = f"{shown.plane.thickness_mm:.2f}".rstrip("0").rstrip(".")
    dataset.SeriesDescription = names.description.format(mm=millimetres, kernel=names.kernel[0])
    dataset.InstanceNumber = str(number)
    dataset.WindowCenter, dataset.WindowWidth = WINDOWS.get(series.kind, BONE_WINDOW)
    headers.marks(dataset)
    if names.image_type[0] == "DERIVED":
        dataset.DerivationDescription = "Multiplanar reformat"
    headers.plane(dataset, spec, shown)
    _acquisition(dataset, spec, series.kind, shown)
    _pixels(dataset, shown.pixels, vendor.storage, circle=series.kind in ("axial", "soft"))
    dataset.RescaleType = "US" if series.kind == "scout" else "HU"  # a projection has no Hounsfield units
    return dataset


def radiation_dose(spec: PhantomSpec) -> Dataset:
    """The dose report of the study: X-Ray Radiation Dose SR Storage (PS3.3 A.35.8)."""
    vendor, scan = VENDORS[spec.scan.vendor], spec.scan
    dataset = headers.file(spec, _equipment(spec), XRayRadiationDoseSRStorage, uid(spec, "dose", "0"))
    headers.series(dataset, spec, "dose", vendor.dose_number, SERIES_TIMES["dose"])
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


def _equipment(spec: PhantomSpec) -> Equipment:
    return Equipment(
        manufacturer=VENDORS[spec.scan.vendor].manufacturer,
        study_description="CT CERVICAL SPINE",
        study_time=SCOUT_TIME,
    )


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
    dataset.RescaleIntercept, dataset.RescaleSlope = str(storage.intercept), f"{storage.slope:g}"
    stored = np.rint((np.clip(hu, *HU_RANGE).astype(np.float32) - storage.intercept) / storage.slope)
    if circle and storage.padding is not None:
        dataset.PixelPaddingValue = storage.padding
        stored[outside_circle(*hu.shape)] = storage.padding
    headers.pixels(dataset, stored, storage)


def outside_circle(rows: int, columns: int) -> np.ndarray:
    """Pixels whose centre lies outside the largest circle in the image: no scanner reconstructs them."""
    down, across = np.arange(rows) - (rows - 1) / 2, np.arange(columns) - (columns - 1) / 2
    return np.asarray(down[:, None] ** 2 + across[None] ** 2 > (min(rows, columns) / 2) ** 2)
