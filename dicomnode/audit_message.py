"""Audit messages as XML: the schema and codes of PS3.15 A.5, and nothing of where they are kept."""

from __future__ import annotations

import base64
import ipaddress
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from xml.etree.ElementTree import Element, tostring

MAX_TEXT = 256  # of a received value: a Patient ID may have gigabytes


class Code(NamedTuple):
    """A concept of the DICOM controlled terminology (PS3.16 annex D), or of another scheme."""

    value: str
    meaning: str
    scheme: str = "DCM"


ACTIVITY, START, STOP = (
    Code("110100", "Application Activity"), Code("110120", "Application Start"), Code("110121", "Application Stop"),
)  # fmt: skip
BEGIN, ACCESSED, TRANSFERRED = (
    Code("110102", "Begin Transferring DICOM Instances"), Code("110103", "DICOM Instances Accessed"),
    Code("110104", "DICOM Instances Transferred"),
)  # fmt: skip
DELETED, QUERY = Code("110105", "DICOM Study Deleted"), Code("110112", "Query")
ALERT, AUTHENTICATION = Code("110113", "Security Alert"), Code("110126", "Node Authentication")
APPLICATION, DESTINATION, SOURCE = (
    Code("110150", "Application"), Code("110152", "Destination Role ID"), Code("110153", "Source Role ID"),
)  # fmt: skip
STUDY_UID, CLASS_UID, NODE_ID = (
    Code("110180", "Study Instance UID"), Code("110181", "SOP Class UID"), Code("110182", "Node ID"),
)  # fmt: skip
PATIENT_NUMBER = Code("2", "Patient Number", "RFC-3881")


@dataclass(kw_only=True)
class Subject:
    """Instances of one study."""

    study_uid: str
    patient_id: str
    classes: Counter[str] = field(default_factory=Counter)
    anonymized: bool = False


@dataclass(frozen=True, kw_only=True)
class Event:
    """What happened, and how it ended: no problem is outcome 0, a problem 4, a serious one 8."""

    id: Code
    action: str  # C create, R read, U update, D delete, E execute
    type: Code | None = None
    problem: str = ""
    serious: bool = False


def message(event: Event, now: datetime, source: str, parts: Sequence[Element]) -> bytes:
    """Return a message on one line; `parts` are its participants and the objects that it is about."""
    root = Element("AuditMessage")
    values = {"EventActionCode": event.action, "EventDateTime": now.isoformat(timespec="milliseconds")}
    values["EventOutcomeIndicator"] = ("8" if event.serious else "4") if event.problem else "0"
    identification = _element("EventIdentification", values, root)
    coded(identification, "EventID", event.id)
    if event.type:
        coded(identification, "EventTypeCode", event.type)
    if event.problem:
        _element("EventOutcomeDescription", {}, identification).text = _clean(event.problem)
    parties = [part for part in parts if part.tag == "ActiveParticipant"]
    root.extend(parties)
    origin = _element("AuditSourceIdentification", {"AuditSourceID": source}, root)
    _element("AuditSourceTypeCode", {"csd-code": "4"}, origin)  # an application server
    root.extend(part for part in parts if part not in parties)
    text: bytes = tostring(root, encoding="UTF-8", xml_declaration=True)
    return text.replace(b"\n", b"")  # the one behind the declaration: values have none


def party(user: str, *, address: str, requestor: bool = False, title: str = "") -> Element:
    """Return an active participant: a process, another node or the browser at an address."""
    values = {"UserID": user, "AlternativeUserID": f"AETITLES={title}"} if title else {"UserID": user}
    values |= {"UserIsRequestor": str(requestor).lower()}
    if address:
        values |= {"NetworkAccessPointID": address, "NetworkAccessPointTypeCode": "2" if _is_ip(address) else "1"}
    return _element("ActiveParticipant", values)


def peer(role: Code, title: str, address: str, *, requestor: bool = False) -> Element:
    """Return another node, which is known by its AE title."""
    made = party(title, address=address, requestor=requestor, title=title)
    coded(made, "RoleIDCode", role)
    return made


def _is_ip(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True


def study(subject: Subject, life_cycle: str = "") -> list[Element]:
    """Return a study with the number of its instances that took part, and its patient."""
    made = thing(STUDY_UID, subject.study_uid, kind="2", role="3", life_cycle=life_cycle)
    description = _description(made, subject.classes)
    if subject.anonymized:
        _element("Anonymized", {}, description).text = "true"
    return [made, thing(PATIENT_NUMBER, subject.patient_id, kind="1", role="1")]


def instances(uid: str, count: int) -> Element:
    """Return instances of one SOP class of which no more is known."""
    made = thing(CLASS_UID, uid, kind="2", role="3")
    _description(made, {uid: count})
    return made


def thing(  # noqa: PLR0913 - the fields of the standard
    type_code: Code, uid: str, *, kind: str, role: str = "", life_cycle: str = "", query: bytes | None = None
) -> Element:
    """Return a participant object; the schema wants a name or a query, and numbers are enough for us."""
    values = {"ParticipantObjectID": uid, "ParticipantObjectTypeCode": kind, "ParticipantObjectTypeCodeRole": role}
    values |= {"ParticipantObjectDataLifeCycle": life_cycle}
    item = _element("ParticipantObjectIdentification", {k: v for k, v in values.items() if v or v is uid})
    coded(item, "ParticipantObjectIDTypeCode", type_code)
    if query is None:
        _element("ParticipantObjectName", {}, item)
    else:
        _element("ParticipantObjectQuery", {}, item).text = base64.b64encode(query).decode()
    return item


def detail(item: Element, kind: str, value: str) -> None:
    """Add a value by name, in base 64 as the schema wants it."""
    made = _element("ParticipantObjectDetail", {"type": kind}, item)
    made.set("value", base64.b64encode(_clean(value).encode()).decode())


def coded(parent: Element, name: str, code: Code) -> None:
    """Add a coded value."""
    values = {"csd-code": code.value, "codeSystemName": code.scheme, "originalText": code.meaning}
    _element(name, values, parent)


def _description(parent: Element, classes: Mapping[str, int]) -> Element:
    made = _element("ParticipantObjectDescription", {}, parent)
    for uid, count in classes.items():
        _element("SOPClass", {"UID": uid, "NumberOfInstances": str(count)}, made)
    return made


def _element(name: str, values: Mapping[str, str], parent: Element | None = None) -> Element:
    made = Element(name, {key: _clean(value) for key, value in values.items()})
    if parent is not None:
        parent.append(made)
    return made


def _clean(text: str) -> str:
    """One line of characters that XML can hold: much of it comes from the network."""
    return "".join(c if c.isprintable() else "?" for c in text[:MAX_TEXT])
