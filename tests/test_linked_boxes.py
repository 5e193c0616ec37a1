"""Boxes of slices become objects: what belongs together, what does not, and what is said of the whole."""

from __future__ import annotations

import pytest

from inference.linked_boxes import SliceBox, link


def box(
    at: int, left: float = 10.0, *, label: str = "oedema", probability: float = 0.5, size: float = 20.0
) -> SliceBox:
    edges = (left, 30.0, left + size, 30.0 + size)
    return SliceBox(slice=at, edges=edges, label=label, probability=probability, raw=probability / 2)


def slices(found) -> list[list[int]]:
    return [sorted(box.slice for box in one.boxes) for one in found]


def test_overlapping_boxes_of_neighbouring_slices_are_one_object():
    found = link([box(3), box(4, 12.0), box(5, 14.0)], same_label=True)
    assert slices(found) == [[3, 4, 5]]


@pytest.mark.parametrize("other", [box(5), box(3), box(4, 40.0), box(4, 24.0)])
def test_boxes_two_slices_apart_in_one_slice_or_elsewhere_are_two(other):
    assert slices(link([box(3), other], same_label=True)) == [[3], [other.slice]]


def test_a_chain_of_neighbours_joins_boxes_that_do_not_touch():
    assert slices(link([box(n, 10.0 + 8 * n) for n in range(5)], same_label=True)) == [[0, 1, 2, 3, 4]]


@pytest.mark.parametrize("other", [3, 4])
def test_classes_are_kept_apart_only_if_wanted(other):
    both = [box(3, label="disc"), box(other, label="herniation")]
    assert len(link(both, same_label=True)) == 2
    assert len(link(both, same_label=False)) == 1


def test_the_object_has_the_class_for_which_most_was_found():
    (one,) = link(
        [box(3, label="mixed", probability=0.6), box(4, probability=0.4), box(5, probability=0.3)], same_label=False
    )
    assert one.label == "oedema"
    assert (one.surest.label, one.surest.slice) == ("mixed", 3)


def test_the_surest_object_comes_first():
    found = link([box(3, probability=0.2), box(8, probability=0.9), box(4, probability=0.3)], same_label=True)
    assert [one.surest.probability for one in found] == [0.9, 0.3]


def test_the_extent_holds_all_boxes_and_stays_inside_the_volume():
    (one,) = link([box(3, -4.5), box(4, 0.5)], same_label=True)
    assert one.extent((9, 45, 45)) == ((3, 30, 0), (5, 45, 21))


def test_a_box_without_an_area_still_has_an_extent_of_one_voxel():
    (one,) = link([box(3, 44.0, size=0.0)], same_label=True)
    assert one.extent((9, 45, 45)) == ((3, 30, 44), (4, 31, 45))


def test_no_boxes_are_no_objects():
    assert link([], same_label=True) == []
