"""Outsiders' validators as functions: each returns what they call an error, one line each, none if valid."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

import pydicom
import pytest
from pydicom import Dataset

#: Debian's PixelMed dies on its own style sheets under the default XPath limits of newer Java versions.
JAVA_OPTIONS = (
    "-Djdk.xml.xpathExprGrpLimit=0 -Djdk.xml.xpathExprOpLimit=0 -Djdk.xml.xpathTotalOpLimit=0"
    " -XX:ActiveProcessorCount=2 -XX:+UseSerialGC"
)

#: Warnings that are no fault of ours, and why. Anything else a validator warns of is reported as an error.
ALLOWED_WARNINGS = {
    # IHE AI Results requires Device UID there; dicom3tools does not know the attribute in that sequence yet.
    "ContributingEquipmentSequence(0018,a001)[1]/DeviceUID(0018,1002)> - Attribute is not present",
    "ContributingEquipmentSequence(0018,a001)[2]/DeviceUID(0018,1002)> - Attribute is not present",
    # The term for a map of values of any quantity (PS3.3 C.8.23.3.1) is younger than dicom3tools.
    "Unrecognized defined term = <QUANTITY>",
    # A name without components is the hospital's business and is passed on as it came.
    "Value dubious for this VR [PN]",
    # PixelMed knows TID 4019, 1410 and 1411 only as they were before the rows for the algorithm, the answer and
    # the label were added; all are legal, and viewers take the label from the comment.
    'TEXT (111001,DCM,"Algorithm Name"): Content Item not in template',
    'TEXT (111003,DCM,"Algorithm Version"): Content Item not in template',
    'TEXT (122405,DCM,"Algorithm Manufacturer"): Content Item not in template',
    'TEXT (111002,DCM,"Algorithm Parameters"): Content Item not in template',
    'CODE (111000,DCM,"Algorithm Family"): Content Item not in template',
    'CODE (72704001,SCT,"Fracture"): Content Item not in template',
    'TEXT (121106,DCM,"Comment"): Content Item not in template',
    # highdicom writes "Source Series", older editions of the standard "Source series".
    'has different code meaning ("Source Series for Segmentation")',
}


def require(tool: str) -> str:
    """Return the path of a tool; without it fail where tools are promised, else skip the test."""
    return shutil.which(tool) or missing(tool)


def missing(tool: str) -> NoReturn:
    if os.environ.get("DICOMNODE_REQUIRE_TOOLS") == "1":
        pytest.fail(f"{tool} is not installed, and DICOMNODE_REQUIRE_TOOLS=1 promises it")
    pytest.skip(f"{tool} is not installed")


def dciodvfy(path: Path) -> list[str]:
    """Validate any object against its IOD with dicom3tools."""
    output = _run([require("dciodvfy"), "-new", str(path)])
    return _complaints(output.splitlines())


def sr_validator(path: Path) -> list[str]:
    """Validate an SR against its templates with PixelMed, the validator of the IHE Connectathon.

    It cannot tell the group templates apart inside one document and then misses items of one in the other, so it
    gets one copy per group template.
    """
    tool = require("DicomSRValidator")
    found: list[str] = []
    with TemporaryDirectory() as folder:
        for number, copy in enumerate(_copies(pydicom.dcmread(path))):
            copy.save_as(file := Path(folder) / f"{number}.dcm")
            output = _run([tool, str(file)], JAVA_TOOL_OPTIONS=JAVA_OPTIONS)
            found += _complaints(output.splitlines())
            if "IOD validation complete" not in output:  # its exit status says nothing
                found.append(f"DicomSRValidator did not finish: {output[-500:]}")
    return found


def dcmtk_sr(path: Path) -> list[str]:
    """Read an SR with DCMTK's dsrdump and dsr2html."""
    found: list[str] = []
    for tool in ("dsrdump", "dsr2html"):
        done = subprocess.run([require(tool), str(path)], capture_output=True, text=True, check=False, timeout=60)
        if done.returncode != 0:
            found.append(f"{tool} exits with {done.returncode}: {done.stderr}")
        found += [line for line in done.stderr.splitlines() if line.startswith("E:")]
    return found


def dcmpschk(path: Path) -> list[str]:
    """Check a presentation state with DCMTK."""
    lines = _run([require("dcmpschk"), str(path)]).splitlines()
    problems = [line for line in lines if line.startswith("E:") or "failed" in line.lower()]
    return problems if problems or any("Test passed" in line for line in lines) else lines


def _run(command: Sequence[str], **variables: str) -> str:
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        timeout=240,
        env=os.environ | variables,
    )
    return done.stdout


def _complaints(lines: Sequence[str]) -> list[str]:
    return [
        line
        for line in lines
        if line.startswith("Error")
        or (line.startswith("Warning") and not any(allowed in line for allowed in ALLOWED_WARNINGS))
    ]


def _copies(document: Dataset) -> Iterator[Dataset]:
    """Yield the document with the groups of one template at a time, or as it is where there are none.

    Planar groups (TID 1410) go one by one: PixelMed looks at them only if there is exactly one.
    """
    container = next((x for x in document.ContentSequence if _concept(x) == "126010"), Dataset())
    groups = defaultdict(list)
    for number, group in enumerate(container.get("ContentSequence", ())):
        template = group.ContentTemplateSequence[0].TemplateIdentifier
        groups[(template, number if template == "1410" else 0)].append(group)
    if not groups:
        yield document
    for members in groups.values():
        container.ContentSequence = members
        yield document


def _concept(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue) if "ConceptNameCodeSequence" in item else ""
