"""The four steps: each teaches its parts alone, and the shared convolutions rest bit by bit in the last two."""

import copy

import pytest
import torch

from inference.nets import faster_rcnn
from inference.training import alternating, detection
from inference.training.alternating import Step
from inference.training.detection import DetectionData, DetectionSettings
from tests.cases import silent
from tests.squares import Squares, batch, found

SETTINGS = DetectionSettings(
    detector="faster-rcnn-vgg16",
    arguments={"classes": 2, "width": 2, "hidden": 8, "anchors": [12, 18, 26]},
    augmentation="none",
    mixup=0.0,
    scales=[1.0],
    epochs=1,
    batch=2,
    learning_rate=0.02,
    weight_decay=1e-4,
    warmup_epochs=0,
    drop_epochs=[],
    clip_norm=10.0,
    average=0.5,
    patience=1,
    seed=0,
)
DATA = DetectionData(training=Squares(4), validation=Squares(4, seed=1), score=found, made_with={"data": "squares"})


def net():
    untrained = detection.untrained(SETTINGS)
    untrained.rpn._post_nms_top_n = {"training": 50, "testing": 20}
    return untrained


def state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Weights and statistics; the counts of batches, which torch averages in float32, decide nothing."""
    return {name: value.clone() for name, value in module.state_dict().items() if value.is_floating_point()}


def changed(step: Step) -> set[str]:
    """The parts of the net of which a tensor is another after one update in training mode."""
    before = state(step.net)
    optimizer = torch.optim.SGD([one for one in step.parameters() if one.requires_grad], lr=0.1)
    torch.stack(list(step.train()(*batch()).values())).sum().backward()
    optimizer.step()
    return {name.split(".")[0] for name, value in state(step.net).items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize(
    ("learning", "names"),
    [
        (["backbone", "rpn"], {"loss_objectness", "loss_rpn_box_reg"}),
        (["backbone", "roi_heads"], {"loss_classifier", "loss_box_reg"}),
        (["rpn"], {"loss_objectness", "loss_rpn_box_reg"}),
        (["roi_heads"], {"loss_classifier", "loss_box_reg"}),
    ],
)
def test_each_step_changes_what_learns_and_nothing_else(learning, names):
    proposer = net() if learning == ["backbone", "roi_heads"] else None
    before = None if proposer is None else state(proposer)
    step = Step(net(), learning, proposer)
    assert set(step.train()(*batch())) == names
    assert changed(step) == set(learning)
    if proposer is not None:
        assert all(torch.equal(value, before[name]) for name, value in state(proposer).items())


def test_the_last_two_steps_leave_the_shared_convolutions_bit_by_bit(tmp_path, monkeypatch):
    seen = []
    original = detection.train

    def watched(step, *rest, **options):
        before = copy.deepcopy(step)
        trained, history = original(step, *rest, **options)
        seen.append((before, copy.deepcopy(trained)))
        return trained, history

    monkeypatch.setattr(detection, "train", watched)
    final, curves = alternating.train(
        net(),
        DATA,
        SETTINGS,
        folder=tmp_path,
        device=torch.device("cpu"),
        progress=silent,
    )
    shared = state(seen[1][1].net.backbone)
    for _, trained in seen[2:]:
        for name, value in state(trained.net.backbone).items():
            assert torch.equal(value, shared[name]), name
    assert all(torch.equal(value, shared[name]) for name, value in state(final.backbone).items())
    # Steps 1 and 2 start alike, from the untrained net, and end with different convolutions.
    first, second = (state(before.net) for before, _ in seen[:2])
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert not torch.equal(seen[0][1].net.backbone[0].weight, seen[1][1].net.backbone[0].weight)
    # Step 3 goes on with the proposals of step 1, step 4 with the detection of step 2.
    proposals, heads = state(seen[0][1].net.rpn), state(seen[1][1].net.roi_heads)
    assert all(torch.equal(value, proposals[name]) for name, value in state(seen[2][0].net.rpn).items())
    assert all(torch.equal(value, heads[name]) for name, value in state(seen[3][0].net.roi_heads).items())
    assert list(curves) == [f"step-{n}" for n in range(1, 5)]
    assert not final.training
    assert all(one.requires_grad for one in final.parameters())


def test_the_result_answers_as_its_last_step_did(tmp_path):
    final, _ = alternating.train(net(), DATA, SETTINGS, folder=tmp_path, device=torch.device("cpu"), progress=silent)
    step, (images, _) = Step(copy.deepcopy(final), ["roi_heads"]).eval(), batch()
    with torch.inference_mode():
        for one, same in zip(final(images), step(images), strict=True):
            assert all(torch.equal(one[key], same[key]) for key in one)


def test_proposals_are_judged_by_the_share_of_boxes_they_find():
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 40, 40], [50, 0, 60, 10]])
    truths = [{"boxes": boxes}, {"boxes": torch.zeros(0, 4)}, {"boxes": boxes[:1]}]
    answers = [{"boxes": boxes[:2] + 1}, {"boxes": boxes}, {"boxes": torch.zeros(0, 4)}]
    assert alternating.share_found(answers, truths) == 0.5


def test_a_step_of_the_pyramid_takes_its_maps_by_name():
    whole = faster_rcnn.resnet50_fpn(classes=2, width=2, pyramid=4, hidden=8)
    step = Step(whole, ["roi_heads"])
    assert set(step.train()(*batch())) == {"loss_classifier", "loss_box_reg"}
    assert not whole.backbone.training
    assert whole.roi_heads.training
