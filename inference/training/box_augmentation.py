"""Random changes of training images and their boxes, as the papers of the detectors name them.

All geometry is torchvision's `transforms.v2`; Keras' and PaddleDetection's names are given where they differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch.utils.data import Dataset
from torchvision.transforms import v2
from torchvision.tv_tensors import BoundingBoxes, Image

from inference.nets.detector_images import Target, network_input

LEAST = 2.0  # pixels: what is left of a box that was cut or scaled to less is not learnt
MIXUP_BETA = 1.5  # PP-YOLO, arXiv 2007.12099, section 3.2

#: A grey image (height, width) 0..255, boxes (k, 4) left, top, right, bottom in pixels, labels (k,) int64 from 1.
Labelled = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class LabelledImages(Protocol):
    """Images with their boxes, all of one size; an item is the same whenever it is read."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Labelled: ...


def unchanged(size: tuple[int, int]) -> v2.Transform:
    """No augmentation."""
    return v2.Identity()


def shao2024(size: tuple[int, int]) -> v2.Transform:
    """Paper 000, table 4: rotation_range 30, zoom_range 0.2, horizontal_flip, vertical_flip."""
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomVerticalFlip(),
            v2.RandomAffine(degrees=30, scale=(0.8, 1.2)),
            v2.SanitizeBoundingBoxes(min_size=LEAST),
        ]
    )


def quarters(size: tuple[int, int]) -> v2.Transform:
    """Turned and scaled a little, then cut to half the height and width: a step costs a quarter.

    Not flipped: in sagittal slices of patients the nose points left and the head up.
    """
    return v2.Compose(
        [
            v2.RandomAffine(degrees=10, scale=(0.8, 1.2)),
            v2.RandomCrop((size[0] // 2, size[1] // 2)),
            v2.SanitizeBoundingBoxes(min_size=LEAST),
        ]
    )


def ppyolov2(size: tuple[int, int]) -> v2.Transform:
    """PP-YOLOv2 and YOLOv3 in PaddleDetection: colour distort (here of grey), RandomExpand, RandomCrop, flip."""
    return v2.Compose(
        [
            v2.ColorJitter(brightness=0.5, contrast=0.5),
            v2.RandomZoomOut(side_range=(1.0, 2.0)),
            v2.RandomIoUCrop(),
            v2.RandomHorizontalFlip(),
            v2.Resize(size),
            v2.SanitizeBoundingBoxes(min_size=LEAST),
        ]
    )


def yolov5(size: tuple[int, int]) -> v2.Transform:
    """YOLOv5's scale 0.5, translate 0.1, value 0.4 and flip; its mosaic of four images is not reproduced."""
    return v2.Compose(
        [
            v2.ColorJitter(brightness=0.4),
            v2.RandomAffine(degrees=0, translate=(0.1, 0.1), scale=(0.5, 1.5)),
            v2.RandomHorizontalFlip(),
            v2.SanitizeBoundingBoxes(min_size=LEAST),
        ]
    )


#: By name in the settings; each is built for images of one size (height, width).
AUGMENTATIONS: dict[str, Callable[[tuple[int, int]], v2.Transform]] = {
    "none": unchanged,
    "shao2024": shao2024,
    "quarters": quarters,
    "ppyolov2": ppyolov2,
    "yolov5": yolov5,
}


@dataclass(frozen=True)
class Changed(Dataset[tuple[torch.Tensor, Target]]):
    """Images, each changed at random: (3, height, width) 0..1 and its target. Item n is the same in every process."""

    images: LabelledImages
    #: Position in `images` of each item.
    order: list[int]
    #: A name in `AUGMENTATIONS`.
    augmentation: str
    #: Chance of an item to be mixed with another one.
    mixup: float
    seed: int

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, Target]:
        with torch.random.fork_rng(devices=[]):  # transforms draw from torch's global generator only
            torch.manual_seed(self.seed + index)
            image, target = self._one(self.order[index])
            if torch.rand(()) < self.mixup:
                other = self._one(self.order[int(torch.randint(len(self.order), ()))])
                share = torch.distributions.Beta(torch.tensor(MIXUP_BETA), torch.tensor(MIXUP_BETA)).sample()
                image, target = mixed((image, target), other, float(share))
        return image, target

    def _one(self, at: int) -> tuple[torch.Tensor, Target]:
        image, boxes, labels = self.images[at]
        size = (image.shape[0], image.shape[1])
        shapes = BoundingBoxes(boxes, format="XYXY", canvas_size=size, dtype=torch.float32)
        change = AUGMENTATIONS[self.augmentation](size)
        changed, target = change(Image(network_input(image)[:1]), {"boxes": shapes, "labels": labels})
        weights = torch.ones(len(target["labels"]))
        target = {"boxes": target["boxes"].as_subclass(torch.Tensor), "labels": target["labels"], "weights": weights}
        return changed.as_subclass(torch.Tensor).expand(3, -1, -1), target


def mixed(
    one: tuple[torch.Tensor, Target], other: tuple[torch.Tensor, Target], share: float
) -> tuple[torch.Tensor, Target]:
    """MixUp (Zhang et al. 2017, arXiv 1710.09412) of images of one size: boxes of both, weighted by their share."""
    (a, first), (b, second) = one, other
    both = {key: torch.cat([first[key], second[key]]) for key in ("boxes", "labels")}
    weights = torch.cat([first["weights"] * share, second["weights"] * (1 - share)])
    return share * a + (1 - share) * b, {**both, "weights": weights}


def rescaled(
    images: list[torch.Tensor], targets: list[Target], factor: float
) -> tuple[list[torch.Tensor], list[Target]]:
    """Images of any size and their boxes, larger by a factor: the scale of a batch in multi-scale training."""
    if factor == 1:
        return images, targets
    sizes = [[round(side * factor) for side in image.shape[-2:]] for image in images]
    grown = [v2.functional.resize(image, size) for image, size in zip(images, sizes, strict=True)]
    return grown, [{**target, "boxes": target["boxes"] * factor} for target in targets]
