"""The correction of cord lesions by T1 and STIR: on drawn lesions that only the companions tell apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from inference import spine_correction
from inference.datasets import mr_store
from inference.datasets.labelled import UnusableData
from inference.datasets.labelled_mr import ImageBox, LabelledMR, MRSeries
from inference.datasets.mr_series import DIRECTIONS
from inference.evaluation import spine_correction as evaluation
from inference.evaluation.detection import Boxes, Image, drawn
from inference.linked_boxes import SliceBox
from inference.spine_mr import CORD_INJURY, LESIONS, SUBJECTS
from inference.spine_signals import Grid
from inference.training import spine_detection
from tests.cases import silent
from tests.mr_studies import write

SHAPE, SPACING = (3, 80, 60), (4.0, 1.0, 1.0)
AFFINE = np.eye(4)
AFFINE[:3, :3] = DIRECTIONS["sagittal"].T * SPACING
CORD = slice(24, 36)
#: Brightness of a place over the cord's, by what is there: bright on T2 all of them, and fluid not in STIR's way.
LOOKS = {
    "oedema": {"T2": 1.6, "T1": 0.9, "STIR": 1.6},
    "haemorrhage": {"T2": 1.6, "T1": 1.4, "STIR": 1.6},
    "mixed": {"T2": 1.6, "T1": 0.5, "STIR": 1.6},
    "flow": {"T2": 1.6, "T1": 1.0, "STIR": 1.0},
}
KINDS = tuple(LOOKS)


def study(number: int, sequences: tuple[str, ...] = ("T1", "T2", "STIR")) -> LabelledMR:
    """A study with one place in each slice; which it is, and how noisy, depends on the number."""
    rng = np.random.default_rng(number)
    what = [KINDS[(number + n) % len(KINDS)] for n in range(SHAPE[0])]
    series = []
    for sequence in sequences:
        values = rng.normal(40, 2, SHAPE)
        values[:, :, CORD] = rng.normal(200, 4, (SHAPE[0], SHAPE[1], 12))
        for n, kind in enumerate(what):
            values[n, 34:46, 26:34] *= LOOKS[kind][sequence] * rng.normal(1, 0.02)
        boxes = tuple(
            ImageBox(slice=n, left=26, top=34, right=34, bottom=46, label=kind)
            for n, kind in enumerate(what)
            if kind in LESIONS
        )
        series.append(
            MRSeries(
                sequence=sequence,
                plane="sagittal",
                values=values.round().astype(np.float32),
                affine=AFFINE,
                boxes=boxes if sequence == "T2" else None,
            )
        )
    name = f"cervical-mr-v1-standard-{number}"
    return LabelledMR(
        name=name, patient=name, region="cervical", series=tuple(series), source="tests", licence="Apache-2.0"
    )


def stored(cache, count: int, **changes: tuple[str, ...]) -> list[mr_store.Study]:
    for number in range(count):
        write(cache, study(number, **changes))
    return mr_store.prepare_mr(f"phantom_mr:cervical:standard@0+{count}", cache=cache, progress=silent)


def images(one: mr_store.Study) -> list[Image]:
    """What a detector says that sees the place in every slice and takes all of them for oedema, half sure."""
    boxes = next(series.boxes for series in one.series if series.boxes is not None)
    found = Boxes(edges=np.array([[26.0, 34, 34, 46]]), labels=np.array(["oedema"]), levels=np.array([""]))
    return [
        Image(
            patient=one.patient,
            truth=drawn([box for box in boxes if box.slice == n]),
            found=found,
            scores=np.array([0.5]),
        )
        for n in range(SHAPE[0])
    ]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> dict:
    studies = stored(tmp_path_factory.mktemp("cases"), 16)
    return evaluation.fit(studies, [images(one) for one in studies])


def grids(number: int, *sequences: str) -> dict[str, Grid]:
    return {one.sequence: Grid(one.values, one.affine) for one in study(number).series if one.sequence in sequences}


def box(at: int, label: str = "oedema", probability: float = 0.5) -> SliceBox:
    return SliceBox(slice=at, edges=(26.0, 34.0, 34.0, 46.0), label=label, probability=probability, raw=0.4)


def test_companions_tell_real_lesions_from_flow_and_their_classes(fitted):
    assert "48 boxes of 16 studies, 36 of them on a lesion" in fitted["fitted_on"]
    for number in (100, 101, 102, 103):
        judged = spine_correction.corrected(fitted, grids(number, "T1", "T2", "STIR"), [box(n) for n in range(3)])
        for n, one in enumerate(judged):
            kind = KINDS[(number + n) % len(KINDS)]
            assert (one.probability > 0.5) == (kind != "flow")
            assert kind == "flow" or one.label == kind
            assert (one.slice, one.edges, one.raw) == (n, box(n).edges, 0.4)


def test_what_is_no_lesion_or_improbable_or_alone_stays_as_it_is(fitted):
    boxes = [box(0, "herniation"), box(1, probability=0.01)]
    assert set(spine_correction.corrected(fitted, grids(100, "T1", "T2", "STIR"), boxes)) == set(boxes)
    assert spine_correction.corrected(fitted, grids(100, "T2"), [box(0)]) == [box(0)]


def test_a_companion_that_does_not_cover_a_box_leaves_it_to_the_others(fitted):
    series = grids(100, "T1", "T2", "STIR")
    away = series["STIR"].affine.copy()
    away[2, 3] += 500
    elsewhere = {**series, "STIR": Grid(series["STIR"].array, away)}
    without = {name: grid for name, grid in series.items() if name != "STIR"}
    boxes = [box(n) for n in range(3)]
    assert spine_correction.corrected(fitted, elsewhere, boxes) == spine_correction.corrected(fitted, without, boxes)


def test_the_images_of_a_study_are_corrected_slice_by_slice(fitted, tmp_path):
    one = stored(tmp_path, 1)[0]
    changed = evaluation.correct(fitted, one, images(one), "STIR+T1")
    assert [image.found.labels.tolist() for image in changed][:3] == [["oedema"], ["haemorrhage"], ["mixed"]]
    assert all(image.scores[0] > 0.5 for image in changed)
    assert len(changed) == SHAPE[0]


def test_without_companions_or_lesions_there_is_nothing_to_fit(tmp_path):
    studies = stored(tmp_path, 2, sequences=("T2",))
    with pytest.raises(UnusableData, match="no box of a lesion in 2 studies with T1 or STIR"):
        evaluation.fit(studies, [images(one) for one in studies])
    studies = stored(tmp_path / "one", 1)
    with pytest.raises(UnusableData, match=r"signals of lesions in 1 studies: .*; add studies"):
        evaluation.fit(studies, [images(one) for one in studies])


def with_a_disc(image: Image) -> Image:
    """The same with a herniation that was drawn and found."""
    disc = Boxes(edges=np.array([[2.0, 2, 12, 12]]), labels=np.array(["herniation"]), levels=np.array([""]))

    def added(boxes: Boxes) -> Boxes:
        parts = [(getattr(boxes, name), getattr(disc, name)) for name in ("edges", "labels", "levels")]
        return Boxes(**dict(zip(("edges", "labels", "levels"), map(np.concatenate, parts), strict=True)))

    return replace(image, truth=added(image.truth), found=added(image.found), scores=np.append(image.scores, 0.9))


def test_a_training_adds_the_correction_with_thresholds_of_its_own_and_measures_what_it_gains(tmp_path):
    studies = stored(tmp_path, 16)
    for number in (1, 5):  # all others have a lesion: thresholds of studies need both kinds
        studies[number] = replace(
            studies[number], series=tuple(replace(s, boxes=s.boxes and ()) for s in studies[number].series)
        )
    scored = [[with_a_disc(image) for image in images(one)] for one in studies]
    both, subject = (studies, scored), SUBJECTS[CORD_INJURY]
    added = spine_detection._correction(both, both, subject, silent)
    assert added["signals"]["sets"].keys() == {"STIR", "T1", "STIR+T1"}
    for one in added["signals"]["sets"].values():
        assert [point["name"] for point in one["case_points"]] == ["balanced", "screen", "flag"]
    assert added["signals"]["content"].keys() == {"STIR", "T1"}
    plain = dict.fromkeys(subject.classes, {"bias": 0.0, "weight": 1.0})
    manifest = spine_detection._decide(scored, subject) | added
    manifest["calibration"] |= {"classes": plain}
    found = evaluation.measure(CORD_INJURY, studies, scored, manifest)
    assert found["signals"]["map50"] > found["map50"]
    assert found["signals"]["difference"]["map50_difference"] > 0
    text = "\n".join(
        evaluation.metric_lines(found | {"within_range": {"content": 1.0, "features": 1.0, "excluded": {}}})
    )
    assert "| corrected by T1 and STIR |" in text
    assert "Difference of mAP@0.5: 0." in text


def test_without_a_lesion_to_compare_a_training_goes_on_and_says_why(tmp_path):
    studies, said = stored(tmp_path, 2, sequences=("T2",)), []
    both = (studies, [images(one) for one in studies])
    assert spine_detection._correction(both, both, SUBJECTS[CORD_INJURY], said.append) == {}
    assert said == [
        "lesions will not be compared with T1 and STIR: no box of a lesion in 2 studies with T1 or STIR: add studies"
    ]
