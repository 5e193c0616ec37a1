"""Faster R-CNN is torchvision's at the published size, and learns at any."""

import pytest
import torch
from torchvision.models.detection import fasterrcnn_resnet50_fpn

from inference import weights
from inference.nets import detectors, faster_rcnn
from inference.nets.detector_images import network_input
from tests.squares import batch, overfit, recalled

COMPACT = {
    "faster-rcnn-resnet50-fpn": {"width": 8, "pyramid": 32, "hidden": 64, "anchors": [8, 16, 32, 64, 128]},
    "faster-rcnn-vgg16": {"width": 8, "hidden": 64, "anchors": [24, 36, 52]},
}


def compact(name: str) -> torch.nn.Module:
    """A small net that looks at as many regions as its images of 64 pixels need."""
    torch.manual_seed(0)
    net = detectors.build(name, {"classes": 2, **COMPACT[name]})
    net.rpn._pre_nms_top_n["training"], net.rpn._post_nms_top_n["training"] = 200, 100
    net.roi_heads.fg_bg_sampler.batch_size_per_image = 32
    return net


def test_at_the_default_sizes_it_is_torchvisions_in_names_and_size():
    with torch.device("meta"):
        ours, theirs = (
            faster_rcnn.resnet50_fpn(classes=4),
            fasterrcnn_resnet50_fpn(weights=None, num_classes=5, weights_backbone=None),
        )
    assert [(name, one.shape) for name, one in ours.state_dict().items()] == [
        (name, one.shape) for name, one in theirs.state_dict().items()
    ]
    assert sum(one.numel() for one in ours.parameters()) == 41_367_656


def test_the_compact_size_of_the_settings_has_two_and_a_half_million_weights():
    with torch.device("meta"):
        net = faster_rcnn.resnet50_fpn(classes=4, width=16, pyramid=64, hidden=256)
    assert sum(one.numel() for one in net.parameters()) == pytest.approx(2.60e6, rel=0.01)


def test_vgg_has_its_published_convolutions_and_the_maps_of_the_paper():
    with torch.device("meta"):
        net = faster_rcnn.vgg16(classes=4)
        filters = [one for one in net.backbone.modules() if isinstance(one, torch.nn.Conv2d)]
        assert sum(one.weight.numel() + one.bias.numel() for one in filters) == 14_714_688
        batch, _ = net.transform([torch.zeros(3, 600, 800)])
        assert net.backbone(batch.tensors).shape == (1, 512, 38, 50)  # paper 000, section 5.4.3


def test_every_cell_of_vgg_has_the_nine_anchors_of_the_paper():
    with torch.device("meta"):
        assert faster_rcnn.vgg16(classes=4).rpn.anchor_generator.num_anchors_per_location() == [9]
    sizes = faster_rcnn.vgg16(classes=1, width=8, hidden=8).rpn.anchor_generator.cell_anchors[0]
    shapes = (sizes[:, 2:] - sizes[:, :2]).round()
    torch.testing.assert_close(
        shapes.prod(1).sqrt().sort().values, torch.tensor([128.0, 256, 512]).repeat_interleave(3), atol=1, rtol=0
    )
    torch.testing.assert_close(
        shapes[:, 1] / shapes[:, 0], torch.tensor([0.5, 1, 2]).repeat_interleave(3), atol=0.03, rtol=0
    )


def test_the_other_ratios_of_the_paper_are_a_choice():
    net = faster_rcnn.resnet50_fpn(classes=1, width=2, pyramid=4, hidden=4, ratios="section 5.4.1")
    assert net.rpn.anchor_generator.num_anchors_per_location() == [2] * 5
    with pytest.raises(KeyError, match=r"section 9"):
        faster_rcnn.resnet50_fpn(classes=1, width=2, ratios="section 9")


def test_the_second_stage_of_vgg_pools_the_one_map():
    pool = faster_rcnn.OneMapPool()
    maps = torch.zeros(1, 1, 8, 8)
    maps[0, 0, 2, 3] = 5.0
    boxes = [torch.tensor([[32.0, 16, 64, 48], [64.0, 64, 120, 120]])]
    pooled = pool({"0": maps}, boxes, [(128, 128)])
    assert pooled.shape == (2, 1, 7, 7)
    assert pooled.amax((1, 2, 3)).tolist() == [5, 0]


@pytest.mark.parametrize(("name", "size"), [("faster-rcnn-resnet50-fpn", 64), ("faster-rcnn-vgg16", 128)])
def test_it_learns_a_few_images_by_heart(name, size):
    net = compact(name)
    first, last = overfit(net, steps=60, rate=0.004, size=size)
    assert last < first / 3
    images, truths = batch(size)
    with torch.inference_mode():
        answers = net.eval()(images)
    assert recalled(answers, truths) > 0.8
    assert not (answers[0]["scores"] > 0.5).any()  # where nothing is
    assert all(answer["boxes"].dtype == torch.float32 for answer in answers)


@pytest.mark.parametrize("name", COMPACT)
def test_images_keep_their_size_and_boxes_lie_within(name):
    net = compact(name).eval()
    net.roi_heads.score_thresh = 0.0
    with torch.inference_mode():
        answers = net([torch.rand(3, 70, 90), torch.rand(3, 64, 64)])
    for answer, (height, width) in zip(answers, [(70, 90), (64, 64)], strict=True):
        assert len(answer["boxes"]) > 0
        assert (answer["boxes"] >= 0).all()
        assert (answer["boxes"] <= torch.tensor([width, height, width, height])).all()
        assert set(answer["labels"].tolist()) <= {1, 2}
        assert (answer["scores"].diff() <= 0).all()


@pytest.mark.parametrize("name", COMPACT)
def test_a_batch_without_any_box_trains(name):
    net, (images, _) = compact(name).train(), batch()
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    losses = net(images, [nothing] * 4)
    torch.stack(list(losses.values())).sum().backward()
    assert set(losses) == {"loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"}  # paper 000, 5.4.2
    assert all(one.grad is None or one.grad.isfinite().all() for one in net.parameters())


@pytest.mark.parametrize("name", COMPACT)
def test_bfloat16_does_not_stop_a_training_step(name):
    net = compact(name).train()
    with torch.autocast("cpu", torch.bfloat16):
        losses = net(*batch())
    torch.stack(list(losses.values())).sum().backward()
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize("name", COMPACT)
def test_weights_come_back_from_a_file(name, tmp_path):
    net = compact(name).eval()
    weights.save(tmp_path / "weights.safetensors", {"detector": net})
    from safetensors.torch import load_file

    other = detectors.build(name, {"classes": 2, **COMPACT[name]}).eval()
    weights.fill(other, load_file(tmp_path / "weights.safetensors"), part="detector")
    state = {
        key: value.half().float() if value.is_floating_point() else value for key, value in net.state_dict().items()
    }
    net.load_state_dict(state)
    images, _ = batch()
    with torch.inference_mode():
        for one, same in zip(net(images), other(images), strict=True):
            assert all(torch.equal(one[key], same[key]) for key in one)


def test_a_grey_image_becomes_three_equal_colours_between_0_and_1():
    image = torch.tensor([[0.0, 255.0], [51.0, 102.0]])
    colours = network_input(image)
    assert colours.shape == (3, 2, 2)
    assert torch.equal(colours[2], image / 255)


def test_a_detector_that_does_not_exist_is_named():
    with pytest.raises(ValueError, match="no detector 'yolov9': there is faster-rcnn-resnet50-fpn"):
        detectors.build("yolov9", {})
