"""The label map holds the same segments, one number per voxel."""

from dataclasses import replace

import numpy as np
import pytest
from pydicom.pixels.utils import pixel_array

from inference.findings import Code, Mask
from sr.check import LABEL_MAP
from sr.label_map import labels
from sr.results import InvalidResult, write_results
from tests.sources import SHAPE, analysis_of, ct_headers, enhanced_volume, run_for, volume_of

VERTEBRA = Code(scheme="SCT", value="36978003", meaning="C5 vertebra")


def block(*, rows=slice(5, 30)):
    array = np.zeros(SHAPE, bool)
    array[2:9, rows, 5:40] = True
    return array


def written(volume, *masks):
    analysis = analysis_of(volume)
    analysis = replace(analysis, masks=(*analysis.masks, *masks))
    made = write_results(volume, analysis, run_for(volume.headers), ("SEG", "LABELMAP"))
    return [result.dataset for result in made]


def test_numbers_names_and_tracking_uids_are_those_of_the_binary_segments():
    binary, label_map = written(volume_of(ct_headers()), Mask(label="C5", array=block(), kind=VERTEBRA))
    assert (label_map.SOPClassUID, label_map.SegmentationType) == (LABEL_MAP, "LABELMAP")
    described = {x.SegmentNumber: (x.SegmentLabel, x.TrackingUID) for x in label_map.SegmentSequence if x.SegmentNumber}
    assert described == {x.SegmentNumber: (x.SegmentLabel, x.TrackingUID) for x in binary.SegmentSequence}
    assert binary.SeriesInstanceUID != label_map.SeriesInstanceUID


@pytest.mark.parametrize("source", ["single-frame", "enhanced"])
def test_every_voxel_has_its_number(source):
    headers = ct_headers()
    volume = volume_of(headers) if source == "single-frame" else enhanced_volume(headers, range(11, -1, -1))
    _, label_map = written(volume, Mask(label="C5", array=block(), kind=VERTEBRA))
    pixels = pixel_array(label_map)
    places = [g.PlanePositionSequence[0].ImagePositionPatient[2] for g in label_map.PerFrameFunctionalGroupsSequence]
    expected = labels([analysis_of(volume).masks[0].array, block()])
    for plane, height in zip(pixels, places, strict=True):
        assert np.array_equal(plane, expected[round((height - 400) / 2)])


def test_where_segments_overlap_the_first_one_lies_on_top():
    first, second = np.array([1, 1, 0, 0], bool), np.array([0, 1, 1, 0], bool)
    assert labels([first, second]).tolist() == [1, 1, 2, 0]


def test_a_segment_that_lies_wholly_under_others_is_refused_and_the_rest_goes_out():
    volume, refused = volume_of(ct_headers()), []
    analysis = analysis_of(volume)
    hidden = replace(analysis.masks[0], label="hidden", tracking_id="hidden")
    analysis = replace(analysis, masks=(*analysis.masks, hidden))
    kinds = ("SEG", "LABELMAP", "SR")
    made = write_results(volume, analysis, run_for(volume.headers), kinds, refused.append)
    assert [result.kind for result in made] == ["SEG", "SR"]
    assert "lies wholly under others" in str(refused[0])
    with pytest.raises(InvalidResult, match="hidden"):
        write_results(volume, analysis, run_for(volume.headers), kinds)


def test_more_than_255_segments_need_two_bytes():
    assert labels([np.ones((1, 1, 1), bool)] * 256).dtype == np.uint16


def test_without_masks_there_is_no_object():
    volume = volume_of(ct_headers())
    assert write_results(volume, analysis_of(volume, masks=False), run_for(volume.headers), ("LABELMAP",)) == ()
