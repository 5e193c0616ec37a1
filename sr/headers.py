"""What a result takes over from the images it was made of: patient, study, time, equipment, geometry.

highdicom never sees a source header. It reads type 2 attributes unconditionally and refuses values that real
archives hold, so it is given a stand-in with exactly what it needs, and the patient and study attributes are
copied element by element afterwards: nothing about the patient is invented, corrected or re-encoded.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import highdicom as hd
from pydicom import Dataset
from pydicom.charset import convert_encodings
from pydicom.config import RAISE
from pydicom.multival import MultiValue
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage
from pydicom.valuerep import DA, DT, STR_VR, TM, validate_value

from inference.findings import Analysis, ModelIdentity
from inference.volume import Volume
from sr.run import Run

#: Type 2 in every image and SR IOD: present, if need be without a value (PS3.3 C.7.1.1, C.7.2.1).
TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
    "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip

#: Patient, General Study, Patient Study and Clinical Trial modules (PS3.3 C.7.1.1 to C.7.1.3, C.7.2.1 to C.7.2.3).
INHERITED = (
    "SpecificCharacterSet", "TimezoneOffsetFromUTC", "StudyInstanceUID", *TYPE_2,
    "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence", "TypeOfPatientID", "PatientBirthTime",
    "OtherPatientIDsSequence", "OtherPatientNames", "ReferencedPatientSequence",
    "PatientBirthDateInAlternativeCalendar", "PatientAlternativeCalendar",
    "EthnicGroup", "PatientComments", "PatientSpeciesDescription", "PatientSpeciesCodeSequence",
    "PatientBreedDescription", "PatientBreedCodeSequence", "BreedRegistrationSequence",
    "ResponsiblePerson", "ResponsiblePersonRole", "ResponsibleOrganization",
    "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence",
    "StudyDescription", "ProcedureCodeSequence", "PhysiciansOfRecord", "NameOfPhysiciansReadingStudy",
    "ConsultingPhysicianName", "ReferencedStudySequence", "IssuerOfAccessionNumberSequence",
    "RequestingService", "AdmittingDiagnosesDescription", "AdmittingDiagnosesCodeSequence",
    "PatientAge", "PatientSize", "PatientWeight", "PatientBodyMassIndex", "MedicalAlerts", "Allergies",
    "Occupation", "SmokingStatus", "PregnancyStatus", "LastMenstrualDate", "PatientState",
    "AdditionalPatientHistory", "AdmissionID", "IssuerOfAdmissionIDSequence",
    "ServiceEpisodeID", "ServiceEpisodeDescription", "IssuerOfServiceEpisodeIDSequence",
    "ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID", "ClinicalTrialSiteName", "ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID",
    "ClinicalTrialTimePointID", "ClinicalTrialTimePointDescription", "ClinicalTrialCoordinatingCenterName",
)  # fmt: skip

#: What highdicom reads to describe the scanner in Contributing Equipment.
_SCANNER = (
    "Manufacturer", "ManufacturerModelName", "SoftwareVersions", "DeviceSerialNumber", "StationName",
    "InstitutionName", "InstitutionalDepartmentName", "InstitutionAddress",
    "AcquisitionDateTime", "AcquisitionDate", "AcquisitionTime",
)  # fmt: skip

#: Copied whatever they look like: what archives match by, and how to read it.
_VERBATIM = frozenset({"SpecificCharacterSet", "StudyInstanceUID", "FrameOfReferenceUID", *TYPE_2})

_TEXT = ("LO", "SH", "ST", "LT", "UT", "UC")  # VRs that Specific Character Set applies to, names apart


@dataclass(frozen=True, kw_only=True)
class Equipment:
    """Who made the result; the same four values stand wherever an object names its algorithm (IHE AIR)."""

    manufacturer: str
    model_name: str
    software_version: str
    device_uid: str
    #: Tells installations of one version apart by what they run; never empty.
    serial_number: str

    @property
    def arguments(self) -> dict[str, Any]:
        """What highdicom calls them, for the constructors of its objects."""
        return {
            "manufacturer": self.manufacturer,
            "manufacturer_model_name": self.model_name,
            "software_versions": self.software_version,
            "device_serial_number": self.serial_number,
        }


def equipment(run: Run, model: ModelIdentity | None) -> Equipment:
    """Name the model that answered, or the node itself where none ran."""
    return Equipment(
        manufacturer=model.manufacturer if model else "dicomnode",
        model_name=model.name if model else "dicomnode",
        software_version=model.version if model else run.code_version,
        device_uid=run.device_uid,
        serial_number=(model.sha256[:16] if model else "") or run.code_version,
    )


def stand_in(header: Dataset) -> Dataset:
    """Return what highdicom may see of a source header: identifiers and scanner, but no patient."""
    result = Dataset()
    for keyword in TYPE_2:
        setattr(result, keyword, None)
    _copy(result, header, _SCANNER)
    result.StudyInstanceUID = header.StudyInstanceUID
    result.SeriesInstanceUID = header.SeriesInstanceUID
    result.SOPInstanceUID = header.SOPInstanceUID
    # Any image class does: references are written from the real headers.
    result.SOPClassUID = CTImageStorage
    result.Modality = header.get("Modality") or "OT"
    return result


def image_stand_in(volume: Volume, index: int) -> Dataset:
    """Return a single-frame stand-in with the geometry of one slice, also where it is a frame of a larger file."""
    header, frame = volume.headers[index], volume.frames[index]
    result = stand_in(header)
    result.Rows, result.Columns = volume.array.shape[1:]
    _copy(result, header, ("FrameOfReferenceUID", "PositionReferenceIndicator"))
    _copy(result, header, ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"))
    result.ImagePositionPatient = geometry(header, frame, "ImagePositionPatient")
    # One orientation for all: highdicom compares exactly, the volume gate has allowed for rounding.
    result.ImageOrientationPatient = geometry(volume.headers[0], volume.frames[0], "ImageOrientationPatient")
    result.PixelSpacing = geometry(volume.headers[0], volume.frames[0], "PixelSpacing")
    result.SliceThickness = geometry(header, frame, "SliceThickness") or f"{volume.spacing[0]:.6g}"
    return result


def geometry(header: Dataset, frame: int | None, keyword: str) -> Any:
    """Return an attribute of the plane of one image, or of one frame of an Enhanced image (PS3.3 C.7.6.16.2)."""
    if frame is None:
        return header.get(keyword)
    per_frame = header.PerFrameFunctionalGroupsSequence[frame - 1]
    for groups in (per_frame, header.SharedFunctionalGroupsSequence[0]):
        for element in groups:
            if element.VR == "SQ" and element.value and keyword in element.value[0]:
                return element.value[0][keyword].value
    return header.get(keyword)


def finish(dataset: Dataset, header: Dataset, run: Run, made_by: Equipment) -> None:
    """Give a new object the patient, study, time and equipment it belongs to.

    Text written by us is fitted into the character set of the source, because the patient's name has to keep
    its bytes and one object has one character set.
    """
    # pydicom reads the default repertoire as Latin-1 to be tolerant; written, it is ASCII.
    encodings = ["ascii" if x == "iso8859" else x for x in convert_encodings(header.get("SpecificCharacterSet"))]
    _fit_text(dataset, encodings)
    moment = local_time(run, header)
    *scanner, library = dataset.get("ContributingEquipmentSequence") or [None]
    contributors = [*scanner, _contribution(run, made_by, moment)]
    if library is not None:  # the last one is highdicom, where it wrote the object
        library.ContributionDateTime = DT(moment.replace(tzinfo=None))
        contributors.append(library)
    dataset.ContributingEquipmentSequence = contributors
    _copy(dataset, header, INHERITED)
    for event in ("InstanceCreation", "Content", "Series"):
        setattr(dataset, f"{event}Date", DA(moment.date()))
        setattr(dataset, f"{event}Time", TM(moment.time()))


def body_part(header: Dataset) -> str:
    """Body Part Examined, required unless laterality is given; the source knows better than the pipeline."""
    return header.get("BodyPartExamined") or "SPINE"


def caution(analysis: Analysis) -> str:
    """What descriptions and pictures, which have no room for the reasons, say of an answer with limits."""
    return "Limited analysis: see report." if analysis.limited else ""


def short(text: str) -> str:
    """Cut a sentence between words to the 64 characters of a description (PS3.5 6.2, LO)."""
    return textwrap.shorten(text, 64, placeholder="...")


def local_time(run: Run, header: Dataset) -> datetime:
    """When the result was made, in the time zone the source is written in, else in the local one (PS3.3 C.12.1)."""
    offset = str(header.get("TimezoneOffsetFromUTC") or "")
    moment = run.created.replace(microsecond=0)
    if len(offset) != 5:
        return moment.astimezone()
    minutes = int(offset[1:3]) * 60 + int(offset[3:])
    return moment.astimezone(timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes)))


def well_formed(dataset: Dataset, keyword: str) -> bool:
    """Whether an element can be decoded and its text obeys its value representation (PS3.5 6.2)."""
    try:
        element = dataset[keyword]
        if element.VR in STR_VR and not element.is_empty:
            for value in element.value if element.VM > 1 else [element.value]:
                validate_value(element.VR, str(value), RAISE)
    except (ValueError, TypeError, NotImplementedError):  # what pydicom raises for values it cannot decode
        return False
    return True


def _contribution(run: Run, made_by: Equipment, moment: datetime) -> Dataset:
    item: Dataset = hd.ContributingEquipment(
        purpose_of_reference=codes.DCM.ProcessingEquipment,
        **made_by.arguments,
        contribution_datetime=DT(moment.replace(tzinfo=None)),
        contribution_description=f"Pipeline: {run.pipeline or 'none'}; program version: {run.code_version}",
    )
    item.DeviceUID = made_by.device_uid  # required by IHE AIR, not yet an argument of highdicom
    return item


def _copy(target: Dataset, source: Dataset, keywords: Sequence[str]) -> None:
    """Copy elements as they are.

    A malformed attribute would only make our object invalid and is left out, except where archives match by it.
    """
    for keyword in keywords:
        if keyword in source and (keyword in _VERBATIM or well_formed(source, keyword)):
            target[keyword] = deepcopy(source[keyword])


def _fit_text(dataset: Dataset, encodings: Sequence[str]) -> None:
    for element in dataset.iterall():
        if element.VR in _TEXT and element.value:
            many = isinstance(element.value, MultiValue)
            fitted = [_fit(str(value), encodings) for value in (element.value if many else [element.value])]
            element.value = fitted if many else fitted[0]


def _fit(text: str, encodings: Sequence[str]) -> str:
    return text if text.isascii() else "".join(c if _encodable(c, encodings) else "?" for c in text)


def _encodable(character: str, encodings: Sequence[str]) -> bool:
    for encoding in encodings:
        try:
            character.encode(encoding)
        except (UnicodeEncodeError, LookupError):  # a few encodings are known to pydicom only
            continue
        return True
    return False
