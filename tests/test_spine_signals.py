"""Signals of boxes in a cord of known brightness, by series that lie in different ways, and what is fitted to them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from inference.spine_signals import (
    COMPANIONS,
    MEASURES,
    Grid,
    as_described,
    contrasts,
    fit,
    probabilities,
    set_of,
)

CORD = 100.0
#: LPS mm to (slice, row, column) by 4 mm and 0.6 mm, slices from right to left, rows from head to feet.
USUAL = np.array([[4.0, 0, 0, -14], [0, 0, 0.6, -40], [0, -0.6, 0, 50], [0, 0, 0, 1]])
SHAPE = (8, 160, 140)
#: 12 mm along the cord and 6 mm across, around the origin, in pixels of USUAL.
LESION = (3.5, 40 / 0.6 + 0.5 - 5, 50 / 0.6 + 0.5 - 10, 40 / 0.6 + 0.5 + 5, 50 / 0.6 + 0.5 + 10)


def neck(  # what a series shows of a cord along z, 9 mm deep, in fluid 3 mm deep, in muscle
    affine: np.ndarray = USUAL,
    shape: tuple[int, int, int] = SHAPE,
    *,
    centre: float = CORD,
    rim: float = CORD,
    fluid: float = 300.0,
    lean: float = 0.0,
) -> Grid:
    at = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    y, z = at[..., 1] - lean * at[..., 2], at[..., 2]
    values = np.where(abs(y) < 4.5, CORD, np.where(abs(y) < 7.5, fluid, 60.0 + 20 * np.sin(z + y)))
    radius = (y / 3.6) ** 2 + (z / 7.0) ** 2
    values = np.where(radius < 1, rim, values)
    return Grid(np.where(radius < 0.25, centre, values).astype(np.float32), affine)


def turned(order: tuple[int, int, int], flips: tuple[int, ...]) -> np.ndarray:
    """The affine of USUAL with its axes in another order, some of them run the other way."""
    affine = USUAL.copy()
    for axis in flips:
        affine[:3, 3] += affine[:3, axis] * (SHAPE[axis] - 1)
        affine[:3, axis] *= -1
    affine[:3, :3] = affine[:3, order]
    return affine


def measured(series: dict[str, Grid], box: tuple[float, ...] = LESION) -> dict[str, float]:
    return {name: float(values[0]) for name, values in contrasts(series, np.array([box])).items()}


def test_the_middle_of_a_box_and_its_rim_are_compared_with_the_cord_beside_it():
    found = measured({"T2": neck(centre=50, rim=150), "T1": neck(centre=110, rim=CORD)})
    assert found["T2 rim"] == pytest.approx(2 * 50 / 250)
    assert found["T2 centre"] == found["T2 |centre|"] * -1 == pytest.approx(-2 * 50 / 150)
    assert found["T2 spread"] > 0.3
    assert found["T1 centre"] == pytest.approx(2 * 10 / 210)
    assert found["T1 rim"] == pytest.approx(0)
    assert np.isnan([found[f"STIR {measure}"] for measure in MEASURES]).all()


def test_the_scale_of_a_series_does_not_matter():
    t2, t1 = neck(centre=150, rim=130), neck(centre=90, rim=120)
    scaled = {"T2": Grid(t2.array * 0.01, USUAL), "T1": Grid((t1.array * 20).astype(np.int16), USUAL)}
    assert measured(scaled) == pytest.approx(measured({"T2": t2, "T1": t1}), abs=1e-3, nan_ok=True)


COARSE = np.array([[3.1, 0, 0, -13], [0, 0, 0.8, -33], [0, -0.8, 0, 45], [0, 0, 0, 1]])
MOVED = np.array([[4.0, 0, 0, -15], [0, 0, 0.5, -37.3], [0, -0.5, 0, 41.1], [0, 0, 0, 1]])
AXIAL = np.array([[0, 0, 0.7, -20], [0, 0.7, 0, -40], [1.5, 0, 0, -45], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("affine", "shape"),
    [
        (turned((0, 1, 2), (0,)), SHAPE),
        (turned((0, 1, 2), (1, 2)), SHAPE),
        (turned((0, 2, 1), ()), (8, 140, 160)),
        (turned((0, 2, 1), (0, 1)), (8, 140, 160)),
        (COARSE, (9, 110, 90)),
        (MOVED, (8, 170, 150)),
        (AXIAL, (60, 110, 60)),
    ],
)
def test_a_companion_may_lie_in_any_way(affine, shape):
    seen = {"centre": 130, "rim": 90}
    found = measured({"T2": neck(centre=150, rim=150), "STIR": neck(affine, shape, **seen)})
    assert found["STIR centre"] == pytest.approx(2 * 30 / 230, abs=0.02)
    assert found["STIR rim"] == pytest.approx(-2 * 10 / 190, abs=0.02)


@pytest.mark.parametrize(("order", "flips"), [((0, 1, 2), (1,)), ((0, 2, 1), ()), ((0, 2, 1), (1, 2))])
def test_t2_may_lie_in_any_way(order, flips):
    usual = {"T2": neck(centre=150, rim=130), "T1": neck(centre=90)}
    affine, shape = turned(order, flips), tuple(SHAPE[axis] for axis in order)
    low, high = np.array([LESION[2], LESION[1]]), np.array([LESION[4], LESION[3]])
    for axis in flips:
        size = SHAPE[axis]
        low[axis - 1], high[axis - 1] = size - high[axis - 1], size - low[axis - 1]
    rows, columns = (axis - 1 for axis in order[1:])
    box = (LESION[0], low[columns], low[rows], high[columns], high[rows])
    series = {"T2": neck(affine, shape, centre=150, rim=130), "T1": usual["T1"]}
    assert measured(series, box) == pytest.approx(measured(usual), abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("lean", [-0.3, 0.15, 0.3])
@pytest.mark.parametrize("off", [(0, 0), (3, -2), (-3, 4)])
def test_a_box_that_is_a_little_off_is_still_compared_with_the_cord(lean, off):
    across, down = off
    box = tuple(np.array(LESION) + (0, across, down, across, down))
    found = measured(
        {"T2": neck(centre=150, rim=150, lean=lean), "T1": neck(centre=90, rim=90, fluid=20, lean=lean)}, box
    )
    assert found["T2 centre"] == pytest.approx(2 * 50 / 250, abs=0.02)
    assert found["T1 centre"] == pytest.approx(-2 * 10 / 190, abs=0.02)


def test_a_box_at_the_edge_of_the_image_is_compared_with_the_cord_on_the_other_side():
    cut = neck(centre=150, rim=150)
    top = 72  # one pixel above the box
    affine = USUAL.copy()
    affine[:3, 3] += affine[:3, 1] * top
    box = (*LESION[:2], LESION[2] - top, LESION[3], LESION[4] - top)
    assert measured({"T2": Grid(cut.array[:, top:], affine)}, box)["T2 centre"] == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("axis", "kept"), [(0, slice(5, 8)), (1, slice(0, 80)), (1, slice(105, 160)), (2, slice(72, 140))]
)
def test_what_a_companion_does_not_cover_is_not_known(axis, kept):
    part = [slice(None)] * 3
    part[axis] = kept
    affine = USUAL.copy()
    affine[:3, 3] += affine[:3, axis] * kept.start
    found = measured({"T2": neck(centre=150, rim=150), "STIR": Grid(neck(centre=130).array[tuple(part)], affine)})
    assert np.isnan(found["STIR centre"])
    assert found["T2 centre"] == pytest.approx(0.4)


def test_where_everything_is_equal_nothing_differs():
    found = measured({"T2": Grid(np.full(SHAPE, 7, np.int16), USUAL), "T1": Grid(np.full(SHAPE, 0.3), USUAL)})
    assert [found[f"{name} {measure}"] for name in ("T2", "T1") for measure in MEASURES] == pytest.approx([0] * 10)


def test_without_signal_there_is_nothing_to_compare():
    found = contrasts({"T2": neck(), "T1": Grid(np.zeros(SHAPE, np.int16), USUAL)}, np.array([LESION]))
    assert np.isnan([found[f"T1 {measure}"] for measure in MEASURES]).all()
    assert np.isfinite([found[f"T2 {measure}"] for measure in MEASURES]).all()
    beside = contrasts({"T2": neck()}, np.array([(20, *LESION[1:])]))
    assert np.isnan(list(beside.values())).all()


def test_the_smallest_box_has_signals_and_no_box_has_none():
    dot = (LESION[0], 67.2, 83.8, 67.2, 83.8)
    assert measured({"T2": neck(centre=150)}, dot)["T2 centre"] == pytest.approx(0.4)
    assert all(values.shape == (0,) for values in contrasts({"T2": neck()}, np.empty((0, 5))).values())


def boxes(count: int = 300) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Boxes that T2 tells from each other a little, and T1 well; every third has no T1, none has STIR."""
    rng = np.random.default_rng(5)
    labels = rng.choice(["oedema", "haemorrhage", "mixed"], count)
    number = np.array([["oedema", "haemorrhage", "mixed"].index(label) for label in labels])
    features = {
        "T2 centre": number / 5 + rng.normal(0, 0.2, count),
        "T1 rim": np.where(np.arange(count) % 3, number / 5 + rng.normal(0, 0.02, count), np.nan),
        "STIR rim": np.full(count, np.nan),
        "detector": rng.normal(0, 1, count),
    }
    return features, labels


