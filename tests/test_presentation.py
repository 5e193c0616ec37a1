"""The presentation state draws each finding on the images that show it."""

from dataclasses import replace

import pytest

from sr import presentation
from sr.results import write_results
from tests.sources import SPACING, analysis_of, ct_headers, enhanced_volume, run_for, volume_of


def written(volume, analysis=None):
    (result,) = write_results(volume, analysis or analysis_of(volume), run_for(volume.headers), ("GSPS",))
    return result.dataset


def test_every_slice_of_a_finding_shows_its_box_and_label():
    headers = ct_headers()
    state = written(volume_of(headers))
    shown = {a.ReferencedImageSequence[0].ReferencedSOPInstanceUID for a in state.GraphicAnnotationSequence}
    assert shown == {header.SOPInstanceUID for header in headers[3:7]}
    for annotation in state.GraphicAnnotationSequence:
        assert annotation.GraphicObjectSequence[0].GraphicData == [12, 10, 30, 10, 30, 22, 12, 22, 12, 10]
        assert annotation.TextObjectSequence[0].UnformattedTextValue == "AI: C5 fracture 93%"


def test_the_boxes_carry_the_tracking_uid_of_the_segment():
    volume = volume_of(ct_headers())
    segments, state = (
        x.dataset for x in write_results(volume, analysis_of(volume), run_for(volume.headers), ("SEG", "GSPS"))
    )
    tracked = {x.GraphicObjectSequence[0].TrackingUID for x in state.GraphicAnnotationSequence}
    assert tracked == {segments.SegmentSequence[0].TrackingUID}


def test_only_images_with_a_finding_are_referenced():
    headers = ct_headers()
    (series,) = written(volume_of(headers)).ReferencedSeriesSequence
    referenced = [item.ReferencedSOPInstanceUID for item in series.ReferencedImageSequence]
    assert referenced == [header.SOPInstanceUID for header in headers[3:7]]


def test_frames_of_one_file_are_named_in_one_item():
    volume = enhanced_volume(ct_headers(), order=range(11, -1, -1))
    state = written(volume)
    (item,) = state.ReferencedSeriesSequence[0].ReferencedImageSequence
    assert item.ReferencedSOPInstanceUID == volume.headers[0].SOPInstanceUID
    assert list(item.ReferencedFrameNumber) == [6, 7, 8, 9]  # slices 3 to 6 of 12, reversed
    drawn_on = [x.ReferencedImageSequence[0].ReferencedFrameNumber for x in state.GraphicAnnotationSequence]
    assert drawn_on == [9, 8, 7, 6]


def test_two_findings_on_one_slice_are_both_drawn():
    volume = volume_of(ct_headers())
    analysis = analysis_of(volume)
    second = replace(
        analysis.findings[0], tracking_id="fracture-2", level="C6", box=((3, 2, 2), (4, 8, 9)), key_slice=3
    )
    state = written(volume, replace(analysis, findings=(*analysis.findings, second)))
    assert len(state.GraphicAnnotationSequence) == 5
    assert len(state.ReferencedSeriesSequence[0].ReferencedImageSequence) == 4


def test_stored_values_become_hu_before_the_bone_window():
    state = written(volume_of(ct_headers(patient={"RescaleSlope": 1, "RescaleIntercept": -1024, "RescaleType": "HU"})))
    assert (state.RescaleSlope, state.RescaleIntercept, state.RescaleType) == (1, -1024, "HU")
    assert (state.SoftcopyVOILUTSequence[0].WindowCenter, state.SoftcopyVOILUTSequence[0].WindowWidth) == (600, 1800)


def test_mr_keeps_the_window_of_the_viewer():
    assert "SoftcopyVOILUTSequence" not in written(volume_of(ct_headers(patient={"Modality": "MR"})))


def test_pixels_that_are_not_square_are_not_shown_square():
    (area,) = written(volume_of(ct_headers())).DisplayedAreaSelectionSequence
    assert area.PresentationPixelSpacing == list(SPACING[1:])
    assert "PresentationPixelAspectRatio" not in area


def test_a_negative_answer_has_nothing_to_draw():
    volume = volume_of(ct_headers())
    assert presentation.write(volume, analysis_of(volume, positive=False), run_for(volume.headers)) is None


@pytest.mark.parametrize("slopes", [(1, 2)])
def test_images_with_different_rescaling_get_no_state_and_the_rest_goes_out(slopes):
    headers = ct_headers()
    for index, header in enumerate(headers):
        header.RescaleSlope, header.RescaleIntercept = slopes[index % 2], 0
    volume, refused = volume_of(headers), []
    kinds = ("SEG", "SR", "GSPS")
    made = write_results(volume, analysis_of(volume), run_for(headers), kinds, refused.append)
    assert [result.kind for result in made] == ["SEG", "SR"]
    assert str(refused[0]).startswith("GSPS: ")
