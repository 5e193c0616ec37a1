"""Results for a destination outside the hospital, by PS3.15 annex E. The only home of dicomanonymizer.

First goes what a result took over from its images. What becomes of the rest is that library's table of PS3.15 E.1-1.
It is applied here, because the library looks at the top level of a data set only, forgets its UIDs at the end of the
process, and turns the content of a report into dummies. Two options of the standard are added, for reports and
presentation states are useless without: of a report's comments, which may quote the source, only sentences about the
model stay.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import uuid
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

import pydicom
from dicomanonymizer import simpledicomanonymizer as library
from pydicom import DataElement, Dataset
from pydicom.sr.coding import Code
from pydicom.tag import BaseTag
from pydicom.uid import UID

from dicomnode.config import CONFIG_DIR
from dicomnode.parcel import Parcel
from dicomnode.spool import flush_folder
from dicomnode.task import StoredResult
from inference import pipeline
from sr import results as sr
from sr.headers import INHERITED, TYPE_2

EDITION = "dicomfields_2026c"  # of the standard, as the library calls it
METHODS = (
    Code("113100", "DCM", "Basic Application Confidentiality Profile"),
    Code("113103", "DCM", "Clean Graphics Option"),
    Code("113104", "DCM", "Clean Structured Content Option"),
)
#: Kept and cleaned inside, by the two options.
_CLEANED = ("ContentSequence", "GraphicAnnotationSequence")
#: What every object must have of its source; the table empties it.
_NEEDED = ("SpecificCharacterSet", "StudyInstanceUID", *TYPE_2)
#: Objects that we make are invalid without these, though the table removes them.
_REQUIRED = ("AcquisitionContextSequence", "PresentationCreationDate", "PresentationCreationTime")
#: The library's dummies for these have the year 1, which validators refuse.
_NEVER = {"DA": "19000101", "TM": "000000", "DT": "19000101000000"}
#: Names of things that are the same everywhere.
_PUBLIC_UIDS = ("TransferSyntaxUID", "CodingSchemeUID", "ContextUID", "MappingResourceUID")
_COMMENT = "121106"  # DCM
#: How the comments begin that stay, beside the notices of the models: see sr/report.py.
_ABOUT_THE_MODEL = ("AI: ", "Model ", "Training data: ", "Probability by level: ")


def key_of(data_dir: Path) -> bytes:
    """The secret of this installation that makes new UIDs, made at first use; without it nobody can go back."""
    path = data_dir / "deidentify.key"
    if not path.exists():
        draft = path.with_name(f".{uuid.uuid4().hex}.key")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # another thread was first: its key counts
            path.hardlink_to(draft)
        draft.unlink()
        flush_folder(data_dir)
    return path.read_bytes()


def strip(parcel: Parcel, folder: Path, key: bytes) -> Parcel:
    """Write a parcel's objects without identity into a folder, and return the parcel of those."""
    return replace(
        parcel,
        results=tuple(_strip_result(result, folder, key) for result in parcel.results),
        instead={folder / old.name: _copy(new, folder, key) for old, new in parcel.instead.items()},
    )


def _strip_result(result: StoredResult, folder: Path, key: bytes) -> StoredResult:
    return replace(rename(result, key), path=_copy(result.path, folder, key))


def rename(result: StoredResult, key: bytes) -> StoredResult:
    """A result under the UIDs that its copy without identity has."""
    return replace(
        result,
        sop_uid=new_uid(result.sop_uid, key),
        series_uid=new_uid(result.series_uid, key),
        study_uid=new_uid(result.study_uid, key),
    )


def _copy(path: Path, folder: Path, key: bytes) -> Path:
    dataset = pydicom.dcmread(path)
    deidentify(dataset, key)
    sr.save(sr.Result(kind="", dataset=dataset), folder / path.name)
    return folder / path.name


