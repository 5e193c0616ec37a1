"""A radiologist's viewer shows what the node found: OHIF before Orthanc, in a real browser."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import highdicom as hd
import numpy as np
import pydicom
import pytest
from playwright.sync_api import Browser, Page
from pydicom import Dataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EncapsulatedPDFStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from tests.integration import viewer
from tests.integration.programs import Node, orthanc, running, send_all, wait_for
from tests.phantoms import broken_neck

#: How the viewer draws a measurement of its list.
BOX = (255, 255, 0)


@dataclass(frozen=True, kw_only=True)
class Room:
    """Where a study with all its results can be read."""

    browser: Browser
    address: str
    results: dict[str, Dataset]
    images: dict[str, Dataset]

    def study(self) -> AbstractContextManager[Page]:
        objects = [*self.images.values(), *self.results.values()]
        series = len({one.SeriesInstanceUID for one in objects})
        return viewer.reading(self.browser, self.address, objects[0].StudyInstanceUID, series)


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> Iterator[Room]:
    folder = tmp_path_factory.mktemp("room")
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in broken_neck()]
    with (
        orthanc(folder / "pacs", dicomweb=True) as pacs,
        viewer.serving(pacs.url) as address,
        viewer.chromium() as browser,
    ):
        kinds = ("seg", "sr", "sc", "csr", "pdf")
        with running(Node(folder / "node", destinations={"pacs": pacs.address}, results=kinds)) as node:
            send_all(broken_neck(), node.address)
            send_all(broken_neck(), pacs.address)
            assert node.answer(headers[0].StudyInstanceUID)["state"] == "done"
        saved = [pacs.save(i, folder / i) for modality in ("SEG", "SR", "OT", "DOC") for i in pacs.instances(modality)]
        results = {one.SOPClassUID: one for one in map(pydicom.dcmread, saved)}
        assert len(results) == len(saved) == len(kinds)
        yield Room(
            browser=browser, address=address, results=results, images={one.SOPInstanceUID: one for one in headers}
        )


def test_every_segment_has_its_name_its_colour_and_its_voxels(room):
    segmentation = room.results[SegmentationStorage]
    with room.study() as page:
        viewer.open_series(page, segmentation.SeriesNumber)
        viewer.accept(page)
        shown, held = viewer.segments(page), viewer.voxels(page)
    assert shown == {
        one.SegmentNumber: (one.SegmentLabel, "rgb({}, {}, {})".format(*colour_of(one)))
        for one in segmentation.SegmentSequence
    }
    assert held == voxels_of(segmentation)


@pytest.mark.parametrize("sop_class", [Comprehensive3DSRStorage, ComprehensiveSRStorage], ids=["sr", "csr"])
def test_the_report_leads_to_a_box_with_its_label_on_its_image(room, sop_class):
    report = room.results[sop_class]
    [box] = [item for item in items_of(report) if item.ValueType == "SCOORD"]
    [group] = [item for item in items_of(report) if box in item.get("ContentSequence", ())]
    [label] = [item.TextValue for item in group.ContentSequence if code_of(item) == "121106"]
    image = room.images[box.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID]
    with room.study() as page:
        viewer.open_series(page, report.SeriesNumber)
        viewer.wait_until_shown(page, image.SOPInstanceUID)
        viewer.accept(page)
        [found] = viewer.measurements(page)
    assert label.startswith("AI: C2 fracture ")
    assert (found["label"], found["image"], found["tool"]) == (label, image.SOPInstanceUID, "RectangleROI")
    assert (found["finding"], found["site"]) == ("72704001", ["39976000"])
    for corner in (np.min, np.max):
        np.testing.assert_allclose(corner(found["points"], axis=0), corner(points_of(box, image), axis=0), atol=0.01)


def test_the_key_image_is_shown_in_its_colours(room):
    key_image = room.results[SecondaryCaptureImageStorage]
    with room.study() as page:
        viewer.open_series(page, key_image.SeriesNumber)
        viewer.wait_until_shown(page, key_image.SOPInstanceUID)
        assert viewer.digest(page) == hashlib.sha256(key_image.PixelData).hexdigest()


def test_the_pdf_is_shown(room):
    pdf = room.results[EncapsulatedPDFStorage]
    with room.study() as page:
        viewer.open_series(page, pdf.SeriesNumber)
        assert viewer.document(page) == pdf.EncapsulatedDocument


def test_segments_and_box_lie_over_the_image(room, tmp_path):
    """And make the README's picture where DICOMNODE_OHIF_PICTURE says."""
    segmentation, report = room.results[SegmentationStorage], room.results[Comprehensive3DSRStorage]
    colours = {one.SegmentNumber: colour_of(one) for one in segmentation.SegmentSequence}
    assert len(set(colours.values())) == len(colours)
    with room.study() as page:
        viewer.open_series(page, segmentation.SeriesNumber)
        viewer.accept(page)
        viewer.segments(page)
        viewer.open_series(page, report.SeriesNumber)
        viewer.accept(page)
        [found] = viewer.measurements(page)
        here = {colours[segment] for image, segment in voxels_of(segmentation) if image == found["image"]}
        others = set(colours.values()) - here

        def drawn() -> bool:
            shown = viewer.colours(page)
            return here | {BOX} <= shown and not others & shown

        wait_for("the segments and the box on the screen", drawn)
        page.screenshot(path=os.environ.get("DICOMNODE_OHIF_PICTURE", tmp_path / "ohif.png"))
    assert here
    assert others


def test_an_error_and_a_request_elsewhere_are_noticed(room):
    with pytest.raises(AssertionError) as caught, room.study() as page:
        page.evaluate("console.error('planted message')")
        page.evaluate("fetch('http://elsewhere.invalid/').catch(() => null)")
        with page.expect_event("pageerror"):
            page.evaluate("setTimeout(() => { throw new Error('planted error') })")
    for expected in ("planted message", "planted error", "elsewhere.invalid"):
        assert expected in str(caught.value)


def colour_of(segment: Dataset) -> tuple[int, ...]:
    return hd.color.CIELabColor.from_dicom_value(segment.RecommendedDisplayCIELabValue).to_rgb()


def voxels_of(segmentation: Dataset) -> dict[tuple[str, int], tuple[int, int]]:
    """Return for each image and segment how many pixels there are, and the sum of their positions."""
    found = {}
    for frame, groups in zip(segmentation.pixel_array, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        image = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        places = np.flatnonzero(frame)
        segment = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        found[image, segment] = (len(places), int(places.sum()))
    return found


def items_of(item: Dataset) -> Iterator[Dataset]:
    for part in item.get("ContentSequence", ()):
        yield part
        yield from items_of(part)


def code_of(item: Dataset) -> str | None:
    return item.ConceptNameCodeSequence[0].CodeValue if "ConceptNameCodeSequence" in item else None


def points_of(box: Dataset, image: Dataset) -> np.ndarray:
    """Return the corners of a box in the patient, LPS mm; graphics count from the corner of the first pixel."""
    columns, rows = np.array(box.GraphicData, float).reshape(-1, 2).T - 0.5
    across, down = np.array(image.ImageOrientationPatient, float).reshape(2, 3)
    height, width = image.PixelSpacing
    return np.array(image.ImagePositionPatient) + np.outer(columns * width, across) + np.outer(rows * height, down)
