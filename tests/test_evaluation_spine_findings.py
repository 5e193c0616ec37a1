"""Levels and measures of findings against what a reader says of the same places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from inference import spine_series
from inference.datasets import mr_store
from inference.datasets.labelled_mr import ImageBox
from inference.evaluation import spine_findings
from inference.evaluation.spine_findings import Judged, JudgedSeries, judge, lines, measure
from inference.linked_boxes import Linked, SliceBox
from inference.spine_findings import Found
from inference.spine_levels import LEVELS, Outlines
from inference.spine_mr import LUMBAR_DISC
from inference.spine_series import Model, Searched
from inference.spine_signals import Grid
from tests.cases import silent
from tests.mr_studies import SHAPE, SPACING, study, write
from tests.test_spine_series import model

FOUND, TRUE = {"herniation_mm": 4.0, "slip_mm": 2.0, "slip_percent": 26.0}, {"herniation_mm": 5.0, "slip_percent": 20.0}


def judged(**changes: object) -> Judged:
    values = {
        "patient": "a",
        "label": "disc",
        "true_label": "disc",
        "level": "L4/L5",
        "true_level": "L4/L5",
        "measured": FOUND,
        "true": TRUE,
    }
    return Judged(**values | changes)


def series(*found: Judged, exclusions: Sequence[str] = (), named: bool = True, bends: bool = False) -> JudgedSeries:
    return JudgedSeries(found=found, exclusions=exclusions, named=named, bends=bends)


def test_levels_are_counted_and_errors_are_those_of_rightly_named_discs():
    found = measure([series(
        judged(label="herniation"),
        judged(true_label="herniation", true={"herniation_mm": 2.0}, patient="b"),
        judged(label="herniation", level="L5/S1"),
        judged(label="slip", true_label="slip"),
        judged(label="slip", level=None, measured={}, true={}),
        judged(),
    )])  # fmt: skip
    assert (found["findings"], found["patients"], found["named"], found["rightly_named"]) == (6, 2, 5, 4)
    reach = found["errors"]["herniation_mm"]
    assert (reach["discs"], reach["bias"], reach["mean_absolute"]) == (2, 0.5, 1.5)
    assert found["errors"]["slip_mm"] == {"discs": 0}  # the data set does not say it
    assert found["errors"]["slip_percent"]["bias"] == 6.0
    assert found["meyerding_agreement"] == 0.0
    text = "\n".join(lines(found))
    assert "5 were given a level: 4 the right one, 1 a wrong one" in text
    assert "| slip, mm | 0 | n/a | n/a | n/a to n/a |" in text


def test_series_that_the_papers_leave_out_are_counted_by_what_their_outlines_say():
    met = ["scoliosis", "motion"]
    found = measure([series(exclusions=met, bends=True), series(exclusions=met), series(named=False)])
    assert found["outlines"]["scoliosis"] == {"series": 2, "without_names": 0, "bend": 1}
    assert found["outlines"]["surgery"] == {"series": 0, "without_names": 0, "bend": 0}
    assert found["outlines"]["none of these"] == {"series": 1, "without_names": 1, "bend": 0}
    assert "| scoliosis | 2 | 0 | 1 |" in lines(found)[-1]


def test_nothing_found_is_no_number():
    found = measure([])
    assert (found["findings"], found["meyerding_agreement"]) == (0, None)
    assert lines(found)


def test_a_finding_is_judged_by_the_box_over_which_it_lies(tmp_path, monkeypatch):
    made = study("lumbar", 3, labels=())
    drawn = ImageBox(slice=2, left=8, top=34, right=26, bottom=42, label="slip", level="L4/L5")
    series = replace(made.series[1], boxes=(drawn, replace(drawn, top=10, bottom=18, level=None)))
    write(tmp_path, replace(made, series=(made.series[0], series)))
    (stored,) = mr_store.prepare_mr("phantom_mr:lumbar:standard@3+1", cache=tmp_path, progress=silent)

    def search(given: Model, series: dict[str, Grid]) -> Searched:
        assert {name: grid.array.shape for name, grid in series.items()} == {"T1": SHAPE, "T2": SHAPE}
        labels = np.zeros(SHAPE, np.uint8)
        for level, top, bottom in (("L4", 20, 34), ("L4/L5", 34, 42), ("L5", 42, 56)):
            labels[:, top:bottom, 8:26] = 1 + LEVELS.index(level)
        boxes = [SliceBox(slice=2, edges=(9, 34, 26, 42), label="slip", probability=p, raw=p) for p in (0.9, 0.3)]
        away = [
            replace(boxes[0], edges=(40, 34, 57, 42)),
            replace(boxes[0], slice=4),
            replace(boxes[0], edges=(8, 10, 26, 18)),
        ]
        found = [
            Found(
                linked=Linked(boxes=(box,)),
                shown=Linked(boxes=(box,)),
                label="slip",
                probability=box.probability,
                level="L4/L5",
            )
            for box in (*boxes, *away)
        ]
        outlines = Outlines(labels=labels, spacing=SPACING)
        return Searched(
            series=series,
            found=found,
            outlines=outlines,
            slices=np.zeros(5),
            case=0.9,
            decision=given.alone,
            timings={},
        )

    monkeypatch.setattr(spine_series, "search", search)
    (whole,) = judge(model(LUMBAR_DISC), stored)
    (one,) = whole.found
    assert (one.label, one.true_label, one.level, one.true_level) == ("slip", "slip", "L4/L5", "L4/L5")
    assert one.measured["slip_mm"] == pytest.approx(0, abs=0.01)
    assert one.true == {"slip_mm": 1.5}
    assert spine_findings.measure([whole])["errors"]["slip_mm"]["bias"] == pytest.approx(-1.5, abs=0.01)
