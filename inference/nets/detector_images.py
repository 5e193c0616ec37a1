"""What every detector makes of its images: one normalised batch, each image at the size it was given."""

from __future__ import annotations

import torch
from torchvision.models.detection.transform import GeneralizedRCNNTransform

#: Of torchvision's and PaddleDetection's pre-trained weights, per colour.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STRIDE = 32  # rows and columns of a batch are multiples of it: that of the coarsest maps

Target = dict[str, torch.Tensor]
#: "boxes" (k, 4) left, top, right, bottom in pixels, "labels" (k,) from 1; answers have "scores" (k,), best first.
Detections = dict[str, torch.Tensor]


class ImagesAsGiven(GeneralizedRCNNTransform):  # type: ignore[misc]
    """torchvision's list of images (3, height, width) 0..1 to a padded batch, but without its resizing."""

    def __init__(self) -> None:
        super().__init__(0, 0, MEAN, DEVIATION, size_divisible=STRIDE)

    def resize(self, image: torch.Tensor, target: Target | None = None) -> tuple[torch.Tensor, Target | None]:
        """The size of an image is decided where its pixels are."""
        return image, target


def network_input(image: torch.Tensor) -> torch.Tensor:
    """A grey image (height, width) 0..255, as papers 000 and 004 make them, to (3, height, width) 0..1."""
    return (image / 255).expand(3, -1, -1)
