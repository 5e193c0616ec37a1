"""The YOLOs have their published sizes, say boxes as they read them, and learn."""

import math

import pytest
import torch
from torchvision.ops import box_iou

from inference import weights
from inference.nets import detectors
from inference.nets.yolo import assignment, losses, suppression
from inference.nets.yolo import detector as yolo
from inference.nets.yolo.anchors import PUBLISHED, of_boxes
from inference.nets.yolo.boxes import CLASSES, OBJECT, Code, in_a_row, place, places, quality
from inference.nets.yolo.resnet_vd import ModulatedDeformConv, ResNetVD
from tests.squares import batch, found, overfit

ANCHORS = [[side, side] for side in range(18, 45, 3)]
COMPACT = {
    "ppyolov2": {"width": 8, "neck": 32},
    "yolov3": {"width": 4, "neck": 32},
    "yolov5": {"width": 8},
}
SIDE = 96  # pixels: DropBlock needs three cells
SHAPES = [(12, 12), (6, 6), (3, 3)]
CODES = [yolo.YOLOV3.code, yolo.PPYOLOV2.code, yolo.YOLOV5.code]


def compact(name: str) -> yolo.YOLO:
    torch.manual_seed(0)
    return detectors.build(name, {"classes": 2, "anchors": ANCHORS, **COMPACT[name]})


def count(net: torch.nn.Module) -> int:
    return sum(one.numel() for one in net.parameters())


def anchors() -> torch.Tensor:
    return torch.tensor(PUBLISHED, dtype=torch.float32).reshape(3, 3, 2)


