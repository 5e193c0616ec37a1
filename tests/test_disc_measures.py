"""Slip and herniation on drawn bodies and discs of known size, in any tilt."""

from __future__ import annotations

import numpy as np
import pytest

from inference.disc_measures import corners, herniation, meyerding, slip

SPACING = (0.5, 0.5)
DEPTH, HEIGHT, GAP = 32.0, 26.0, 9.0


def box(centre: tuple[float, float], size: tuple[float, float], tilt: float = 0.0) -> np.ndarray:
    """An outline (rows, columns) of a rectangle, (down, back) mm, turned by degrees."""
    down, back = np.meshgrid(np.arange(0, 100, SPACING[0]), np.arange(0, 100, SPACING[1]), indexing="ij")
    y, x = down - centre[0], back - centre[1]
    sin, cos = np.sin(np.radians(tilt)), np.cos(np.radians(tilt))
    return (abs(y * cos + x * sin) <= size[0] / 2) & (abs(x * cos - y * sin) <= size[1] / 2)


def motion(forward: float, tilt: float) -> tuple[np.ndarray, np.ndarray]:
    """Two bodies, the upper one moved forwards by mm along the lower one's endplate."""
    sin, cos = np.sin(np.radians(tilt)), np.cos(np.radians(tilt))
    down, back = np.array([cos, sin]), np.array([-sin, cos])
    middle = np.array([62.0, 50.0])
    upper = middle - down * (HEIGHT + GAP) - back * forward
    return box(tuple(upper), (HEIGHT, DEPTH), tilt), box(tuple(middle), (HEIGHT, DEPTH), tilt)


@pytest.mark.parametrize("tilt", [-25, -10, 0, 10, 25])
@pytest.mark.parametrize("forward", [-4.0, 0.0, 3.0, 10.0])
def test_a_slip_is_measured_along_the_endplate_in_any_tilt(forward, tilt):
    upper, lower = motion(forward, tilt)
    along = np.array([np.cos(np.radians(tilt)), np.sin(np.radians(tilt))])
    one, other = (corners(body, SPACING, along) for body in (upper, lower))
    mm, percent = slip(one, other)
    assert mm == pytest.approx(forward, abs=1.0)  # two pixels
    assert percent == pytest.approx(100 * forward / DEPTH, abs=3)


def test_corners_are_where_they_were_drawn():
    found = corners(box((50, 40), (20, 30)), SPACING, np.array([1.0, 0.0]))
    assert found.front_top.tolist() == [40, 25]
    assert found.back_top.tolist() == [40, 55]
    assert found.front_bottom.tolist() == [60, 25]
    assert found.back_bottom.tolist() == [60, 55]


@pytest.mark.parametrize(
    ("percent", "grade"), [(0, 0), (4.9, 0), (5, 1), (24, 1), (25, 2), (60, 3), (80, 4), (100, 5), (-10, 1)]
)
def test_the_grade_grows_with_every_quarter_of_the_endplate(percent, grade):
    assert meyerding(percent) == grade


@pytest.mark.parametrize("out", [0.0, 3.0, 7.0])
def test_a_herniation_is_what_lies_behind_the_bodies(out):
    upper, lower = motion(0, 0)
    one, other = (corners(body, SPACING, np.array([1.0, 0.0])) for body in (upper, lower))
    disc = box((62 - (HEIGHT + GAP) / 2, 50 + out / 2), (GAP - 2, DEPTH + out))
    assert herniation(disc, SPACING, one, other) == pytest.approx(out, abs=0.5)


def test_a_disc_within_its_bodies_has_no_herniation():
    one, other = (corners(body, SPACING, np.array([1.0, 0.0])) for body in motion(0, 0))
    assert herniation(box((44, 50), (6, 20)), SPACING, one, other) == 0
    assert herniation(np.zeros((200, 200), bool), SPACING, one, other) == 0


def test_an_empty_outline_is_refused():
    with pytest.raises(ValueError, match="without a pixel"):
        corners(np.zeros((4, 4), bool), SPACING, np.array([1.0, 0.0]))
