"""Segments lie where the masks are, whatever way the patient or the scanner was turned."""

from dataclasses import replace

import highdicom as hd
import numpy as np
import pydicom
import pytest

from inference.findings import Code, Mask
from sr import segmentation
from sr.check import check
from sr.results import save, write_results
from tests.sources import (
    AXIAL,
    FEET_FIRST,
    MODEL,
    OBLIQUE,
    SAGITTAL,
    SHAPE,
    analysis_of,
    ct_headers,
    enhanced_volume,
    run_for,
    volume_of,
)

GEOMETRIES = {
    "axial": {"orientation": AXIAL},
    "sagittal": {"orientation": SAGITTAL},
    "oblique": {"orientation": OBLIQUE},
    "feet first": {"orientation": FEET_FIRST},
    "tilted gantry": {"orientation": AXIAL, "tilt": 0.7},
    "uneven slices": {"positions": [0, 2.1, 3.9, 6, 8.15, 10, 12, 13.9, 16, 18, 20.1, 22]},
}


def written(volume, analysis=None):
    result = segmentation.write(volume, analysis or analysis_of(volume), run_for(volume.headers))
    assert result is not None
    return result


def frames_of(dataset):
    """Yield position, segment number, source UID, source frame and pixels of every frame."""
    pixels = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    for plane, groups in zip(pixels, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        source = groups.DerivationImageSequence[0].SourceImageSequence[0]
        identification = (groups if "SegmentIdentificationSequence" in groups else shared).SegmentIdentificationSequence
        yield (
            [float(x) for x in groups.PlanePositionSequence[0].ImagePositionPatient],
            identification[0].ReferencedSegmentNumber,
            source.ReferencedSOPInstanceUID,
            source.get("ReferencedFrameNumber"),
            plane.astype(bool),
        )


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_every_frame_lies_on_its_source_image(geometry):
    headers = ct_headers(**GEOMETRIES[geometry])
    volume = volume_of(headers)
    mask = analysis_of(volume).masks[0].array
    index_of = {header.SOPInstanceUID: index for index, header in enumerate(headers)}
    seen = set()
    for position, _, uid, frame, plane in frames_of(written(volume)):
        index = index_of[uid]
        assert position == pytest.approx([float(x) for x in headers[index].ImagePositionPatient])
        assert np.array_equal(plane, mask[index])
        assert frame is None
        seen.add(index)
    assert seen == set(np.flatnonzero(mask.any(axis=(1, 2))))  # and no empty frame


@pytest.mark.parametrize("geometry", [x for x in GEOMETRIES if x != "uneven slices"])
def test_an_independent_reader_finds_the_voxels_at_the_same_place(geometry, tmp_path):
    headers = ct_headers(**GEOMETRIES[geometry])
    volume = volume_of(headers)
    results = write_results(volume, analysis_of(volume), run_for(headers))
    save(results[0], tmp_path / "seg.dcm")
    read = hd.seg.segread(tmp_path / "seg.dcm")
    pixels = read.get_pixels_by_source_instance([header.SOPInstanceUID for header in headers])
    assert np.array_equal(pixels[..., 0].astype(bool), analysis_of(volume).masks[0].array)


@pytest.mark.parametrize("order", [range(12), range(11, -1, -1), (3, 0, 7, 1, 11, 2, 4, 10, 5, 6, 9, 8)])
def test_frames_of_an_enhanced_image_are_referenced_by_number(order):
    plain = ct_headers(orientation=OBLIQUE)
    volume = enhanced_volume(plain, order)
    result = written(volume)
    mask = analysis_of(volume).masks[0].array
    for position, _, uid, frame, plane in frames_of(result):
        index = order[frame - 1]
        assert uid == volume.headers[0].SOPInstanceUID
        assert position == pytest.approx([float(x) for x in plain[index].ImagePositionPatient])
        assert np.array_equal(plane, mask[index])
    (series,) = result.ReferencedSeriesSequence
    assert len(series.ReferencedInstanceSequence) == 1
    check(result, sources={volume.headers[0].SOPInstanceUID: volume.headers[0]}, volume=volume,
          masks=analysis_of(volume).masks)  # fmt: skip


def test_overlapping_segments_stay_apart():
    volume = volume_of(ct_headers())
    analysis = analysis_of(volume)
    whole = np.zeros(SHAPE, bool)
    whole[2:9, 5:30, 5:40] = True
    vertebra = Mask(label="C5", array=whole, kind=Code(scheme="SCT", value="36978003", meaning="C5 vertebra"))
    analysis = replace(analysis, masks=(*analysis.masks, vertebra))
    result = written(volume, analysis)
    assert result.SegmentsOverlap == "YES"
    counts = {1: 0, 2: 0}
    for _, number, _, _, plane in frames_of(result):
        counts[number] += plane.sum()
    assert counts == {1: analysis.masks[0].array.sum(), 2: whole.sum()}


def test_a_segment_says_what_it_is_who_drew_it_and_which_finding_it_belongs_to():
    volume = volume_of(ct_headers())
    (segment,) = written(volume).SegmentSequence
    assert segment.SegmentLabel == "C5 fracture"
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Fracture"
    assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
    assert segment.AnatomicRegionSequence[0].CodeMeaning == "C5 vertebra"
    assert segment.SegmentAlgorithmType == "AUTOMATIC"
    assert segment.TrackingID == "fracture-1"
    algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == (MODEL.name, MODEL.version)
    assert algorithm.AlgorithmSource == MODEL.manufacturer


def test_anatomy_that_is_no_finding_is_an_anatomical_structure():
    volume = volume_of(ct_headers())
    analysis = analysis_of(volume)
    mask = replace(analysis.masks[0], kind=Code(scheme="SCT", value="2748008", meaning="Spinal cord"), tracking_id=None)
    (segment,) = written(volume, replace(analysis, masks=(mask,))).SegmentSequence
    assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "91723000"
    assert segment.TrackingID == "segment-1"


def test_the_object_is_binary_and_says_it_is_for_research():
    result = written(volume_of(ct_headers()))
    assert result.SegmentationType == "BINARY"
    assert result.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
    assert "Research use only" in result.SeriesDescription
    assert "Research use only" in result.ContentDescription


def test_the_description_says_that_an_answer_has_limits():
    volume = volume_of(ct_headers())
    limited = analysis_of(volume)
    assert limited.quality
    assert written(volume, limited).ContentDescription.startswith("Limited analysis: see report. Fracture.")
    assert written(volume, replace(limited, quality=())).ContentDescription.startswith("Fracture. Research use only")


def test_a_mask_without_a_voxel_makes_no_segment():
    volume = volume_of(ct_headers())
    analysis = analysis_of(volume)
    empty = replace(analysis.masks[0], array=np.zeros(SHAPE, bool), label="empty")
    result = written(volume, replace(analysis, masks=(empty, *analysis.masks)))
    assert [segment.SegmentLabel for segment in result.SegmentSequence] == ["C5 fracture"]
    assert segmentation.write(volume, replace(analysis, masks=(empty,)), run_for(volume.headers)) is None


def test_without_masks_there_is_no_object():
    volume = volume_of(ct_headers())
    assert segmentation.write(volume, analysis_of(volume, positive=False), run_for(volume.headers)) is None


def test_without_a_frame_of_reference_the_report_says_why_there_is_no_segmentation():
    headers = ct_headers(patient={"FrameOfReferenceUID": None})
    volume = volume_of(headers)
    (only,) = write_results(volume, analysis_of(volume), run_for(headers))
    assert only.kind == "SR"
    assert any("Frame of Reference" in x.get("TextValue", "") for x in only.dataset.ContentSequence[-1].ContentSequence)


def test_more_than_one_frame_of_reference_is_a_reason_for_no_segmentation_too():
    headers = ct_headers()
    headers[5].FrameOfReferenceUID = "1.2.3"
    volume = volume_of(headers)
    (only,) = write_results(volume, analysis_of(volume), run_for(headers))
    assert only.kind == "SR"
    texts = [x.get("TextValue", "") for x in only.dataset.ContentSequence[-1].ContentSequence]
    assert any("more than one Frame of Reference" in text for text in texts)


def test_hundreds_of_frames_are_one_object():
    headers = ct_headers(420, rows=16, columns=16)
    volume = volume_of(headers)
    array = np.zeros(volume.array.shape, bool)
    array[:, 3:9, 2:7] = True
    analysis = analysis_of(volume, masks=False)
    mask = Mask(label="column", array=array, kind=Code(scheme="SCT", value="36978003", meaning="C5 vertebra"))
    (segments,) = write_results(volume, replace(analysis, masks=(mask,)), run_for(headers), ("SEG",))
    assert segments.dataset.NumberOfFrames == 420
