"""A rendered MR phantom as a study of DICOM files: localizer, and T1, T2 and STIR, sagittal and axial.

Timing, field strength and echo train in the headers are those of the simulation.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage

from inference.phantom import headers
from inference.phantom.headers import STUDY_DATE, Equipment, uid
from inference.phantom.mr.rendering import RenderedMR
from inference.phantom.mr.series import all_series
from inference.phantom.mr.specification import Acquisition, MRPhantomSpec
from inference.phantom.mr.vendors import KINDS, VENDORS
from inference.phantom.series import Image, Series

STUDY_TIME, MINUTES_EACH = "1200", 4
MHZ_PER_TESLA = 42.577
LOCALIZER_TIMES = (8.6, 4.0)  # TR and TE of a gradient echo, ms
BODY_PARTS = {"cervical": "CSPINE", "lumbar": "LSPINE"}


def write_dicom(phantom: RenderedMR, folder: Path) -> None:
    """Write the whole study into one folder, flat: series 2 image 15 is `SE0002IM0015.dcm`."""
    folder.mkdir(parents=True, exist_ok=True)
    for series in all_series(phantom):
        for number in range(1, len(series.images) + 1):
            headers.save(image(phantom.spec, series, number), folder)


def sop_uid(spec: MRPhantomSpec, kind: str, index: int) -> str:
    """SOP Instance UID of a slice of a series, by its index in the rendered array."""
    return uid(spec, kind, str(index))


def image(spec: MRPhantomSpec, series: Series, number: int) -> Dataset:
    """The file of image `number` (from 1) of a series: MR Image Storage (PS3.3 A.4)."""
    vendor, shown = VENDORS[spec.scan.vendor], series.images[number - 1]
    equipment = Equipment(
        manufacturer=vendor.manufacturer,
        study_description=f"MR {spec.region.upper()} SPINE",
        study_time=f"{STUDY_TIME}00",
    )
    dataset = headers.file(spec, equipment, MRImageStorage, uid(spec, series.kind, shown.name))
    place = KINDS.index(series.kind)
    time = f"{int(STUDY_TIME) + MINUTES_EACH * place}00"
    headers.series(dataset, spec, series.kind, vendor.numbers[0] + place * vendor.numbers[1], time)
    dataset.Modality = "MR"
    dataset.ImageType = list(vendor.localizer_type if series.kind == "localizer" else vendor.image_type)
    dataset.SeriesDescription = vendor.descriptions[series.kind]
    dataset.ProtocolName = vendor.protocol
    dataset.BodyPartExamined = BODY_PARTS[spec.region]
    dataset.InstanceNumber = str(number)
    dataset.AcquisitionNumber = "1"
    dataset.AcquisitionDate, dataset.AcquisitionTime = STUDY_DATE, time
    headers.marks(dataset)
    headers.plane(dataset, spec, shown)
    _sequence(dataset, spec, series.kind)
    _values(dataset, spec, shown)
    return dataset


def _sequence(dataset: Dataset, spec: MRPhantomSpec, kind: str) -> None:
    """The MR Image module (PS3.3 C.8.3.1)."""
    scan, vendor = spec.scan, VENDORS[spec.scan.vendor]
    dataset.MagneticFieldStrength = str(scan.field)
    dataset.ImagingFrequency = str(round(MHZ_PER_TESLA * scan.field, 4))
    dataset.ImagedNucleus = "1H"
    dataset.MRAcquisitionType = "2D"
    dataset.ScanOptions = ""
    if kind == "localizer":
        dataset.ScanningSequence, dataset.SequenceVariant = "GR", "SP"
        dataset.RepetitionTime, dataset.EchoTime = (str(value) for value in LOCALIZER_TIMES)
        dataset.EchoTrainLength = "1"
        return
    acquisition = next(one for one in scan.acquisitions if one.kind == kind)
    dataset.SequenceVariant = "SK"
    dataset.ScanningSequence = ["SE", "IR"] if acquisition.ti is not None else "SE"
    dataset.SequenceName = vendor.sequence_name.format(train=acquisition.echo_train)
    dataset.RepetitionTime, dataset.EchoTime = str(acquisition.tr), str(acquisition.te)
    if acquisition.ti is not None:
        dataset.InversionTime = str(acquisition.ti)
    dataset.EchoTrainLength = str(acquisition.echo_train)
    dataset.EchoNumbers = "1"
    dataset.NumberOfAverages = str(acquisition.averages)
    dataset.FlipAngle = "90"
    dataset.PixelBandwidth = str(acquisition.bandwidth)
    dataset.InPlanePhaseEncodingDirection = acquisition.phase
    _matrix(dataset, spec, acquisition)


def _matrix(dataset: Dataset, spec: MRPhantomSpec, acquisition: Acquisition) -> None:
    """How much of k-space was acquired."""
    stack = spec.scan.sagittal if acquisition.plane == "sagittal" else spec.scan.axial
    phase, readout = (round(share * stack.shape[1]) for share in acquisition.acquired)
    rows_read = acquisition.phase == "ROW"  # frequency rows, frequency columns, phase rows, phase columns
    dataset.AcquisitionMatrix = [readout, 0, 0, phase] if rows_read else [0, readout, phase, 0]
    dataset.NumberOfPhaseEncodingSteps = str(phase)
    dataset.PercentSampling = str(round(100 * acquisition.acquired[0], 1))
    dataset.PercentPhaseFieldOfView = "100"
    dataset.SpacingBetweenSlices = str(stack.spacing[0])


def _values(dataset: Dataset, spec: MRPhantomSpec, shown: Image) -> None:
    """Pixels in the manufacturer's bits. A slope other than 1 is said twice, in public and in private."""
    storage = VENDORS[spec.scan.vendor].storage
    headers.pixels(dataset, shown.pixels, storage)
    level = float(np.percentile(shown.pixels, 99))
    dataset.WindowCenter, dataset.WindowWidth = str(round(level / 2)), str(max(round(level), 1))
    if storage.slope != 1:
        dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "0", f"{storage.slope:g}", "normalized"
        block = dataset.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
        block.add_new(0x0D, "FL", 0.0)
        block.add_new(0x0E, "FL", 1 / storage.slope)
