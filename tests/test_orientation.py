"""Volumes in any position become what the networks know, axial or sagittal, and results go back."""

from itertools import product

import numpy as np
import pytest

from inference.preprocess import orientation
from inference.preprocess.orientation import sagittal, tilt_degrees, turn_degrees
from inference.volume import Volume

SHAPE = (3, 4, 5)
CANONICAL = {0: (0, 0, 2), 1: (0, 0.5, 0), 2: (0.5, 0, 0)}  # direction of each axis in LPS: head, back, left


def volume(*, flipped: tuple[int, ...] = (), affine: np.ndarray | None = None) -> Volume:
    """Return a volume that is canonical once the given axes are flipped; every voxel is different."""
    if affine is None:
        affine = np.eye(4)
        for axis, direction in CANONICAL.items():
            affine[:3, axis] = np.array(direction) * (-1 if axis in flipped else 1)
    array = np.flip(np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE), flipped) if flipped else None
    if array is None:
        array = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    return Volume(array=array, affine=affine, headers=(), frames=())


def rotated(*, about: int, degrees: float) -> np.ndarray:
    """Return the canonical affine turned about LPS axis 0, 1 or 2."""
    a, b = [i for i in range(3) if i != about]
    turn = np.eye(4)
    turn[a, a] = turn[b, b] = np.cos(np.radians(degrees))
    turn[a, b], turn[b, a] = -np.sin(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.asarray(turn @ volume().affine)


ALL_FLIPS = [tuple(axis for axis in range(3) if chosen[axis]) for chosen in product((False, True), repeat=3)]


@pytest.mark.parametrize("flipped", ALL_FLIPS)
def test_every_flip_is_undone(flipped):
    axial = orientation.axial(volume(flipped=flipped))
    assert axial.flipped == flipped
    assert np.array_equal(axial.array, volume().array)
    assert axial.array.flags.c_contiguous  # torch takes no negative strides


@pytest.mark.parametrize("flipped", ALL_FLIPS)
def test_a_box_and_the_slice_values_go_back_to_the_volume(flipped):
    original = volume(flipped=flipped)
    axial = orientation.axial(original)
    box = ((1, 0, 2), (2, 3, 5))
    (s0, r0, c0), (s1, r1, c1) = axial.box_back(box)
    assert 0 <= s0 < s1 <= 3
    there = original.array[s0:s1, r0:r1, c0:c1]
    assert np.array_equal(np.sort(there, axis=None), np.sort(axial.array[1:2, 0:3, 2:5], axis=None))
    means = axial.array.mean((1, 2))
    assert np.array_equal(axial.slices_back(means), original.array.mean((1, 2)))


def test_the_volume_itself_is_left_as_it_was():
    original = volume(flipped=(0, 1))
    before = original.array.copy()
    orientation.axial(original)
    assert np.array_equal(original.array, before)


@pytest.mark.parametrize("degrees", [0, 20, -20, 60, 90])
def test_tilt_is_the_angle_of_the_slices_to_the_axial_plane(degrees):
    forward = volume(affine=rotated(about=0, degrees=degrees))
    assert tilt_degrees(forward) == pytest.approx(abs(degrees), abs=1e-4)
    assert turn_degrees(forward) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("degrees", [0, 15, -40, 90])
def test_a_turn_in_the_plane_is_no_tilt(degrees):
    turned = volume(affine=rotated(about=2, degrees=degrees))
    assert turn_degrees(turned) == pytest.approx(abs(degrees), abs=1e-4)
    assert tilt_degrees(turned) == pytest.approx(0, abs=1e-4)


def test_a_mirrored_position_is_no_tilt_and_no_turn():
    prone = volume(flipped=(1, 2))
    assert (tilt_degrees(prone), turn_degrees(prone)) == (0, 0)


def test_the_shear_of_a_tilted_gantry_counts_as_the_tilt_of_its_slices():
    affine = rotated(about=0, degrees=18)
    affine[:3, 0] = (0, 0, 2)  # the couch still moves along the patient
    assert tilt_degrees(volume(affine=affine)) == pytest.approx(18)


SAGITTAL = np.array([(4.0, 0, 0), (0, 0, -0.5), (0, 0.5, 0)])  # directions of slices, rows, columns: left, feet, back


def lying(order: tuple[int, int, int], flipped: tuple[int, ...]) -> Volume:
    """Return sagittal slices with rows and columns in this order, and axes against the usual direction."""
    usual = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    affine = np.eye(4)
    for own, axis in enumerate(order):
        affine[:3, own] = SAGITTAL[axis] * (-1 if axis in flipped else 1)
    return Volume(array=np.flip(usual, flipped).transpose(order), affine=affine, headers=(), frames=())


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1)])
@pytest.mark.parametrize("flipped", ALL_FLIPS)
def test_sagittal_slices_are_turned_and_turned_back(order, flipped):
    original = lying(order, flipped)
    found = sagittal(original)
    assert np.array_equal(found.array, np.arange(np.prod(SHAPE)).reshape(SHAPE))
    assert np.array_equal(found.array_back(found.array), original.array)
    (s0, r0, c0), (s1, r1, c1) = found.box_back(((1, 0, 2), (2, 3, 5)))
    there = original.array[s0:s1, r0:r1, c0:c1]
    assert np.array_equal(np.sort(there, axis=None), np.sort(found.array[1:2, 0:3, 2:5], axis=None))