def boxes(number: int, seed: int = 0) -> torch.Tensor:
    """Random boxes within images of `SIDE`."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(number, 2, generator=generator) * SIDE / 2
    return torch.cat([corner, corner + 3 + torch.rand(number, 2, generator=generator) * SIDE / 2.5], 1)


def target(some: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"boxes": some, "labels": 1 + torch.arange(len(some)) % 2}


def test_ppyolov2_has_its_published_size():
    with torch.device("meta"):
        net, small = yolo.ppyolov2(classes=3), yolo.ppyolov2(classes=3, width=16, neck=96)
    assert count(net) == pytest.approx(54.2e6, rel=0.001)
    assert count(net.backbone) == pytest.approx(23.9e6, rel=0.001)
    assert count(small) == pytest.approx(2.68e6, rel=0.005)


def test_yolov3_has_its_published_size():
    with torch.device("meta"):
        net = yolo.yolov3(classes=80)
    assert count(net.backbone) == pytest.approx(40.6e6, rel=0.001)
    assert count(net) == pytest.approx(61.9e6, rel=0.001)


@pytest.mark.parametrize(
    ("width", "depth", "published"), [(16, 1 / 3, 1.9e6), (32, 1 / 3, 7.2e6), (48, 2 / 3, 21.2e6), (64, 1, 46.5e6)]
)
def test_yolov5_has_its_published_sizes(width, depth, published):
    with torch.device("meta"):
        assert count(yolo.yolov5(classes=80, width=width, depth=depth)) == pytest.approx(published, rel=0.015)


@pytest.mark.parametrize("name", COMPACT)
def test_the_maps_have_an_eighth_to_a_thirtysecond_of_the_resolution(name):
    net = compact(name).eval()
    with torch.inference_mode():
        maps = net.neck(net.backbone(torch.rand(1, 3, 64, 96)))
    assert [tuple(one.shape[2:]) for one in maps] == [(8, 12), (4, 6), (2, 3)]
    assert tuple(one.shape[1] for one in maps) == tuple(net.neck.channels)


def test_deformable_convolutions_are_in_the_last_stage_only_and_start_as_half_of_ordinary_ones():
    net = ResNetVD(width=4)
    deformable = {name for name, one in net.named_modules() if isinstance(one, ModulatedDeformConv)}
    assert {name.split(".")[1] for name in deformable} == {"3"}
    assert len(deformable) == 3
    layer = ModulatedDeformConv(4, stride=2)
    x = torch.rand(1, 4, 9, 9)
    ordinary = torch.nn.functional.conv2d(x, layer.conv.weight, stride=2, padding=1)
    torch.testing.assert_close(layer(x), ordinary / 2)


@pytest.mark.parametrize("code", CODES)
def test_decoding_inverts_encoding(code):
    where = places(SHAPES, anchors())
    some = boxes(20)
    at = assignment.best_anchor([target(some)], SHAPES, anchors()).place
    chosen = where[at]
    if code.extent == "square":  # at most four times the anchor
        keep = ((some[:, 2:] - some[:, :2]) / chosen.anchors < 4).all(1)
        some, chosen = some[keep], where[at[keep]]
    assert len(some) > 10
    torch.testing.assert_close(code.decode(code.encode(some, chosen), chosen), some, atol=1e-3, rtol=1e-4)


def test_grid_sensitive_reaches_the_border_of_a_cell_and_yolov3_does_not():
    said = torch.tensor([[12.0, -12.0, 0, 0]])
    assert Code(stretch=1.05, extent="exponential").centres(said).tolist()[0] == pytest.approx(
        [1.025, -0.025], abs=1e-4
    )
    assert Code(stretch=1.0, extent="exponential").centres(said)[0, 0] < 1
    assert Code(stretch=2.0, extent="square").centres(said).tolist()[0] == pytest.approx([1.5, -0.5], abs=1e-4)


def test_a_place_is_found_where_the_row_has_its_cell_and_anchor():
    where = places(SHAPES, anchors())
    assert len(where.cells) == 3 * sum(rows * columns for rows, columns in SHAPES)
    chosen, cells = torch.tensor([0, 2, 4, 8]), torch.tensor([[0, 0], [11, 7], [5, 2], [1, 2]])
    at = where[place(SHAPES, chosen, cells, per_map=3)]
    assert torch.equal(at.cells.long(), cells)
    assert torch.equal(at.anchors, anchors().flatten(0, 1)[chosen])
    assert at.strides[:, 0].tolist() == [8, 8, 16, 32]


def test_maps_lie_in_the_row_as_the_places_do():
    maps = [torch.arange(3 * 7 * rows * columns).reshape(1, 21, rows, columns) for rows, columns in SHAPES]
    row = in_a_row(maps, 3)
    at = place(SHAPES, torch.tensor([5]), torch.tensor([[4, 1]]), per_map=3)
    assert torch.equal(row[0, at[0]], maps[1][0, 2 * 7 : 3 * 7, 1, 4])


def test_each_box_gets_the_anchor_most_like_it_in_the_cell_of_its_centre():
    truth = assignment.best_anchor(
        [target(torch.zeros(0, 4)), target(torch.tensor([[20.0, 30, 52, 54], [5, 5, 90, 91]]))], SHAPES, anchors()
    )
    where = places(SHAPES, anchors())[truth.place]
    assert truth.image.tolist() == [1, 1]
    assert where.anchors.tolist() == [[33, 23], [116, 90]]
    assert where.cells.tolist() == [[4, 5], [1, 1]]
    assert truth.labels.tolist() == [0, 1]


def test_yolov5_asks_up_to_three_cells_and_every_anchor_of_about_the_size():
    truth = assignment.similar_anchors([target(torch.tensor([[20.0, 30, 52, 54]]))], SHAPES, anchors())
    where = places(SHAPES, anchors())[truth.place]
    wanted = [list(size) for size in PUBLISHED if max(32 / size[0], size[0] / 32, 24 / size[1], size[1] / 24) < 4]
    fine = where.cells[(where.anchors == torch.tensor([33.0, 23])).all(1)]
    assert sorted(fine.long().tolist()) == [[4, 4], [4, 5], [5, 5]] or sorted(fine.long().tolist()) == [
        [4, 5],
        [4, 6],
        [5, 5],
    ]
    assert sorted({tuple(size) for size in where.anchors.long().tolist()}) == sorted(map(tuple, wanted))
    assert len(truth.place) <= 3 * len(wanted)
    assert len(set(truth.place.tolist())) == len(truth.place)


@pytest.mark.parametrize("assign", [assignment.best_anchor, assignment.similar_anchors])
def test_a_box_on_the_last_edge_belongs_to_the_last_cell(assign):
    truth = assign([target(torch.tensor([[SIDE - 20.0, SIDE - 20, SIDE + 20, SIDE + 20]]))], SHAPES, anchors())
    cells = places(SHAPES, anchors())[truth.place]
    assert len(truth.place) > 0
    assert (truth.place < 3 * sum(rows * columns for rows, columns in SHAPES)).all()
    assert (cells.cells * cells.strides < SIDE).all()


def test_the_expected_overlap_shares_in_the_score():
    said = torch.tensor([[0, 0, 0, 0, 1.0, 2.0, -1.0, 0.5]])
    confidence, classes, overlap = (
        said[0, OBJECT].sigmoid(),
        said[0, CLASSES : CLASSES + 2].sigmoid(),
        said[0, 7].sigmoid(),
    )
    torch.testing.assert_close(quality(said, 2, share=0.5)[0], (confidence * overlap).sqrt() * classes)
    torch.testing.assert_close(quality(said, 2, share=0.0)[0], confidence * classes)


def slow_matrix_nms(some: torch.Tensor, scores: torch.Tensor) -> list[tuple[int, int, float]]:
    """SOLOv2, equations 2 to 4, box by box: (label, box, score)."""
    kept = []
    for label in range(scores.shape[1]):
        order = [int(n) for n in scores[:, label].argsort(descending=True) if scores[n, label] > suppression.LEAST]
        for rank, j in enumerate(order):
            decay = 1.0
            for i_rank, i in enumerate(order[:rank]):
                worst = max([float(box_iou(some[[k]], some[[i]])) for k in order[:i_rank]], default=0.0)
                decay = min(decay, (1 - float(box_iou(some[[i]], some[[j]]))) / (1 - worst))
            if float(scores[j, label]) * decay >= suppression.LEAST:
                kept.append((label + 1, j, float(scores[j, label]) * decay))
    return sorted(kept, key=lambda one: -one[2])


@pytest.mark.parametrize("seed", range(3))
def test_matrix_nms_is_what_its_paper_says(seed):
    some, scores = boxes(14, seed), torch.rand(14, 2, generator=torch.Generator().manual_seed(seed))
    scores[0] = 0.005
    answer = suppression.matrix(some, scores)
    wanted = slow_matrix_nms(some, scores)
    assert answer["labels"].tolist() == [label for label, _, _ in wanted]
    assert torch.equal(answer["boxes"], some[[at for _, at, _ in wanted]])
    assert answer["scores"].tolist() == pytest.approx([score for _, _, score in wanted], abs=1e-5)


def test_matrix_nms_leaves_one_of_identical_boxes_and_both_of_different_classes():
    some = torch.tensor([[0.0, 0, 10, 10]]).repeat(3, 1)
    answer = suppression.matrix(some, torch.tensor([[0.9, 0.0], [0.8, 0.0], [0.0, 0.7]]))
    assert list(zip(answer["labels"].tolist(), answer["scores"].tolist(), strict=True)) == [
        (1, pytest.approx(0.9)),
        (2, pytest.approx(0.7)),
    ]


def test_greedy_suppression_goes_class_by_class():
    some = torch.tensor([[0.0, 0, 10, 10], [1, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]])
    answer = suppression.greedy(some, torch.tensor([[0.5, 0.0], [0.9, 0.0], [0.0, 0.8], [0.3, 0.001]]))
    assert answer["labels"].tolist() == [1, 2, 1]
    assert torch.equal(answer["boxes"], some[[1, 2, 3]])


@pytest.mark.parametrize("suppress", [suppression.matrix, suppression.greedy])
def test_nothing_is_left_of_nothing(suppress):
    answer = suppress(boxes(5), torch.zeros(5, 2))
    assert [len(values) for values in answer.values()] == [0, 0, 0]


def test_anchors_are_the_sizes_of_the_boxes_from_small_to_large():
    sizes = torch.tensor(
        [[8, 16], [12, 12], [16, 9], [30, 30], [24, 48], [60, 25], [90, 90], [50, 180], [200, 100]]
    ).float()
    generator = torch.Generator().manual_seed(1)
    some = [
        torch.cat([torch.zeros_like(sizes), sizes + torch.rand(sizes.shape, generator=generator)], 1) for _ in range(20)
    ]
    answer = of_boxes([*some, torch.zeros(0, 4)], seed=3)
    assert answer == of_boxes(some, seed=3)
    torch.testing.assert_close(
        torch.tensor(sorted(answer)).float(), torch.tensor(sorted(sizes.tolist())), atol=1, rtol=0
    )
    areas = [width * height for width, height in answer]
    assert areas == sorted(areas)
    with pytest.raises(ValueError, match="18 boxes have fewer than 9 sizes"):
        of_boxes([boxes(6).repeat(3, 1)], seed=3)


@pytest.mark.parametrize(
    ("name", "steps", "rate"), [("ppyolov2", 60, 0.02), ("yolov3", 40, 0.02), ("yolov5", 80, 0.05)]
)
def test_it_learns_a_few_images_by_heart(name, steps, rate):
    net = compact(name)
    first, last = overfit(net, steps=steps, rate=rate, size=SIDE)
    assert last < first / 5
    images, truths = batch(SIDE)
    with torch.inference_mode():
        assert found(net.eval()(images), truths) > 0.7


@pytest.mark.parametrize("name", COMPACT)
def test_a_batch_without_any_box_trains(name):
    net, (images, _) = compact(name).train(), batch(SIDE)
    said = net(images, [target(torch.zeros(0, 4))] * 4)
    torch.stack(list(said.values())).sum().backward()
    assert [key for key, loss in said.items() if loss > 0] == ["objectness loss"]
    assert all(one.grad is None or one.grad.isfinite().all() for one in net.parameters())


@pytest.mark.parametrize("name", COMPACT)
def test_bfloat16_does_not_stop_a_step_and_boxes_stay_exact(name):
    net, (images, truths) = compact(name), batch(SIDE)
    with torch.autocast("cpu", torch.bfloat16):
        said = net.train()(images, truths)
        torch.stack(list(said.values())).sum().backward()
        with torch.no_grad():
            assert net._say(torch.stack(images)).values.dtype == torch.float32
    assert all(loss.isfinite() for loss in said.values())


@pytest.mark.parametrize("name", COMPACT)
def test_weights_come_back_from_a_file(name, tmp_path):
    from safetensors.torch import load_file

    net, other = compact(name), compact(name)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1).copy_(parameter.half())
    weights.save(tmp_path / "weights.safetensors", {"detector": net})
    weights.fill(other, load_file(tmp_path / "weights.safetensors"), part="detector")
    assert all(torch.equal(one, same) for one, same in zip(net.parameters(), other.parameters(), strict=True))
    assert torch.equal(net.anchors, other.anchors)


def test_images_of_other_sizes_are_answered_within_their_edges():
    net = compact("yolov3").eval()
    with torch.no_grad():
        for head in net.heads:
            head.bias.view(3, -1)[:, OBJECT:] = 2.0
    with torch.inference_mode():
        answers = net([torch.rand(3, 60, 90), torch.rand(3, 96, 50)])
    for answer, (height, width) in zip(answers, [(60, 90), (96, 50)], strict=True):
        assert len(answer["boxes"]) > 0
        assert (answer["boxes"] <= torch.tensor([width, height, width, height])).all()


def test_a_training_without_targets_is_refused():
    with pytest.raises(ValueError, match="needs targets"):
        compact("yolov3").train()([torch.rand(3, 64, 64)])


def said_of(net: yolo.YOLO, some: torch.Tensor) -> losses.Said:
    """What a perfect net says of one image with these boxes, all of the first class."""
    shapes, classes = SHAPES, net.classes
    where = places(shapes, net.anchors)
    values = torch.full((1, len(where.cells), CLASSES + classes + 1), -20.0)
    truth = assignment.best_anchor([target(some)], shapes, net.anchors)
    values[0, truth.place, :4] = net.recipe.code.encode(some, where[truth.place])
    values[0, truth.place, OBJECT] = 20
    values[0, truth.place, CLASSES + truth.labels] = 20
    values[0, truth.place, CLASSES + classes] = 20
    return losses.Said(values, where, shapes, net.anchors, net.recipe.code, classes, (SIDE, SIDE))


def test_who_says_everything_right_loses_nothing():
    net, some = compact("ppyolov2"), torch.tensor([[20.0, 30, 33, 44], [50, 50, 74, 72]])
    said = net.recipe.loss(said_of(net, some), [target(some)])
    assert {key: round(float(loss), 3) for key, loss in said.items()} == dict.fromkeys(said, 0)
    assert len(said) == 6


def test_a_place_that_found_a_box_of_another_place_well_is_excused():
    net, some = compact("yolov3"), torch.tensor([[20.0, 30, 40, 50]])
    said = said_of(net, some)
    at = int((said.values[0, :, OBJECT] > 0).nonzero())
    neighbour = at + 1
    said.values[0, neighbour, :4] = said.values[0, at, :4]
    said.values[0, neighbour, OBJECT] = 3
    shifted = said.code.decode(said.values[0, [neighbour]], said.places[torch.tensor([neighbour])])
    assert box_iou(shifted, some) < losses.IGNORED
    assert float(net.recipe.loss(said, [target(some)])["objectness loss"]) == pytest.approx(3, abs=0.1)
    said.values[0, neighbour, 0] = -20  # to the border of its own cell
    shifted = said.code.decode(said.values[0, [neighbour]], said.places[torch.tensor([neighbour])])
    assert box_iou(shifted, some) > losses.IGNORED
    assert float(net.recipe.loss(said, [target(some)])["objectness loss"]) == pytest.approx(0, abs=0.01)


def test_a_faded_box_counts_by_its_share():
    net, some = compact("ppyolov2"), torch.tensor([[20.0, 30, 33, 44]])
    said = said_of(net, some)
    said.values[..., CLASSES] = 0
    whole = net.recipe.loss(said, [target(some)])
    half = net.recipe.loss(said, [{**target(some), "weights": torch.tensor([0.5])}])
    assert float(whole["class loss"]) == pytest.approx(math.log(2), abs=1e-3)
    assert float(half["class loss"]) == pytest.approx(math.log(2) / 2, abs=1e-3)
