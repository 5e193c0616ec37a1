"""The report as a page to read: an encapsulated PDF with the sentences of the Structured Report, for any viewer."""

from __future__ import annotations

import textwrap
from io import BytesIO

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, EncapsulatedPDFStorage, ExplicitVRLittleEndian

from inference.findings import Analysis
from sr import headers, text
from sr.run import Kind, Run, derived_uid

#: A4 in inches, and what fits on it in 9 point Courier-like type.
_PAGE, _COLUMNS, _LINES = (8.27, 11.69), 92, 72


def write(report: Dataset, header: Dataset, analysis: Analysis, run: Run) -> Dataset:
    """Return an Encapsulated PDF (PS3.3 A.45.1) of a report; who the patient is stands in its header alone."""
    made_by = headers.equipment(run, analysis.model)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = EncapsulatedPDFStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID(derived_uid(run, Kind.PDF))
    dataset.SeriesInstanceUID = derived_uid(run, Kind.PDF, "series")
    dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = "DOC", 9007, 1
    dataset.SeriesDescription = headers.short(f"AI report. {analysis.model.notice}")
    dataset.Manufacturer, dataset.ManufacturerModelName = made_by.manufacturer, made_by.model_name
    dataset.SoftwareVersions, dataset.DeviceSerialNumber = made_by.software_version, made_by.serial_number
    # Type 1: who turned it into PDF; there is no film and no paper behind it.
    dataset.ConversionType = "SYN"
    dataset.BurnedInAnnotation = "NO"
    dataset.AcquisitionDateTime = None
    dataset.DocumentTitle = "Imaging Measurement Report"
    dataset.ConceptNameCodeSequence = report.ConceptNameCodeSequence
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    pages = render(text.render(report))
    dataset.EncapsulatedDocumentLength = len(pages)
    dataset.EncapsulatedDocument = pages + b"\0" * (len(pages) % 2)
    for keyword in headers.TYPE_2:
        setattr(dataset, keyword, None)
    headers.finish(dataset, header, run, made_by)
    return dataset


def render(statements: str) -> bytes:
    """Return lines of text as pages of a PDF; the same text gives the same bytes."""
    from matplotlib.backends.backend_pdf import PdfPages  # costs a second, which only those who want a PDF pay
    from matplotlib.figure import Figure

    # The typeface that comes with matplotlib has Latin letters; others would be empty boxes.
    printable = statements.encode("latin-1", "replace").decode("latin-1")
    lines = [part for line in printable.splitlines() for part in _wrap(line)]
    buffer = BytesIO()
    with PdfPages(buffer, metadata={"CreationDate": None, "Title": "AI report"}) as pages:
        for start in range(0, len(lines), _LINES):
            figure = Figure(figsize=_PAGE)
            page = "\n".join(lines[start : start + _LINES])
            figure.text(0.07, 0.95, page, family="DejaVu Sans Mono", size=9, va="top", parse_math=False)
            pages.savefig(figure)
    return buffer.getvalue()


def _wrap(line: str) -> list[str]:
    indent = " " * (len(line) - len(line.lstrip()))
    return textwrap.wrap(line, _COLUMNS, subsequent_indent=indent + "    ") or [""]
