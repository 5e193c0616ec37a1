"""MR phantoms as a data set: what is asked for by a text, and what a study of it holds."""

from __future__ import annotations

import numpy as np
import pytest

from inference.datasets.labelled import UnusableData
from inference.datasets.labelled_mr import VERTEBRAE
from inference.datasets.phantom_mr import exclusions, open_dataset
from inference.phantom.mr.measurement import group
from inference.phantom.mr.sampling import sample_spec


def test_a_data_set_of_phantoms_is_labelled_studies():
    dataset = open_dataset("lumbar:easy@21+2")
    assert dataset.names == ["lumbar-mr-v1-easy-21", "lumbar-mr-v1-easy-22"]
    study = dataset.load(dataset.names[0])
    assert [(one.sequence, one.plane) for one in study.series] == [
        ("T1", "sagittal"),
        ("T2", "sagittal"),
        ("STIR", "sagittal"),
        ("T2", "axial"),
        ("T1", "axial"),
        ("STIR", "axial"),
    ]
    for one in study.series:
        assert one.values.dtype == np.float32
        assert one.structures.shape == one.values.shape
        assert all(0 <= box.slice < len(one.values) for box in one.boxes)
        assert all(box.left < box.right and box.top < box.bottom for box in one.boxes)
    assert {"L3/L4", "L4/L5"} <= set(study.measurements)
    assert {box.level for box in study.series[1].boxes} <= set(study.measurements)
    # The affine leads from the middle of a vertebra in the map to where it was put.
    spec = sample_spec(21, "lumbar", "easy")
    places = np.argwhere(study.series[0].structures == VERTEBRAE["L3"])
    body = study.series[0].affine[:3] @ np.append(np.median(places, axis=0), 1)
    expected = np.add(spec.vertebra("L3").centre, spec.scan.table)
    assert np.abs(body - expected).max() < 15


def test_phantoms_with_an_injured_cord_can_be_asked_for():
    everybody, injured = open_dataset("cervical:standard@0+40"), open_dataset("cervical:standard:injured@0+40")
    assert set(injured.names) < set(everybody.names)
    groups = {name: group(sample_spec(int(name.rsplit("-", 1)[1]), "cervical")) for name in everybody.names}
    assert {name for name, one in groups.items() if one == "injured"} == set(injured.names) != set()


def test_phantoms_that_the_papers_would_have_left_out_say_why():
    specs = {region: [sample_spec(seed, region) for seed in range(60)] for region in ("cervical", "lumbar")}
    met = {region: {one for spec in some for one in exclusions(spec)} for region, some in specs.items()}
    assert met == {"cervical": {"surgery", "tumour", "motion"}, "lumbar": {"surgery", "scoliosis", "motion"}}
    for spec in (*specs["cervical"], *specs["lumbar"]):
        assert ("surgery" in exclusions(spec)) == (spec.implant is not None)
        moved = any(one.motion for one in spec.scan.acquisitions if one.plane == "sagittal")
        assert ("motion" in exclusions(spec)) == moved


@pytest.mark.parametrize(
    "place",
    [
        "cervical:standard:ill@0+1",
        "lumbar",
        "thoracic:easy@0+1",
        "lumbar:odd@0+1",
        "lumbar:easy@0",
        "lumbar:easy@8999999+2",
    ],
)
def test_a_data_set_that_is_not_there_is_refused(place):
    with pytest.raises(UnusableData, match="phantom_mr"):
        open_dataset(place)
