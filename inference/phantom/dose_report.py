"""The CT radiation dose report (PS3.16 TID 10011) of a phantom, as a scanner sends one with every study.

The numbers are plausible and follow from tube voltage and scan length alone; no X-rays were involved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset

from inference.phantom.vendors import Vendor

#: (Code Value, Coding Scheme Designator, Code Meaning).
Code = tuple[str, str, str]

CT = ("77477000", "SCT", "Computed tomography")
DIAGNOSTIC = ("261004008", "SCT", "Diagnostic Intent")
SPIRAL = ("116152004", "SCT", "Spiral Acquisition")
STATIONARY = ("113805", "DCM", "Constant Angle Acquisition")
CERVICAL_SPINE = ("122494005", "SCT", "Cervical spine")
NECK_PHANTOM = ("113690", "DCM", "IEC Head Dosimetry Phantom")
AUTOMATED = ("113856", "DCM", "Automated Data Collection")
#: mGy for one scan of the neck at 120 kV.
CTDI_SPIRAL, CTDI_SCOUT = 14.0, 0.1
SCOUT_SECONDS, SCOUT_ROWS_MM = 3.0, 6.0


@dataclass(frozen=True, kw_only=True)
class Dose:
    """One irradiation event."""

    event_uid: str
    spiral: bool
    kvp: int
    length_mm: float
    vendor: Vendor

    @property
    def ctdi(self) -> float:
        """Mean CTDIvol, mGy."""
        return ctdi_vol(self.kvp, spiral=self.spiral)

    @property
    def dlp(self) -> float:
        """Dose length product, mGy cm."""
        return round(self.ctdi * self.length_mm / 10, 2)


def ctdi_vol(kvp: int, *, spiral: bool) -> float:
    """CTDIvol in mGy: grows with the tube voltage to the power of about 2.5."""
    return round((CTDI_SPIRAL if spiral else CTDI_SCOUT) * math.pow(kvp / 120, 2.5), 3)


def tube_current(*, spiral: bool) -> int:
    """X-Ray Tube Current, mA."""
    return 220 if spiral else 35


def fill(dataset: Dataset, doses: Sequence[Dose], *, start: str, end: str) -> None:
    """Turn a data set that has its patient, study, series and equipment into a dose report.

    `start` and `end` are when the irradiation started and ended (DT, PS3.5 6.2).
    """
    dataset.Modality = "SR"
    dataset.InstanceNumber = "1"
    dataset.ReferencedPerformedProcedureStepSequence = []
    dataset.PerformedProcedureCodeSequence = []
    dataset.CompletionFlag, dataset.VerificationFlag = "COMPLETE", "UNVERIFIED"
    dataset.ValueType, dataset.ContinuityOfContent = "CONTAINER", "SEPARATE"
    dataset.ConceptNameCodeSequence = [code(("113701", "DCM", "X-Ray Radiation Dose Report"))]
    dataset.ContentTemplateSequence = [_template("10011")]
    dataset.ContentSequence = [
        *_context(dataset, start, end),
        _accumulated(doses),
        *(_acquisition(dose) for dose in doses),
        _coded("CONTAINS", ("113854", "DCM", "Source of Dose Information"), AUTOMATED),
    ]


def _context(dataset: Dataset, start: str, end: str) -> list[Dataset]:
    """What was done, which device says so, and over what the doses are summed."""
    observer = "HAS OBS CONTEXT"
    procedure = _coded("HAS CONCEPT MOD", ("121058", "DCM", "Procedure reported"), CT)
    procedure.ContentSequence = [_coded("HAS CONCEPT MOD", ("363703001", "SCT", "Has Intent"), DIAGNOSTIC)]
    scope = _coded(observer, ("113705", "DCM", "Scope of Accumulation"), ("113014", "DCM", "Study"))
    study = _item("HAS PROPERTIES", "UIDREF", ("110180", "DCM", "Study Instance UID"))
    study.UID = dataset.StudyInstanceUID
    scope.ContentSequence = [study]
    device = _item(observer, "UIDREF", ("121012", "DCM", "Device Observer UID"))
    device.UID = dataset.file_meta.ImplementationClassUID
    first = _item(observer, "DATETIME", ("113809", "DCM", "Start of X-Ray Irradiation"))
    last = _item(observer, "DATETIME", ("113810", "DCM", "End of X-Ray Irradiation"))
    first.DateTime, last.DateTime = start, end
    return [
        procedure,
        _coded(observer, ("121005", "DCM", "Observer Type"), ("121007", "DCM", "Device")),
        device,
        _text(observer, ("121014", "DCM", "Device Observer Manufacturer"), dataset.Manufacturer),
        _text(observer, ("121015", "DCM", "Device Observer Model Name"), dataset.ManufacturerModelName),
        _text(observer, ("121016", "DCM", "Device Observer Serial Number"), dataset.DeviceSerialNumber),
        first,
        last,
        scope,
    ]


def _accumulated(doses: Sequence[Dose]) -> Dataset:
    """TID 10012."""
    total = round(sum(dose.dlp for dose in doses), 2)
    return _container(
        ("113811", "DCM", "CT Accumulated Dose Data"),
        _number(("113812", "DCM", "Total Number of Irradiation Events"), len(doses), "{events}"),
        _number(("113813", "DCM", "CT Dose Length Product Total"), total, "mGy.cm"),
    )


def _acquisition(dose: Dose) -> Dataset:
    """TID 10013: one irradiation event."""
    event = _item("CONTAINS", "UIDREF", ("113769", "DCM", "Irradiation Event UID"))
    event.UID = dose.event_uid
    kind = SPIRAL if dose.spiral else STATIONARY
    return _container(
        ("113819", "DCM", "CT Acquisition"),
        _text("CONTAINS", ("125203", "DCM", "Acquisition Protocol"), dose.vendor.protocol),
        _coded("CONTAINS", ("123014", "DCM", "Target Region"), CERVICAL_SPINE),
        _coded("CONTAINS", ("113820", "DCM", "CT Acquisition Type"), kind),
        event,
        _parameters(dose),
        _container(
            ("113829", "DCM", "CT Dose"),
            _number(("113830", "DCM", "Mean CTDIvol"), dose.ctdi, "mGy"),
            _coded("CONTAINS", ("113835", "DCM", "CTDIw Phantom Type"), NECK_PHANTOM),
            _number(("113838", "DCM", "DLP"), dose.dlp, "mGy.cm"),
        ),
        _text("CONTAINS", ("121106", "DCM", "Comment"), "Synthetic phantom: nobody was irradiated"),
    )


def _parameters(dose: Dose) -> Dataset:
    """TID 10014: how the scan was made."""
    vendor = dose.vendor
    single, total = vendor.collimation_mm if dose.spiral else (SCOUT_ROWS_MM, SCOUT_ROWS_MM)
    turns = dose.length_mm / (vendor.pitch * total)
    seconds = round(turns * vendor.rotation_s, 2) if dose.spiral else SCOUT_SECONDS
    current = tube_current(spiral=dose.spiral)
    source = [
        _text("CONTAINS", ("113832", "DCM", "Identification of the X-Ray Source"), "A"),
        _number(("113733", "DCM", "KVP"), dose.kvp, "kV"),
        _number(("113833", "DCM", "Maximum X-Ray Tube Current"), current, "mA"),
        _number(("113734", "DCM", "X-Ray Tube Current"), current, "mA"),
    ]
    items = [
        _number(("113824", "DCM", "Exposure Time"), seconds, "s"),
        _number(("113825", "DCM", "Scanning Length"), round(dose.length_mm, 2), "mm"),
        _number(("113826", "DCM", "Nominal Single Collimation Width"), single, "mm"),
        _number(("113827", "DCM", "Nominal Total Collimation Width"), total, "mm"),
    ]
    if dose.spiral:
        items.append(_number(("113828", "DCM", "Pitch Factor"), vendor.pitch, "{ratio}"))
        source.append(_number(("113834", "DCM", "Exposure Time per Rotation"), vendor.rotation_s, "s"))
    items.append(_number(("113823", "DCM", "Number of X-Ray Sources"), 1, "{X-Ray sources}"))
    items.append(_container(("113831", "DCM", "CT X-Ray Source Parameters"), *source))
    return _container(("113822", "DCM", "CT Acquisition Parameters"), *items)


def _item(relationship: str, value_type: str, name: Code) -> Dataset:
    """A content item without its value (PS3.3 C.17.3)."""
    item = Dataset()
    item.RelationshipType, item.ValueType = relationship, value_type
    item.ConceptNameCodeSequence = [code(name)]
    return item


def _container(name: Code, *content: Dataset) -> Dataset:
    item = _item("CONTAINS", "CONTAINER", name)
    item.ContinuityOfContent = "SEPARATE"
    item.ContentSequence = list(content)
    return item


def _coded(relationship: str, name: Code, value: Code) -> Dataset:
    item = _item(relationship, "CODE", name)
    item.ConceptCodeSequence = [code(value)]
    return item


def _text(relationship: str, name: Code, value: str) -> Dataset:
    item = _item(relationship, "TEXT", name)
    item.TextValue = value
    return item


def _number(name: Code, value: float, unit: str) -> Dataset:
    """A NUM item; `unit` in UCUM."""
    measured = Dataset()
    measured.NumericValue = f"{value:g}"
    measured.MeasurementUnitsCodeSequence = [code((unit, "UCUM", unit))]
    item = _item("CONTAINS", "NUM", name)
    item.MeasuredValueSequence = [measured]
    return item


def code(value: Code) -> Dataset:
    """One item of a code sequence (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value
    return item


def _template(identifier: str) -> Dataset:
    item = Dataset()
    item.MappingResource, item.TemplateIdentifier = "DCMR", identifier
    return item
