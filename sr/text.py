"""A report as text: the tree of a Structured Report, one line per statement."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom import Dataset


def render(dataset: Dataset) -> str:
    """Return the content tree of an SR (PS3.3 C.17.3) as indented lines, without anything about the patient."""
    flags = (dataset.get(x, "") for x in ("CompletionFlag", "PreliminaryFlag", "VerificationFlag"))
    lines = [_meaning(dataset, "ConceptNameCodeSequence"), f"({', '.join(x.lower() for x in flags if x)})"]
    return "\n".join([" ".join(lines), *_lines(dataset, 1)]) + "\n"


def _lines(container: Dataset, depth: int) -> Iterator[str]:
    for item in container.get("ContentSequence", ()):
        name = _meaning(item, "ConceptNameCodeSequence") or item.get("ValueType", "").lower()
        value = _value(item)
        yield "  " * depth + (f"{name}: {value}" if value else name)
        yield from _lines(item, depth + 1)


def _value(item: Dataset) -> str:
    kind = item.get("ValueType", "")
    if kind == "CODE":
        return _meaning(item, "ConceptCodeSequence")
    if kind == "NUM":
        return _number(item)
    if kind in ("IMAGE", "COMPOSITE", "WAVEFORM"):
        return _reference(item)
    if kind in ("SCOORD", "SCOORD3D"):
        points = ", ".join(f"{x:g}" for x in item.get("GraphicData", ()))
        return f"{item.get('GraphicType', '').lower()} {points}"
    simple = {"TEXT": "TextValue", "UIDREF": "UID", "PNAME": "PersonName", "DATE": "Date", "TIME": "Time"}
    return str(item.get(simple.get(kind, "DateTime"), ""))


def _number(item: Dataset) -> str:
    if not item.get("MeasuredValueSequence"):
        return "not measured"
    measured = item.MeasuredValueSequence[0]
    units = measured.get("MeasurementUnitsCodeSequence")
    return f"{measured.NumericValue} {units[0].CodeValue if units else ''}".strip()


def _reference(item: Dataset) -> str:
    if not item.get("ReferencedSOPSequence"):
        return "no instance"
    target = item.ReferencedSOPSequence[0]
    parts = [str(target.get("ReferencedSOPInstanceUID", ""))]
    for keyword, word in (("ReferencedFrameNumber", "frame"), ("ReferencedSegmentNumber", "segment")):
        if keyword in target:
            parts.append(f"{word} {target[keyword].value}")
    return ", ".join(parts)


def _meaning(item: Dataset, keyword: str) -> str:
    codes = item.get(keyword)
    return str(codes[0].get("CodeMeaning", "")) if codes else ""
