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


DOWN = np.array([1.0, 0.0])


def image(disc: np.ndarray, *others: np.ndarray) -> np.ndarray:
    """A T2 image of a dark disc, and others of a third of the brightness of the fluid all around."""
    return np.where(disc, 100.0, np.where(np.any([np.zeros_like(disc), *others], axis=0), 300.0, 900.0))


@pytest.mark.parametrize("tilt", [-20, 0, 20])
@pytest.mark.parametrize("forward", [0.0, 8.0])
@pytest.mark.parametrize("out", [0.0, 3.0, 7.0])
def test_a_herniation_is_what_is_dark_behind_the_bodies(out, forward, tilt):
    along = np.array([np.cos(np.radians(tilt)), np.sin(np.radians(tilt))])
    bodies = motion(forward, tilt)
    one, other = (corners(body, SPACING, along) for body in bodies)
    middle = (one.back_bottom + other.back_top) / 2
    centre = middle + (out - DEPTH) / 2 * np.array([-along[1], along[0]])
    disc = box(tuple(centre), (GAP - 6, DEPTH + out), tilt)
    found = herniation(image(disc, *bodies), SPACING, one, other, along)
    assert found == pytest.approx(out, abs=0.75 + 0.2 * forward)  # the end of the disc is no slanted line


def test_a_disc_within_its_bodies_has_no_herniation():
    one, other = (corners(body, SPACING, DOWN) for body in motion(0, 0))
    assert herniation(image(box((44, 50), (6, 20))), SPACING, one, other, DOWN) == 0
    assert herniation(np.zeros((200, 200)), SPACING, one, other, DOWN) == 0


def test_corners_that_overlap_do_not_turn_the_image_round():
    upper, lower = box((40, 50), (30, 32)), box((69.5, 50), (30, 32))
    one, other = (corners(body, SPACING, DOWN) for body in (upper, lower))
    assert one.back_bottom[0] > other.back_top[0]
    assert herniation(image(np.zeros_like(upper), upper, lower), SPACING, one, other, DOWN) == pytest.approx(0, abs=0.5)


@pytest.mark.parametrize(("thick", "found"), [(1.0, 2.0), (3.0, 7.0)], ids=["ligament", "herniation"])
def test_what_is_thin_is_no_part_of_a_herniation(thick, found):
    one, other = (corners(body, SPACING, DOWN) for body in motion(0, 0))
    middle = (one.back_bottom + other.back_top) / 2
    disc = box((middle[0], middle[1] + 1 - DEPTH / 2), (GAP - 2, DEPTH + 2))
    strand = box((middle[0], middle[1] + 3.5), (thick, 7))
    assert herniation(image(disc | strand), SPACING, one, other, DOWN) == pytest.approx(found, abs=0.75)


def test_what_does_not_touch_the_disc_is_no_part_of_a_herniation():
    one, other = (corners(body, SPACING, DOWN) for body in motion(0, 0))
    middle = (one.back_bottom + other.back_top) / 2
    disc, root = box((middle[0], middle[1] - DEPTH / 2), (GAP - 2, DEPTH)), box((middle[0], middle[1] + 8), (4, 4))
    assert herniation(image(disc | root), SPACING, one, other, DOWN) == pytest.approx(0, abs=0.75)


def test_a_herniation_that_does_not_part_from_the_cord_is_not_measured():
    one, other = (corners(body, SPACING, DOWN) for body in motion(0, 0))
    middle = (one.back_bottom + other.back_top) / 2
    disc, cord = box((middle[0], middle[1] + 1.5 - DEPTH / 2), (6, DEPTH + 3)), box((50, middle[1] + 8), (100, 10))
    assert herniation(image(disc, cord), SPACING, one, other, DOWN) is None
    apart = box((50, middle[1] + 10), (100, 10))
    assert herniation(image(disc, apart), SPACING, one, other, DOWN) == pytest.approx(3, abs=0.75)


def test_behind_the_edge_of_the_image_nothing_is_measured():
    one, other = (corners(body, SPACING, DOWN) for body in motion(0, 0))
    assert herniation(np.ones((200, 60)), SPACING, one, other, DOWN) is None


def test_an_empty_outline_is_refused():
    with pytest.raises(ValueError, match="without a pixel"):
        corners(np.zeros((4, 4), bool), SPACING, DOWN)
