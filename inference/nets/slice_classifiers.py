"""The classifiers that paper 001 compares: one image in, which vertebra it shows and whether that is fractured out.

Section IV, figure 3: a custom CNN from scratch, and well-known networks for transfer learning. Each one is its
features (batch, n) followed by the same head; widths are arguments, the published networks are those of `PUBLISHED`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn
from torchvision.models import DenseNet

from inference.nets.inception_resnet_v2 import REPEATS, Encoder
from inference.nets.resnet import ResNet
from inference.nets.vgg import WIDTH as VGG_WIDTH
from inference.nets.vgg import convolutions, scaled

VERTEBRAE = 7
DENSE_BLOCKS = (6, 12, 24, 16)  # of DenseNet-121
VGG_LAST, VGG_HIDDEN = 512, 4096  # channels of the last convolution and of the two hidden layers, as published
#: Rows and columns of VGG's last maps for images of 128 pixels; published are 7 for 224 pixels.
VGG_CELLS = 4


@dataclass(frozen=True, kw_only=True)
class Widths:
    """The `[widths]` table of a protocol, where every key is explained."""

    cnn: Sequence[int]
    resnet: int
    vgg: int
    densenet: int
    inception: float
    repeats: Sequence[int]


PUBLISHED = Widths(cnn=(24, 48, 96, 128), resnet=64, vgg=VGG_WIDTH, densenet=32, inception=1.0, repeats=REPEATS)


@dataclass(frozen=True)
class Answer:
    """Logits for a batch of images."""

    #: (batch, 7), softmax: which of C1..C7 the image shows most of.
    vertebra: torch.Tensor
    #: (batch,), sigmoid: does it show a fracture?
    fracture: torch.Tensor


class SliceClassifier(nn.Module):
    """Images (batch, 3, height, width) 0..1 to `Answer`."""

    def __init__(self, features: nn.Module, count: int, *, dropout: float) -> None:
        super().__init__()
        self.features = features
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(count, VERTEBRAE + 1)

    def forward(self, images: torch.Tensor) -> Answer:
        logits = self.head(self.dropout(self.features(images)))
        return Answer(logits[:, :VERTEBRAE], logits[:, VERTEBRAE])


def custom_cnn(widths: Widths, dropout: float) -> SliceClassifier:
    """The paper's blocks of figure 3: convolution, ReLU, pooling, convolution, ReLU; dropout after each."""
    layers: list[nn.Module] = []
    for channels, out in pairwise((3, *widths.cnn)):
        layers += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        # Whole channels: neighbouring pixels of a map know each other's value.
        layers += [nn.Conv2d(out, out, 3, padding=1), nn.ReLU(inplace=True), nn.Dropout2d(dropout / 2)]
    for layer in layers:
        if isinstance(layer, nn.Conv2d):  # without normalisation layers, torch's own start loses the signal
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return SliceClassifier(nn.Sequential(*layers, *_pooled()), widths.cnn[-1], dropout=dropout)


def resnet50(widths: Widths, dropout: float) -> SliceClassifier:
    """He et al. 2015, arXiv 1512.03385."""
    net = ResNet(width=widths.resnet)
    count = net.fc.in_features
    net.fc = nn.Identity()  # type: ignore[assignment]
    return SliceClassifier(net, count, dropout=dropout)


def vgg16(widths: Widths, dropout: float) -> SliceClassifier:
    """Simonyan and Zisserman 2014, arXiv 1409.1556, with batch normalisation."""
    hidden = scaled(VGG_HIDDEN, widths.vgg)
    features = nn.Sequential(
        convolutions(widths.vgg),
        nn.AdaptiveAvgPool2d(VGG_CELLS),
        nn.Flatten(),
        nn.Linear(scaled(VGG_LAST, widths.vgg) * VGG_CELLS**2, hidden),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Linear(hidden, hidden),
        nn.ReLU(inplace=True),
    )
    return SliceClassifier(features, hidden, dropout=dropout)


def densenet121(widths: Widths, dropout: float) -> SliceClassifier:
    """Huang et al. 2016, arXiv 1608.06993; the width is the growth rate."""
    net = DenseNet(growth_rate=widths.densenet, block_config=DENSE_BLOCKS, num_init_features=2 * widths.densenet)
    count = net.classifier.in_features
    net.classifier = nn.Identity()
    return SliceClassifier(net, count, dropout=dropout)


def inception_resnet_v2(widths: Widths, dropout: float) -> SliceClassifier:
    """Szegedy et al. 2016, arXiv 1602.07261: the encoder of the U-Net as a classifier."""
    encoder = Encoder(width=widths.inception, repeats=widths.repeats)
    return SliceClassifier(nn.Sequential(encoder, _Coarsest(), *_pooled()), encoder.channels[-1], dropout=dropout)


#: By name in the tables; all but the first are for transfer learning.
CLASSIFIERS = {
    "custom CNN": custom_cnn,
    "ResNet-50": resnet50,
    "VGG-16": vgg16,
    "DenseNet-121": densenet121,
    "Inception-ResNet-v2": inception_resnet_v2,
}


class _Coarsest(nn.Module):
    """The last of an encoder's maps."""

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        return maps[-1]


def _pooled() -> tuple[nn.Module, nn.Module]:
    return nn.AdaptiveAvgPool2d(1), nn.Flatten()
