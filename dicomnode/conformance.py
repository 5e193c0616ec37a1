"""The DICOM conformance statement (PS3.2) of one configuration, as Markdown."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from pydicom import uid
from pynetdicom.sop_class import (
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from dicomnode import proof
from dicomnode.config import Audit, Config, Destination, Proof, ResultKind
from dicomnode.network import association, commitment, find, listen, send, wire
from dicomnode.spool import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION


class Made(NamedTuple):
    """An information object that the node creates."""

    name: str
    sop_class: str
    modality: str
    when: str


OBJECTS: dict[ResultKind, Made] = {
    "seg": Made("Segmentation (BINARY)", uid.SegmentationStorage, "SEG", "there is a mask"),
    "labelmap": Made("Label Map Segmentation", "1.2.840.10008.5.1.4.1.1.66.7", "SEG", "there is a mask"),
    "pmap": Made("Parametric Map", uid.ParametricMapStorage, "OT", "the pipeline says where it looked"),
    "sr": Made("Comprehensive 3D SR (TID 1500)", uid.Comprehensive3DSRStorage, "SR", "always"),
    "csr": Made("Comprehensive SR (TID 1500)", uid.ComprehensiveSRStorage, "SR", "always"),
    "sc": Made("Secondary Capture Image (RGB)", uid.SecondaryCaptureImageStorage, "OT", "for each finding"),
    "gsps": Made(
        "Grayscale Softcopy Presentation State", uid.GrayscaleSoftcopyPresentationStateStorage, "PR", "with findings"
    ),
    "pdf": Made("Encapsulated PDF", uid.EncapsulatedPDFStorage, "DOC", "after an analysis"),
    "kos": Made("Key Object Selection, Of Interest", uid.KeyObjectSelectionDocumentStorage, "KO", "with findings"),
    "reject": Made(
        "Key Object Selection, Rejected for Quality Reasons", uid.KeyObjectSelectionDocumentStorage, "KO",
        "an earlier answer is superseded",
    ),
}  # fmt: skip


_SYNTAXES = "Explicit VR Little Endian, Implicit VR Little Endian"
_PROVEN_WITHIN = f"{proof.GIVE_UP_SECONDS / 3600:g} h"
_QUERY = (
    f"Query for the objects that were stored: {uid.UID(StudyRootQueryRetrieveInformationModelFind).name} "
    f"`{StudyRootQueryRetrieveInformationModelFind}`, level IMAGE, keys Study and Series Instance UID, return key SOP "
    f"Instance UID; repeated with growing delays for at most {_PROVEN_WITHIN} while an object is missing."
)
_COMMITMENT = (
    f"Storage commitment of every object: {uid.UID(StorageCommitmentPushModel).name} "
    f"`{StorageCommitmentPushModel}`, {_SYNTAXES}, N-ACTION of type 1. The N-EVENT-REPORT is awaited for "
    f"{commitment.REPORT_SECONDS:g} s on the same association, then on any that this AE title opens to the node. "
    f"Without a report the request is repeated every {proof.ASK_AGAIN_SECONDS / 3600:g} h with a new Transaction UID, "
    f"for at most {_PROVEN_WITHIN}; a report to any of these counts. After a report with a Failed SOP Sequence all "
    "objects are sent again."
)
_PROOFS: dict[Proof | None, str] = {
    "commitment": _COMMITMENT,
    "find": _QUERY,
    "none": "A status of success or warning is taken for delivery: neither storage commitment nor a query follows.",
    None: f"{_QUERY} Where the query cannot be made, a status of success or warning is taken for delivery.",
}


def statement(config: Config) -> str:
    """Return the whole statement; the same configuration and version give the same text."""
    sections = (_overview, _provided, _used, _networking, _media, _objects, _character_sets, _security)
    return "\n".join(line for section in sections for line in (*section(config), "")).rstrip() + "\n"


def _overview(config: Config) -> Iterator[str]:
    yield "# DICOM conformance statement"
    yield ""
    yield (
        f"dicomnode {importlib.metadata.version('dicomnode-spine')}, AE title `{config.receive.ae_title}`. Written by "
        "`dicomnode conformance` from the configuration in force; the structure is that of PS3.2 Annex N."
    )
    yield ""
    yield (
        "The node receives images by C-STORE, decides when a study is complete, analyses it, and sends result objects "
        "by C-STORE. It may ask a sender by C-FIND how many instances a study has, and asks destinations by storage "
        "commitment or C-FIND whether they hold the results. Research use only."
    )


def _provided(config: Config) -> Iterator[str]:
    yield "## Services provided (SCP)"
    yield ""
    yield from _table(
        ("SOP class", "Transfer syntaxes"),
        [
            (f"Verification `{Verification}`", "Implicit VR Little Endian, Explicit VR Little Endian"),
            (f"{len(listen.storage_contexts()) - 1} Storage SOP classes, listed below", _syntaxes()),
        ],
    )
    yield ""
    yield (
        "Storage is level 2 (full): data sets are kept byte for byte as received, in the transfer syntax received, and "
        "success is answered after they are on the disk. Extended negotiation, C-FIND, C-MOVE, C-GET, storage "
        "commitment and MPPS are not supported as SCP; as SCU of storage commitment the node takes N-EVENT-REPORT from "
        "its destinations on this port, with SCP/SCU role selection. Statuses and rejections: docs/operations.md."
    )
    yield ""
    names = sorted(_name(str(context.abstract_syntax)) for context in listen.storage_contexts()[1:])
    yield "Storage SOP classes accepted: " + "; ".join(names) + "."


def _syntaxes() -> str:
    return ", ".join(_name(syntax) for syntax in listen.TRANSFER_SYNTAXES)


def _used(config: Config) -> Iterator[str]:
    yield "## Services used (SCU)"
    yield ""
    if not config.destination:
        yield "No destination is configured: results stay in the data directory. One that is gets them by C-STORE, and:"
        yield ""
        yield f'- with `proof = "commitment"`: {_COMMITMENT}'
        yield f'- with `proof = "find"`: {_QUERY}'
    for destination in config.destination:
        yield from _destination(destination)
    askable = [sender for sender in config.sender if sender.host and sender.port]
    for sender in askable:
        yield ""
        yield (
            f"Query to `{sender.ae_title}` at {sender.host}:{sender.port}: "
            f"{_name(StudyRootQueryRetrieveInformationModelFind)} `{StudyRootQueryRetrieveInformationModelFind}`, "
            "level SERIES, key Study Instance UID, return keys Series Instance UID and Number of Series Related "
            f"Instances; {find.REPLY_SECONDS} s for each answer."
        )


def _destination(destination: Destination) -> Iterator[str]:
    kinds = [kind for kind in OBJECTS if kind in destination.results]
    if "sr" in kinds and "csr" not in kinds:
        kinds.insert(kinds.index("sr") + 1, "csr")
    yield f"### {destination.name}: `{destination.ae_title}` at {destination.host}:{destination.port}"
    yield ""
    yield from _table(
        ("SOP class", "UID", "Transfer syntaxes"),
        [
            (
                OBJECTS[kind].name + (", if the former is not accepted" if _only_instead(kind, destination) else ""),
                f"`{OBJECTS[kind].sop_class}`",
                _SYNTAXES,
            )
            for kind in kinds
        ],
    )
    if destination.max_frames is not None:
        yield ""
        yield f"Objects with more than {destination.max_frames} frames are not sent."
    yield ""
    yield _PROOFS[destination.proof]


def _only_instead(kind: ResultKind, destination: Destination) -> bool:
    return kind == "csr" and kind not in destination.results


def _networking(config: Config) -> Iterator[str]:
    yield "## Network"
    yield ""
    yield from _table(
        ("Property", "Value"),
        [
            ("Listens on", f"{config.receive.host}:{config.receive.port}"),
            ("Callers accepted", ", ".join(f"`{entry}`" for entry in config.receive.allow)),
            ("Application context", "1.2.840.10008.3.1.1.1"),
            ("Implementation class UID, received files", IMPLEMENTATION_CLASS_UID),
            ("Implementation version name", IMPLEMENTATION_VERSION),
            ("Maximum PDU accepted", f"{wire.MAX_PDU_BYTES} bytes"),
            ("Associations at a time, as SCP", config.limits.associations),
            ("Association request within", f"{association.REQUEST_SECONDS:g} s"),
            ("Idle association ends after", f"{config.limits.idle_seconds:g} s"),
            ("Largest data set", f"{config.limits.instance_mb} MB"),
            ("Asynchronous operations window", "not supported: one operation at a time"),
            ("As SCU: connect, associate, reply within",
             f"{send.CONNECT_SECONDS} s, {send.ASSOCIATE_SECONDS} s, {send.REPLY_SECONDS} s"),
            ("Deliveries that fail", "C-STORE status A7xx, a broken association, or no answer: tried again with a "
             "growing delay; other failures: given up until `dicomnode retry`"),
        ],
    )  # fmt: skip


def _media(config: Config) -> Iterator[str]:
    yield "## Media"
    yield ""
    yield "No media storage application profile is supported; files are written in the format of PS3.10."


def _objects(config: Config) -> Iterator[str]:
    yield "## Objects created"
    yield ""
    asked = config.result_kinds
    yield from _table(
        ("`results`", "Object", "SOP class UID", "Modality", "Made when", "In this configuration"),
        [
            (f"`{kind}`", made.name, f"`{made.sop_class}`", made.modality, made.when, "yes" if kind in asked else "no")
            for kind, made in OBJECTS.items()
        ],
    )
    yield ""
    yield (
        "Every object is in a series of its own in the study of its images. Patient and study attributes are copied "
        "as they are; type 2 attributes that the source lacks are written empty. UIDs are `2.25.` with a name based "
        "UUID of images, pipeline, model, configuration and version: the same run gives the same object. Referenced "
        "objects are sent first. A corrected report names the older one in its Predecessor Documents Sequence. Codes: "
        "`config/codes.toml`. A study without an answer gets a report (`sr`) that says why."
    )


def _character_sets(config: Config) -> Iterator[str]:
    yield "## Character sets"
    yield ""
    yield (
        "Received data sets may have any Specific Character Set. Results have that of their source, and names keep "
        "their bytes; tested with the default repertoire, ISO_IR 100, 144, 192, ISO 2022 IR 87 and 149, and GB18030. "
        "Characters of our own text that the set lacks become `?`."
    )


def _security(config: Config) -> Iterator[str]:
    yield "## Security"
    yield ""
    secured = [name for name, on in [("the receiver", config.receive.tls), *_secured(config)] if on]
    yield (
        "BCP 195 TLS Secure Transport Connection Profile (PS3.15 B.12), 1.2 and 1.3, with a certificate on both sides; "
        f"in this configuration for {', '.join(secured) or 'nobody: keep the node in a protected network'}."
    )
    yield ""
    yield ("Callers are restricted by AE title and address (`receive.allow`). " + _audit(config.audit))
    yield ""
    outside = ", ".join(destination.name for destination in config.destination if destination.deidentify)
    yield (
        f"De-identified objects go to {outside or 'nobody'}. With `deidentify = true` a destination gets them by the "
        "Basic Application Level Confidentiality Profile (PS3.15 E.2, table of edition 2026c) with the Clean Graphics "
        "and Clean Structured Content Options; no other option is supported. UIDs and Patient ID are replaced "
        "consistently by a keyed hash, dates are removed, and `sc` and `pdf` are not sent."
    )


def _audit(audit: Audit) -> str:
    if not audit.enabled:
        return "No audit messages are written."
    where = f", and sent to {audit.host}:{audit.port} as syslog over TLS (PS3.15 A.6)" if audit.host else ""
    return (
        "Audit messages by PS3.15 A.5 are kept in files" + where + ": Application Activity, Begin Transferring, "
        "Transferred (in and out), Instances Accessed (by analyses and on the status page), DICOM Study Deleted, "
        "Query, and Security Alert "
        "(Node Authentication)."
    )


def _secured(config: Config) -> list[tuple[str, bool]]:
    destinations = [(f"destination {peer.name}", peer.tls) for peer in config.destination]
    return destinations + [(f"sender {peer.ae_title}", peer.tls) for peer in config.sender]


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(str(cell) for cell in row) + " |"


def _name(value: str) -> str:
    return uid.UID(value).name
