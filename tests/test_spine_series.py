"""The answer about an MR series, from given boxes and outlines: what is refused, reported, named and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydicom import Dataset

from inference import codes, spine_correction, spine_levels, spine_mr, spine_series
from inference.calibrated import platt
from inference.findings import Analysis
from inference.linked_boxes import SliceBox
from inference.novelty import Novelty
from inference.pipelines import cord_injury_mr, lumbar_disc_mr
from inference.spine_levels import LEVELS, Outlines
from inference.spine_mr import CORD_INJURY, LUMBAR_DISC, SUBJECTS, Answer, Look
from inference.spine_series import Decision, Model
from inference.volume import Volume
from tests.sources import MODEL

CONFIG = Path(__file__).resolve().parents[1] / "config"
SHAPE, SPACING = (6, 120, 100), (4.0, 1.0, 1.0)
COLUMN = {CORD_INJURY: ("C4", "C5", "C6"), LUMBAR_DISC: ("L4", "L5", "S1")}
ANALYSE = {CORD_INJURY: cord_injury_mr._analyse, LUMBAR_DISC: lumbar_disc_mr._analyse}


def outlines(task: str) -> Outlines:
    """Three vertebrae of 25 mm with discs of 10 mm between them, the middle one 6 mm too far back."""
    labels = np.zeros(SHAPE, np.uint8)
    for n, level in enumerate(COLUMN[task]):
        back = 6 if n == 1 else 0
        labels[1:5, 10 + 35 * n : 35 + 35 * n, 20 + back : 51 + back] = 1 + LEVELS.index(level)
    for n, pair in enumerate(zip(COLUMN[task][:-1], COLUMN[task][1:], strict=True)):
        labels[1:5, 35 + 35 * n : 45 + 35 * n, 20:57] = 1 + LEVELS.index("/".join(pair))
    return Outlines(labels=labels, spacing=SPACING, notes=("said of the names",))


def model(
    task: str, *, threshold: float = 0.5, novelty: float = 1e9, corrected: Mapping[str, Decision] | None = None
) -> Model:
    """A model whose networks are never asked: `answered` speaks for them."""
    plain = {"bias": 0.0, "weight": 1.0}
    manifest = {
        "input": {
            "modality": "MR",
            "plane": "sagittal",
            "size": [64, 64],
            "min_slices": 5,
            "slice_spacing_mm": [3, 5],
            "pixel_spacing_mm": [0.5, 2],
            "coverage_mm": [50, 500],
            "max_tilt_degrees": 20,
        },
        "content": {"fluid": [0.0, 2.0]},
        "novelty": {"threshold": novelty},
        "calibration": {
            "classes": dict.fromkeys(SUBJECTS[task].classes, plain),
            "case": {"bias": -1.0, "weight": 1.0},
            "indeterminate": [0.0, 0.0],
        },
        "signals": {"real": "fitted", "content": {"T1": {"fluid": [0.0, 2.0]}}},
    }
    return Model(
        task=task,
        identity=MODEL,
        manifest=manifest,
        alone=Decision(
            boxes=dict.fromkeys(SUBJECTS[task].classes, 0.5), study=threshold, calibration=manifest["calibration"]
        ),
        corrected=corrected or {},
        detector=torch.nn.Identity(),
        again=None,
        gate=Novelty(features=2),
        levels=torch.nn.Identity(),
        levels_mm=1.5,
        codes=codes.read(CONFIG),
    )


def volume(*, turned: bool = False, **header: object) -> Volume:
    """A sagittal series with dark discs; `turned` one runs from left to right, feet to head."""
    affine = np.eye(4)
    affine[:3, :3] = np.array([[SPACING[0], 0, 0], [0, 0, SPACING[2]], [0, -SPACING[1], 0]])
    array = np.prod(SHAPE) + np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    for top in (35, 70):
        array[1:5, top : top + 10, 20:57] = 1000
    if turned:
        for axis in (0, 1):
            affine[:3, 3] += affine[:3, axis] * (SHAPE[axis] - 1)
            affine[:3, axis] *= -1
        array = np.flip(array, (0, 1))
    one = Dataset()
    one.Modality = "MR"
    for keyword, value in header.items():
        setattr(one, keyword, value)
    return Volume(array=array, affine=affine, headers=(one,) * len(array), frames=(None,) * len(array))


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch):
    """Return a function that analyses with given boxes: (slice, label, score, top, left, bottom, right)."""

    def analyse(task: str, boxes: Sequence[tuple], given: Volume | None = None, **changes: object) -> Analysis:
        content = {"fluid": changes.pop("fluid", 1.0), "structure_percent": 90.0}
        features = torch.full((2,), float(changes.pop("far", 0.0)))

        def answers(_: object, values: np.ndarray, spacing: Sequence[float], **__: object) -> list[Answer]:
            assert np.array_equal(values, volume().array)
            assert tuple(spacing) == SPACING[1:]
            mine = [[box for box in boxes if box[0] == n] for n in range(len(values))]
            return [
                Answer(
                    edges=np.array([(b[4], b[3], b[6], b[5]) for b in one], float).reshape(-1, 4),
                    labels=np.array([b[1] for b in one], str),
                    scores=np.array([b[2] for b in one], float),
                )
                for one in mine
            ]

        monkeypatch.setattr(spine_mr, "look", lambda *_, **__: Look(content=content, features=features))
        monkeypatch.setattr(spine_mr, "answers", answers)
        monkeypatch.setattr(spine_levels, "outline", lambda *_: outlines(task))
        companions = changes.pop("companions", {})
        return ANALYSE[task](model(task, **changes), given or volume(), companions)

    return analyse


LESION = [(2, "oedema", 0.9, 48, 60, 66, 68), (3, "oedema", 0.8, 50, 60, 66, 68)]
PROLAPSE = [(3, "herniation", 0.7, 78, 20, 92, 58), (2, "herniation", 0.6, 78, 20, 92, 58)]


def test_a_lesion_is_reported_with_place_size_and_group(answered):
    found = answered(CORD_INJURY, LESION)
    assert (found.pipeline, found.state, found.positive, found.group) == (CORD_INJURY, "done", True, "injured")
    assert found.case_probability == pytest.approx(platt(0.9, {"bias": -1.0, "weight": 1.0}))
    assert found.slice_probabilities == pytest.approx((0, 0, 0.9, 0.8, 0, 0))
    (lesion,) = found.findings
    assert (lesion.code.meaning, lesion.site.meaning, lesion.level) == ("Edema", "Spinal cord", "C5")
    assert (lesion.box, lesion.key_slice) == (((2, 48, 60), (4, 66, 68)), 2)
    assert [(m.name.meaning, m.value, m.unit) for m in lesion.measurements] == [("Length", 18.0, "mm")]
    assert "said of the names" in found.quality


def test_boxes_that_are_not_sure_enough_do_not_stretch_a_finding(answered):
    found = answered(CORD_INJURY, [*LESION, (4, "oedema", 0.2, 30, 60, 80, 68)])
    (lesion,) = found.findings
    assert lesion.box == ((2, 48, 60), (4, 66, 68))
    assert lesion.measurements[0].value == 18.0


def test_places_are_those_of_the_volume_however_the_patient_was_scanned(answered):
    found = answered(CORD_INJURY, LESION, volume(turned=True))
    (lesion,) = found.findings
    assert (lesion.box, lesion.key_slice, lesion.level) == (((2, 54, 60), (4, 72, 68)), 3, "C5")
    assert found.slice_probabilities == pytest.approx((0, 0, 0.8, 0.9, 0, 0))
    c4 = next(mask for mask in found.masks if mask.label == "C4")
    assert np.argwhere(c4.array).min(0).tolist() == [1, 120 - 35, 20]


def test_outlines_become_segments_that_do_not_overlap(answered):
    found = answered(LUMBAR_DISC, [])
    assert [mask.label for mask in found.masks] == ["L4", "L5", "S1", "L4/L5", "L5/S1"]
    assert [mask.kind.meaning for mask in found.masks][2:] == ["Sacrum", "L4/L5 disc", "L5/S1 disc"]
    assert np.sum([mask.array for mask in found.masks], axis=0).max() == 1


def test_a_negative_study_has_no_lesions_but_its_herniated_disc(answered):
    found = answered(CORD_INJURY, [*LESION, *PROLAPSE], threshold=0.99)
    assert (found.positive, found.group) == (False, "disc")
    (disc,) = found.findings
    assert (disc.code.value, disc.level, disc.site.meaning) == ("73589001", "C5/C6", "C5/C6 disc")
    reach, *_ = disc.measurements
    assert (reach.name.value, reach.unit) == ("HERNIATION_DEPTH", "mm")
    assert 0 < reach.value <= 6


def test_a_positive_study_without_a_sure_lesion_shows_the_surest(answered):
    found = answered(
        CORD_INJURY, [(2, "mixed", 0.3, 48, 60, 66, 68), (4, "oedema", 0.2, 10, 60, 20, 68)], threshold=0.05
    )
    assert found.positive
    assert [(one.code.meaning, one.probability) for one in found.findings] == [("Spinal cord injury", 0.3)]


def test_nothing_found_is_normal(answered):
    found = answered(CORD_INJURY, [])
    assert (found.state, found.positive, found.group, found.findings) == ("done", False, "normal", ())
    assert found.case_probability < 1e-5


def test_every_disc_has_a_probability_and_a_slip_its_grade(answered):
    boxes = [
        (3, "slip", 0.8, 44 - 10, 20, 46, 60),
        (3, "disc", 0.9, 69, 20, 80, 58),
        (3, "herniation", 0.1, 69, 20, 80, 58),
    ]
    found = answered(LUMBAR_DISC, boxes)
    assert found.level_probabilities == pytest.approx({"L4/L5": 0.8, "L5/S1": 0.1})
    (slip,) = found.findings
    assert (slip.code.meaning, slip.level, slip.site.meaning) == ("Spondylolisthesis", "L4/L5", "L4/L5 disc")
    values = {m.name.value: (m.value, m.unit) for m in slip.measurements}
    assert values["110856"] == (pytest.approx(6, abs=0.1), "mm")
    assert values["SLIP_SHARE"] == (pytest.approx(20, abs=0.5), "%")
    assert values["MEYERDING"] == (1, "1")


def test_a_disc_without_a_name_is_reported_for_the_region(answered, monkeypatch):
    nameless = Outlines(labels=np.zeros(SHAPE, np.uint8), spacing=SPACING, notes=("vertebrae are not named: why",))
    boxes = [(3, "slip", 0.8, 34, 20, 46, 60)]
    found = answered(LUMBAR_DISC, boxes)
    assert found.findings[0].level == "L4/L5"
    monkeypatch.setattr(spine_levels, "outline", lambda *_: nameless)
    found = lumbar_disc_mr._analyse(model(LUMBAR_DISC), volume(), {})
    (slip,) = found.findings
    assert (slip.level, slip.site.meaning, slip.measurements) == (None, "Lumbar spine", ())
    assert found.level_probabilities == {}
    assert "vertebrae are not named: why" in found.quality


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"given": volume(Modality="CT")}, "modality CT: the model reads MR"),
        ({"far": 10.0, "novelty": 1.0}, "no images like those that the model was validated with"),
    ],
    ids=["CT", "unlike"],
)
@pytest.mark.parametrize("task", SUBJECTS)
def test_what_the_model_cannot_read_is_not_applicable(answered, task, changes, reason):
    found = answered(task, LESION, **changes)
    assert found.state == "not_applicable"
    assert reason in found.reason
    assert (found.case_probability, found.findings, found.masks) == (None, (), ())


STRICT = Decision(
    boxes=dict.fromkeys(SUBJECTS[CORD_INJURY].classes, 0.55),
    study=0.1,
    calibration={"case": {"bias": -2.0, "weight": 1.0}, "indeterminate": [0.0, 0.0]},
)


@pytest.fixture
def judged_again(monkeypatch):
    """What lesions were judged with; all become mixed ones of 0.6."""
    seen = {}

    def corrected(_fitted: object, series: dict, boxes: list[SliceBox]) -> list[SliceBox]:
        seen.update(series)
        return [replace(box, label="mixed", probability=0.6) for box in boxes]

    monkeypatch.setattr(spine_correction, "corrected", corrected)
    monkeypatch.setattr(
        spine_series.mr_content,
        "measure",
        lambda values, _: {"fluid": float(values.max() < 0) * 9, "structure_percent": 90.0},
    )
    return seen


def test_with_companions_lesions_are_judged_again_and_by_other_thresholds(answered, judged_again):
    t1 = volume(turned=True)
    found = answered(CORD_INJURY, LESION, corrected={"T1": STRICT}, companions={"T1": t1})
    assert [(one.code.meaning, one.probability) for one in found.findings] == [("Spinal cord injury", 0.6)]
    assert found.threshold == 0.1
    assert found.case_probability == pytest.approx(platt(0.6, {"bias": -2.0, "weight": 1.0}))
    assert np.array_equal(judged_again["T1"].affine, t1.affine)
    assert "no sagittal STIR series: lesions are not compared with it" in found.quality
    alone = answered(CORD_INJURY, LESION, corrected={"T1": STRICT})
    assert (alone.threshold, alone.findings[0].probability) == (0.5, pytest.approx(0.9))
    assert "no sagittal T1 and no STIR series: lesions are not compared with it" in alone.quality


def test_a_companion_unlike_those_of_the_validation_takes_no_lesion_back(answered, judged_again):
    ruined = replace(volume(), array=-1 - volume().array)
    found = answered(CORD_INJURY, LESION, corrected={"T1": STRICT}, companions={"T1": ruined})
    assert judged_again == {}
    assert (found.threshold, found.findings[0].probability) == (0.5, pytest.approx(0.9))
    assert (
        "lesions are not compared with the T1 series: outside the validated range: fluid in the canal 9 times as "
        "bright as the usual tissue, validated 0 to 2 times as bright as the usual tissue"
    ) in found.quality


@pytest.mark.parametrize(("described", "said"), [(True, "as"), (False, "NOT as")])
def test_whether_a_lesion_looks_like_its_class_on_t1_and_t2_is_said(
    answered, judged_again, monkeypatch, described, said
):
    monkeypatch.setattr(spine_correction.spine_signals, "as_described", lambda *_: described)
    found = answered(CORD_INJURY, LESION, corrected={"T1": STRICT}, companions={"T1": volume()})
    assert f"mixed-1: T1 and T2 show it {said} table 2 of Shao et al. 2024 describes it" in found.quality
    alone = answered(CORD_INJURY, LESION, corrected={"T1": STRICT})
    assert not any("table 2" in text for text in alone.quality)


def test_a_herniated_disc_has_its_slip_too_and_a_slip_that_is_not_measured_is_doubted(answered, monkeypatch):
    herniated = answered(LUMBAR_DISC, [(3, "herniation", 0.8, 34, 20, 46, 60)]).findings[0]
    assert [m.name.value for m in herniated.measurements] == ["HERNIATION_DEPTH", "110856", "SLIP_SHARE", "MEYERDING"]
    herniation = [(3, "herniation", 0.8, 34, 20, 46, 60)]
    assert not any("nothing dark" in text for text in answered(LUMBAR_DISC, herniation).quality)
    monkeypatch.setattr(spine_series, "HERNIATION_MM", 30.0)
    assert any(
        "nothing dark that begins at the disc reaches further back than" in text
        for text in answered(LUMBAR_DISC, herniation).quality
    )
    slip = [(3, "slip", 0.8, 34, 20, 46, 60)]
    assert not any("the outlines measure" in text for text in answered(LUMBAR_DISC, slip).quality)
    monkeypatch.setattr(spine_series, "meyerding", lambda _: 0)
    assert "slip-1: seen in the image, but the outlines measure 20 % only" in answered(LUMBAR_DISC, slip).quality


def test_that_lumbar_vertebrae_are_counted_from_below_is_said(answered):
    said = [text for text in answered(LUMBAR_DISC, []).quality if "counted from the sacrum" in text]
    assert len(said) == 1
    assert not any("counted from the sacrum" in text for text in answered(CORD_INJURY, []).quality)


def test_what_was_not_validated_is_said(answered):
    found = answered(CORD_INJURY, [], fluid=9.0, far=1.0, novelty=1.0)
    assert any(text.startswith("outside the validated range: fluid in the canal") for text in found.quality)
    assert any("feature distance" in text for text in found.quality)
