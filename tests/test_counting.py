"""Vertebrae and discs that are only told apart by kind get their names by counting, or none."""

from __future__ import annotations

import numpy as np
import pytest

from inference import counting, spine_levels
from inference.datasets.phantom_mr import open_dataset
from inference.geometry import spacing
from inference.preprocess.isotropic import resample_labels
from inference.spine_levels import ANATOMY, LEVELS, VIEW
from inference.vertebrae import named

MM, SHAPE = 2.0, (150, 36, 20)
#: Slices of a body and of the disc under it.
BODY, DISC = 8, 3


def column(*kinds: str, gone: tuple[int, ...] = (), bridge: bool = False) -> np.ndarray:
    """Bodies of these kinds from head to feet with discs between them and below the last, but for some.

    `bridge` gives each body an arch behind it that touches that of the next one.
    """
    share = np.zeros((len(VIEW.outputs), *SHAPE), np.float32)
    for place, kind in enumerate(kinds):
        top = 146 - (BODY + DISC) * place
        share[VIEW.outputs.index(kind), top - BODY : top, 4:16, 4:16] = 0.9
        if bridge:
            share[VIEW.outputs.index(kind), top - BODY + 2 : top - BODY + 4, 16:20, 4:16] = 0.9
            share[VIEW.outputs.index(kind), top - BODY - DISC : top - BODY + 4, 20:26, 4:16] = 0.9
        if place not in gone and kind != "S1":
            share[VIEW.outputs.index("disc"), top - BODY - DISC : top - BODY, 4:16, 4:16] = 0.9
    return share


def count(share: np.ndarray) -> tuple[dict[str, tuple[float, ...]], str]:
    """Where the middle of each named level lies, and why there is none."""
    levels, problem = counting.count(share, MM, VIEW, ANATOMY.landmarks)
    places = {level: np.argwhere(levels[n] > 0.5) for n, level in enumerate(LEVELS)}
    return {level: tuple(at.mean(0)) for level, at in places.items() if len(at)}, problem


def test_names_are_counted_from_c2_downwards():
    found, problem = count(column("C2", *["vertebra"] * 4))
    assert problem == ""
    assert set(found) == {"C2", "C3", "C4", "C5", "C6", "C2/C3", "C3/C4", "C4/C5", "C5/C6", "C6/C7"}
    heights = [found[level][0] for level in ("C2", "C2/C3", "C3", "C3/C4", "C4", "C6", "C6/C7")]
    assert heights == sorted(heights, reverse=True)


def test_names_are_counted_from_the_sacrum_upwards():
    found, _ = count(column(*["vertebra"] * 3, "S1"))
    assert set(found) == {"L3", "L4", "L5", "S1", "L3/L4", "L4/L5", "L5/S1"}
    assert found["L5"][0] == pytest.approx(146 - 2 * (BODY + DISC) - (BODY + 1) / 2)


@pytest.mark.parametrize(
    ("share", "why"),
    [
        (column(*["vertebra"] * 4), "neither C2 nor S1, from which to count, is in view beside the outermost disc"),
        (column("C2", *["vertebra"] * 4, gone=(0,)), "neither C2 nor S1"),
        (column("C2", *["vertebra"] * 6, gone=(2,)), "the discs above and below C3/C4 would be 22 and 44 mm away"),
        (column("C2", *["vertebra"] * 4, "S1"), "5 discs between C2 and S1 would be too few"),
        (np.zeros((len(VIEW.outputs), *SHAPE), np.float32), "no disc was recognised"),
    ],
)
def test_where_counting_could_err_nothing_is_named(share, why):
    found, problem = count(share)
    assert found == {}
    assert why in problem


def test_more_discs_than_a_spine_has_are_not_named():
    share = column("C2", *["vertebra"] * 12)
    long = np.concatenate([share, share[:, ::-1]], 1)  # the lower half is upside down, without a landmark at its end
    long[VIEW.outputs.index("C2"), :140] = 0
    assert "would be too many" in count(long)[1]


def test_a_fragment_of_a_disc_is_not_counted():
    whole, _ = count(column("C2", *["vertebra"] * 4))
    share = column("C2", *["vertebra"] * 4)
    share[VIEW.outputs.index("disc"), 124:127, 22:26, 6:14] = 0.9  # behind C3/C4, with a gap in between
    found, _ = count(share)
    assert set(found) == set(whole)
    assert found["C3/C4"][1] > whole["C3/C4"][1]


def test_a_disc_too_many_is_noticed():
    share = column("C2", *["vertebra"] * 5)
    share[VIEW.outputs.index("vertebra"), 119:121, 4:16, 4:16] = 0
    share[VIEW.outputs.index("disc"), 119:121, 4:16, 4:16] = 0.9  # inside C4
    assert count(share) == ({}, "the discs above and below C3/C4 would be 22 and 11 mm away")


def test_arches_that_touch_belong_to_the_body_above_them():
    share = column(*["vertebra"] * 3, "S1", bridge=True)
    levels, _ = counting.count(share, MM, VIEW, ANATOMY.landmarks)
    top = 146 - (BODY + DISC)
    assert (levels[LEVELS.index("L4"), top - BODY + 2, 16:26, 10] > 0.5).all()
    # Behind, the arch of L3 hangs down beside the disc and further.
    assert levels[LEVELS.index("L3"), top + 1, 23, 10] > 0.5
    found, notes = named(levels, MM, ANATOMY)
    assert {"L3", "L4", "L5", "S1"} <= set(found)
    assert notes == ()


@pytest.mark.parametrize("region", ["cervical", "lumbar"])
def test_nineteen_of_twenty_voxels_of_a_vertebra_get_its_name(region):
    dataset = open_dataset(f"{region}:standard@481+1")
    t2 = dataset.load(dataset.names[0]).series[1]
    step, row, column = spacing(t2.affine)
    truth = resample_labels(spine_levels.upright(spine_levels.labels(t2.structures)), (row, column, step), 1.5)
    kinds = VIEW.outputs_of(truth)
    share = np.stack([0.9 * (kinds == n) for n in range(1, 1 + len(VIEW.outputs))]).astype(np.float32)
    levels, problem = counting.count(share, 1.5, VIEW, ANATOMY.landmarks)
    assert problem == ""
    vertebrae = kinds == 1 + VIEW.outputs.index("vertebra")
    assert (levels.argmax(0) + 1 == truth)[vertebrae].mean() > 0.95