CLASSES = ("oedema", "haemorrhage", "mixed")


def test_each_box_is_judged_by_all_the_sequences_that_it_has():
    features, labels = boxes()
    fitted = json.loads(json.dumps(fit(features, labels, CLASSES)))
    assert [model["features"] for model in fitted["models"]] == [
        ["T2 centre", "detector"],
        ["T2 centre", "T1 rim", "detector"],
    ]
    new, truth = boxes(900)
    found = probabilities(fitted, new)
    assert found.sum(1) == pytest.approx(1)
    right = np.array(CLASSES)[found.argmax(1)] == truth
    with_t1 = np.isfinite(new["T1 rim"])
    assert right[with_t1].mean() > 0.97
    assert 0.45 < right[~with_t1].mean() < 0.8
    assert (found[with_t1].max(1) < 1 - 1e-6).all()


def test_a_box_without_signals_is_not_judged():
    features, labels = boxes()
    fitted = fit(features, labels, CLASSES)
    found = probabilities(fitted, {name: np.array([np.nan, 0.1]) for name in features})
    assert np.isnan(found[0]).all()
    assert found[1].sum() == pytest.approx(1)


def test_probabilities_are_as_often_right_as_they_say():
    rng = np.random.default_rng(1)
    x = rng.normal(0, 1, 4000)
    labels = np.where(rng.random(4000) < 1 / (1 + np.exp(-(0.5 + 1.2 * x))), "real", "false")
    found = probabilities(fit({"T2 rim": x}, labels, ("false", "real")), {"T2 rim": np.array([-1.0, 0.0, 1.0])})[:, 1]
    assert found == pytest.approx(1 / (1 + np.exp(-(0.5 + 1.2 * np.array([-1.0, 0.0, 1.0])))), abs=0.04)


