"""R-CNN and Fast R-CNN find what is on the images that they learnt from, given proposals."""

import numpy as np
import torch
from torch import nn
from torchvision.ops import box_iou

from inference.evaluation import rcnn
from inference.evaluation.selective_search import proposals
from inference.nets import faster_rcnn
from tests.squares import batch, overfit, recalled


class Patches(nn.Module):
    """Features without learning: an image of 8 x 8 pixels, and how much of it is bright or dim."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        grey = nn.functional.adaptive_avg_pool2d(images[:, :1], 8).flatten(1)
        return torch.cat([grey, ((grey - 0.47).abs() < 0.1).float(), (grey > 0.8).float()], 1)


def shifted(image: np.ndarray) -> torch.Tensor:
    """Squares of three sizes on a grid: proposals of which few are good."""
    at = torch.cartesian_prod(torch.arange(0, 48, 5), torch.arange(0, 48, 5)).float()
    boxes = torch.cat([torch.cat([at, at + side], 1) for side in (14, 19, 24)])
    return boxes[(boxes[:, 2:] <= torch.tensor([image.shape[1], image.shape[0]])).all(1)]


def test_rcnn_finds_and_names_what_it_learnt():
    images, targets = batch()
    net = rcnn.fit(Patches(), shifted, images, targets, classes=2)
    answers = net(images)
    hits = []
    for answer, target in zip(answers, targets, strict=True):
        best = slice(len(target["labels"]))
        near = box_iou(target["boxes"], answer["boxes"][best]) > 0.3  # no proposal fits exactly
        hits += (near & (target["labels"][:, None] == answer["labels"][best])).any(1).tolist()
        assert (answer["scores"].diff() <= 0).all()
    assert np.mean(hits) > 0.8


def test_rcnn_learns_from_images_without_a_box():
    images, targets = batch()
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    net = rcnn.fit(Patches(), shifted, images[:2], [nothing, targets[1]], classes=2)
    assert not (net(images[:1])[0]["scores"] > 0.5).any()


def test_edges_are_moved_towards_the_object():
    boxes = torch.tensor([[10.0, 10, 30, 30], [12, 8, 30, 34], [60, 60, 80, 90]])
    target = {"boxes": torch.tensor([[11.0, 11, 33, 31], [62, 58, 80, 88]]), "labels": torch.tensor([1, 2])}
    moves, used = rcnn._moves(boxes, target, rcnn._overlaps(boxes, target, 2))
    assert used.tolist() == [[True, False], [True, False], [False, True]]
    torch.testing.assert_close(rcnn._moved(boxes[:2], moves[:2, 0]), target["boxes"][[0, 0]])
    torch.testing.assert_close(rcnn._moved(boxes[2:], moves[2:, 1]), target["boxes"][[1]])


def test_ridge_regression_is_least_squares_for_many_examples():
    generator = torch.Generator().manual_seed(0)
    table, truth = torch.randn(200_000, 3, generator=generator), torch.randn(3, 4, generator=generator)
    torch.testing.assert_close(rcnn._ridge(table, table @ truth), truth, atol=0.02, rtol=0)


def test_the_classifiers_part_what_a_line_can_part_whatever_the_shares():
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(400, 2, generator=generator)
    side = points[:, 0] - points[:, 1]
    points, side = points[side.abs() > 0.1], side[side.abs() > 0.1]
    rare = (side < 0) | (torch.arange(len(side)) % 20 == 0)
    table, yes = rcnn._with_one(points[rare]), side[rare] > 0
    answers = torch.where(yes, 1.0, -1.0)[:, None]
    said = table @ rcnn._hinge(table, answers)
    assert ((said > 0) == (answers > 0)).double().mean() > 0.97


def fast() -> rcnn.FastRCNN:
    torch.manual_seed(0)
    net = faster_rcnn.resnet50_fpn(classes=2, width=8, pyramid=32, hidden=64, anchors=[8, 16, 32, 64, 128])
    net.roi_heads.fg_bg_sampler.batch_size_per_image = 32
    return rcnn.FastRCNN(net, shifted)


def test_fast_rcnn_learns_on_the_proposals_it_is_given():
    net = fast()
    first, last = overfit(net, steps=60, rate=0.004)
    assert last < first / 4
    images, targets = batch()
    with torch.inference_mode():
        assert recalled(net.eval()(images), targets) > 0.8


def test_both_take_the_proposals_of_selective_search():
    images, targets = batch()
    learnt = rcnn.fit(Patches(), proposals, images[:2], targets[:2], classes=2)
    net = fast()
    net.propose = proposals
    with torch.inference_mode():
        for answers in (learnt(images[:2]), net.eval()(images[:2])):
            assert len(answers) == 2
            assert all(set(answer) == {"boxes", "labels", "scores"} for answer in answers)