def deidentify(dataset: Dataset, key: bytes) -> None:
    """Take the patient out of a result object. The same key maps the same patient and UIDs to the same ones."""
    patient = str(dataset.get("PatientID") or dataset.StudyInstanceUID)
    pseudonym = hmac.new(key, f"patient {patient}".encode(), hashlib.sha256).hexdigest()[:16].upper()
    for keyword in set(INHERITED) - set(_NEEDED):
        dataset.pop(keyword, None)
    _clean(dataset, key)
    # Without any name an archive would take all patients for one; names may be in any character set, this is in all.
    dataset.PatientName = dataset.PatientID = pseudonym
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = "PS3.15 E.1 Basic Profile"
    dataset.DeidentificationMethodCodeSequence = [_item(code) for code in METHODS]
    dataset.LongitudinalTemporalInformationModified = "REMOVED"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID


def new_uid(old: str, key: bytes) -> str:
    """Return a UID that follows from an old one and the key, and does not lead back."""
    digest = hmac.new(key, old.encode(), hashlib.sha256).digest()
    return UID(f"2.25.{uuid.UUID(bytes=digest[:16], version=4).int}")


def _clean(dataset: Dataset, key: bytes) -> None:
    for element in list(dataset):
        if element.tag.is_private:
            del dataset[element.tag]
        elif element.VR == "UI":
            _map_uids(element, key)
        elif element.VR == "SQ":
            _clean_sequence(dataset, element, key)
        elif element.keyword == "TextValue":
            element.value = _without_source(dataset, element.value)
        else:
            _clean_value(dataset, element)


def _map_uids(element: DataElement, key: bytes) -> None:
    if element.keyword.endswith("ClassUID") or element.keyword in _PUBLIC_UIDS or element.is_empty:
        return
    many = [new_uid(uid, key) for uid in element.value] if element.VM > 1 else [new_uid(element.value, key)]
    element.value = many if len(many) > 1 else many[0]


def _clean_sequence(dataset: Dataset, element: DataElement, key: bytes) -> None:
    """Keep references, which the new UIDs make harmless, and what the table does not name."""
    action = _action(element.tag)
    if action in (None, library.delete_or_empty_or_replace_UID) or element.keyword in _CLEANED:
        for item in element.value:
            _clean(item, key)
    elif action is library.delete and element.keyword not in _REQUIRED:
        del dataset[element.tag]
    else:
        element.value = []


def _clean_value(dataset: Dataset, element: DataElement) -> None:
    action = _action(element.tag)
    if action is library.delete and element.keyword not in _REQUIRED:
        del dataset[element.tag]
    elif action in (library.empty, library.delete_or_empty):
        element.value = None
    elif element.VR in _NEVER and action is not None:
        element.value = _NEVER[element.VR]
    elif action is not None and element.keyword != "UnformattedTextValue":  # ours: see sr/presentation.py
        library.replace_element(element)


def _without_source(item: Dataset, text: str) -> str:
    if item.ConceptNameCodeSequence[0].get("CodeValue") != _COMMENT:
        return text
    return text if text in _notices() or text.startswith(_ABOUT_THE_MODEL) else "(removed)"


@cache
def _notices() -> set[str]:
    return {pipeline.identity(name, CONFIG_DIR).notice for name in pipeline.names(CONFIG_DIR)}


def _action(tag: BaseTag) -> object:
    exact, masked = _table()
    found = exact.get((tag.group, tag.element))
    for (group, number, group_mask, mask), action in masked.items():
        if tag.group & group_mask == group and tag.element & mask == number:
            found = action
    return found


@cache
def _table() -> tuple[dict[tuple[int, ...], object], dict[tuple[int, ...], object]]:
    """What becomes of which attribute: by tag, and by a tag with masks for repeating groups."""
    actions = library.initialize_actions(EDITION)
    return {t: a for t, a in actions.items() if len(t) == 2}, {t: a for t, a in actions.items() if len(t) == 4}


def _item(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item
