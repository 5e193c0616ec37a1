"""Images that a detector learns within seconds: bright and dim squares on noise, some images without any."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torchvision.ops import box_iou

from inference.nets.detector_images import Detections, Target, network_input
from inference.training.box_augmentation import Labelled
from inference.training.detection import truth

SIZE, BRIGHT, DIM = 64, 1, 2


@dataclass(frozen=True)
class Squares:
    """Up to two squares in each image; every fourth image is empty."""

    count: int
    size: int = SIZE
    seed: int = 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Labelled:
        generator = torch.Generator().manual_seed(1000 * self.seed + index)
        image = torch.rand(self.size, self.size, generator=generator) * 40
        boxes, labels = [], []
        for number in range(2 if index % 4 else 0):
            side, top, left = (int(n) for n in torch.randint(0, 12, (3,), generator=generator))
            side, top, left = side + 14, top, left + number * self.size // 2
            right = min(left + side, self.size)
            label = BRIGHT if (index + number) % 2 else DIM
            image[top : top + side, left:right] = 240 if label == BRIGHT else 120
            boxes.append([left, top, right, top + side])
            labels.append(label)
        return image, torch.tensor(boxes).reshape(-1, 4).float(), torch.tensor(labels, dtype=torch.int64)


def found(answers: Sequence[Detections], truths: Sequence[Target]) -> float:
    """F1 of the answers that are surer than 0.5: right are those of the right label with an IoU above 0.5."""
    right = said = there = 0
    for answer, real in zip(answers, truths, strict=True):
        sure = answer["scores"] > 0.5
        match = box_iou(real["boxes"], answer["boxes"][sure]) > 0.5
        match &= real["labels"][:, None] == answer["labels"][sure]
        right, said, there = right + int(match.any(1).sum()), said + int(sure.sum()), there + len(match)
    return 2 * right / max(said + there, 1)


def overfit(net: torch.nn.Module, *, steps: int, rate: float, size: int = SIZE) -> tuple[float, float]:
    """Learn the four images of `batch` by heart; the sums of the losses before and after."""
    inputs, targets = batch(size)
    optimizer = torch.optim.Adam(net.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    sums = []
    for _ in range(steps):
        loss = torch.stack(list(net.train()(inputs, targets).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        sums.append(float(loss.detach()))
    return sums[0], sums[-1]


def batch(size: int = SIZE) -> tuple[list[torch.Tensor], list[Target]]:
    """Four images, one of them empty, and their truths, as a detector takes them."""
    items = [Squares(4, size)[n] for n in range(4)]
    return [network_input(item[0]) for item in items], [truth(item) for item in items]
