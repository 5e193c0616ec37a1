"""Selective search: the regions of an image, and every union of those that are alike."""

import numpy as np
import torch
from torchvision.ops import box_iou

from inference.evaluation import selective_search
from inference.evaluation.selective_search import proposals


def scene() -> tuple[np.ndarray, torch.Tensor]:
    """A bright square with a dim one in it, and a grey one beside, on dark noise."""
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 12, (96, 120)).astype(np.float32)
    boxes = [(10, 10, 50, 60), (20, 20, 40, 44), (70, 30, 104, 78)]
    for (left, top, right, bottom), grey in zip(boxes, (230, 120, 170), strict=True):
        image[top:bottom, left:right] += grey
    return image, torch.tensor(boxes).float()


def test_every_object_is_proposed_and_so_is_the_whole():
    image, boxes = scene()
    found = proposals(image)
    assert (box_iou(boxes, found).amax(1) > 0.8).all()
    assert found[0].tolist() == [0, 0, 120, 96]
    assert len(found) < 200


def test_proposals_are_boxes_in_the_image_each_once_from_large_to_small():
    found = proposals(scene()[0])
    assert len(found.unique(dim=0)) == len(found)
    assert (found[:, :2] >= 0).all()
    assert (found[:, 2:] <= torch.tensor([120, 96])).all()
    sides = found[:, 2:] - found[:, :2]
    assert (sides >= selective_search.LEAST).all()
    assert (sides.prod(1).diff() <= 0).all()


def test_the_same_image_has_the_same_proposals_and_no_more_than_wanted():
    image, _ = scene()
    found = proposals(image)
    assert torch.equal(proposals(image), found)
    assert torch.equal(proposals(image, most=5), found[:5])


def test_an_image_of_one_grey_is_one_region():
    assert proposals(np.full((40, 50), 7.0)).tolist() == [[0, 0, 50, 40]]


def strips() -> selective_search._Regions:
    """Three strips side by side: two dark ones and a bright one."""
    image, labels = np.zeros((20, 30)), np.repeat([0, 1, 2], 10)[None].repeat(20, 0)
    image[:, 20:] = 255
    return selective_search._described(image, labels)


def test_alike_neighbours_are_more_similar_and_strangers_never():
    regions = strips()
    assert regions.similarity(1)[0] > regions.similarity(1)[2]
    assert regions.similarity(0)[2] == selective_search.NEVER
    assert regions.similarity(1)[1] == selective_search.NEVER
    # Equal greys; slopes at the edge of the bright one; two thirds of the image; a union without a gap.
    shared = np.minimum(regions.slopes[0], regions.slopes[1]).sum()
    assert regions.similarity(0)[1] == 1 + shared + (1 - 400 / 600) + 1


def test_a_union_has_the_pixels_edges_neighbours_and_shares_of_both():
    regions = strips()
    regions.merge(1, 0)
    assert regions.sizes[1] == 400
    assert regions.boxes[1].tolist() == [0, 0, 20, 20]
    assert regions.touching[1].tolist() == [False, False, True]
    assert not regions.touching[0].any()
    regions.merge(2, 1)
    assert regions.boxes[2].tolist() == [0, 0, 30, 20]
    np.testing.assert_allclose(regions.greys[2][[0, -1]], [2 / 3, 1 / 3])
    np.testing.assert_allclose(regions.greys[2].sum(), 1)
    np.testing.assert_allclose(regions.slopes[2].sum(), 1)
