"""The parametric map shows the network's attention, value for value, on the right image."""

from dataclasses import replace

import numpy as np
import pytest

from sr import heat_map
from sr.check import InvalidResult, check
from sr.results import write_results
from tests.sources import (
    FEET_FIRST,
    OBLIQUE,
    SAGITTAL,
    SHAPE,
    analysis_of,
    ct_headers,
    enhanced_volume,
    run_for,
    volume_of,
)

HEAT = np.random.default_rng(5).random(SHAPE).astype(np.float32)


def written(volume, heat=HEAT):
    analysis = replace(analysis_of(volume), heat_map=heat)
    (result,) = write_results(volume, analysis, run_for(volume.headers), ("PMAP",))
    return result.dataset


@pytest.mark.parametrize(
    "geometry",
    [{}, {"orientation": SAGITTAL}, {"orientation": OBLIQUE}, {"orientation": FEET_FIRST}, {"tilt": 0.4}],
    ids=["axial", "sagittal", "oblique", "feet-first", "tilted"],
)
def test_frames_follow_the_slices_and_keep_every_value(geometry):
    headers = ct_headers(**geometry)
    dataset = written(volume_of(headers))
    pixels = np.frombuffer(dataset.FloatPixelData, np.float32).reshape(SHAPE)
    assert np.array_equal(pixels, HEAT)
    for header, groups in zip(headers, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        assert groups.PlanePositionSequence[0].ImagePositionPatient == pytest.approx(header.ImagePositionPatient)
        source = groups.DerivationImageSequence[0].SourceImageSequence[0]
        assert source.ReferencedSOPInstanceUID == header.SOPInstanceUID


def test_frames_of_one_file_are_referenced_by_number():
    volume = enhanced_volume(ct_headers(), order=range(11, -1, -1))
    numbers = [
        groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        for groups in written(volume).PerFrameFunctionalGroupsSequence
    ]
    assert numbers == list(range(12, 0, -1))


def test_the_first_frame_of_an_axial_series_is_the_lowest():
    heights = [g.PlanePositionSequence[0].ImagePositionPatient[2] for g in
               written(volume_of(ct_headers())).PerFrameFunctionalGroupsSequence]  # fmt: skip
    assert heights == sorted(heights)


def test_the_quantity_is_grad_cam_without_a_unit():
    mapping = written(volume_of(ct_headers())).SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0].CodeValue == "130403"
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "1"


def test_the_region_that_was_examined_is_named():
    (anatomy,) = written(volume_of(ct_headers())).SharedFunctionalGroupsSequence[0].FrameAnatomySequence
    assert (anatomy.AnatomicRegionSequence[0].CodeMeaning, anatomy.FrameLaterality) == ("Cervical spine", "U")


def test_without_a_map_or_a_frame_of_reference_there_is_no_object():
    volume = volume_of(ct_headers())
    assert heat_map.write(volume, analysis_of(volume), run_for(volume.headers)) is None
    nowhere = volume_of(ct_headers(patient={"FrameOfReferenceUID": None}))
    assert heat_map.write(nowhere, replace(analysis_of(nowhere), heat_map=HEAT), run_for(nowhere.headers)) is None


def test_a_mirrored_map_is_refused():
    volume = volume_of(ct_headers())
    dataset = written(volume)
    dataset.PerFrameFunctionalGroupsSequence = list(dataset.PerFrameFunctionalGroupsSequence)[::-1]
    with pytest.raises(InvalidResult, match="another order"):
        check(dataset, sources={x.SOPInstanceUID: x for x in volume.headers}, volume=volume, masks=())


def test_a_map_of_another_shape_is_refused_and_the_rest_goes_out():
    volume, refused = volume_of(ct_headers()), []
    analysis = replace(analysis_of(volume), heat_map=HEAT[:5])
    made = write_results(volume, analysis, run_for(volume.headers), ("SEG", "SR", "PMAP"), refused.append)
    assert [result.kind for result in made] == ["SEG", "SR"]
    assert str(refused[0]).startswith("PMAP: ")
