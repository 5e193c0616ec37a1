"""The gate of the MR detectors: what it is fitted to, and that patients whom the papers leave out are counted apart."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from inference.datasets.labelled import UnusableData
from inference.datasets.mr_store import prepare_mr
from inference.evaluation.spine_detection import within_range
from inference.novelty import Novelty
from inference.preprocess.mr_content import QUANTITIES
from inference.spine_mr import Look
from inference.training import spine_gate
from tests.cases import silent
from tests.mr_studies import study, write

MANIFEST = {"novelty": {"threshold": 5.0}, "content": {"fluid": [0.0, 2.0]}}


@pytest.fixture
def studies(tmp_path):
    """Three: nothing in the way, operated, and operated with scoliosis."""
    for number, met in enumerate(((), ("surgery",), ("surgery", "scoliosis"))):
        write(tmp_path, replace(study("lumbar", number), exclusions=met))
    return prepare_mr("phantom_mr:lumbar:standard@0+3", cache=tmp_path, progress=silent)


def look(fluid: float, far: float) -> Look:
    return Look(content=dict.fromkeys(QUANTITIES, 1.0) | {"fluid": fluid}, features=torch.full((2,), far))


def test_the_gate_learns_from_included_patients_only(studies):
    assert [one.exclusions for one in studies] == [(), ("surgery",), ("surgery", "scoliosis")]
    assert spine_gate.included(studies) == studies[:1]
    with pytest.raises(UnusableData, match="the part gate has 1 sagittal T2 series of patients without surgery"):
        spine_gate.require("gate", studies)


def test_series_that_the_papers_leave_out_are_counted_apart(studies):
    gate = Novelty(features=2)
    looked = [[look(1.0, 0.0)], [look(9.0, 0.0)], [look(1.0, 100.0)]]
    assert within_range(studies, looked, gate, MANIFEST) == {
        "series": 1,
        "content": 1.0,
        "features": 1.0,
        "excluded": {
            "surgery": {"series": 2, "content": 0.5, "features": 0.5},
            "scoliosis": {"series": 1, "content": 1.0, "features": 0.0},
        },
    }
    with pytest.raises(UnusableData, match="every one of 2 studies meets an exclusion"):
        within_range(studies[1:], looked[1:], gate, MANIFEST)


def test_a_companion_has_limits_of_its_own(studies):
    found = spine_gate.companions(studies)
    assert found.keys() == {"T1"}
    assert found["T1"].keys() == set(QUANTITIES)