def test_a_class_without_a_box_cannot_be_fitted():
    features, labels = boxes()
    with pytest.raises(ValueError, match="no box of each of oedema, tumour"):
        fit(features, labels, ("oedema", "tumour"))


def test_signals_are_named_after_their_sequence():
    found = contrasts({"T2": neck()}, np.array([LESION]))
    assert set(found) == {f"{name} {measure}" for name in ("T2", *COMPANIONS) for measure in MEASURES}


#: T2 centre, rim and spread, T1 centre and rim.
LOOKS = {
    "oedema": (0.6, 0.5, 0.1, 0.0, 0.0),
    "haemorrhage": (-0.5, 0.5, 0.2, -0.3, 0.1),
    "mixed": (0.0, 0.0, 0.4, 0.2, 0.1),
}


@pytest.mark.parametrize(
    ("label", "looks", "said"),
    [
        ("oedema", "oedema", True),
        ("oedema", "haemorrhage", False),
        ("oedema", "mixed", False),
        ("haemorrhage", "haemorrhage", True),
        ("haemorrhage", "oedema", False),
        ("mixed", "mixed", True),
        ("mixed", "oedema", False),
    ],
)
def test_a_lesion_looks_like_its_class_or_does_not(label, looks, said):
    names = ("T2 centre", "T2 rim", "T2 spread", "T1 centre", "T1 rim")
    measured = {f"{name} {measure}": 0.0 for name in ("T1", "T2") for measure in MEASURES}
    measured |= dict(zip(names, LOOKS[looks], strict=True))
    assert as_described(label, measured) is said
    assert as_described(label, measured | {"T1 rim": float("nan")}) is None


def test_a_set_of_companions_has_one_name():
    assert [set_of(some) for some in (["T1", "STIR", "T2"], {"T2": 0}, ("STIR",))] == ["STIR+T1", "", "STIR"]
