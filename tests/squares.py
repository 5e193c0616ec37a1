"""Images that a detector learns within seconds: bright and dim squares on noise, some images without any."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torchvision.ops import box_iou

from inference.nets.detector_images import Detections, Target, network_input
from inference.training import detection
from inference.training.box_augmentation import Labelled

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
            more, top, left = (torch.randint(0, 12, (3,), generator=generator) * self.size // SIZE).tolist()
            side, left = more + 14 * self.size // SIZE, left + number * self.size // 2
            right = min(left + side, self.size)
            label = BRIGHT if (index + number) % 2 else DIM
            image[top : top + side, left:right] = 240 if label == BRIGHT else 120
            boxes.append([left, top, right, top + side])
            labels.append(label)
        return image, torch.tensor(boxes).reshape(-1, 4).float(), torch.tensor(labels, dtype=torch.int64)


def right(answer: Detections, truth: Target) -> torch.Tensor:
    """(truths, answers): answers surer than 0.5, of the right label, and with an IoU above 0.5."""
    match = (box_iou(truth["boxes"], answer["boxes"]) > 0.5) & (truth["labels"][:, None] == answer["labels"])
    return match & (answer["scores"] > 0.5)


def found(answers: Sequence[Detections], truths: Sequence[Target]) -> float:
    """F1 of the answers that are surer than 0.5."""
    hits = sum(int(right(*pair).any(1).sum()) for pair in zip(answers, truths, strict=True))
    said = sum(int((answer["scores"] > 0.5).sum()) for answer in answers)
    return 2 * hits / max(said + sum(len(truth["labels"]) for truth in truths), 1)


def recalled(answers: Sequence[Detections], truths: Sequence[Target]) -> float:
    """Share of the truths that are found."""
    return float(torch.cat([right(*pair).any(1) for pair in zip(answers, truths, strict=True)]).double().mean())


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
    return [network_input(item[0]) for item in items], [detection.truth(item) for item in items]
