"""ResNet-50 with a base width: 64 is the paper's network, 16 a compact one with the same topology.

He et al. 2015; block and initialisation are torchvision's, whose own ResNet fixes the width at 64.
State-dict names equal torchvision's `resnet50`.
"""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models.resnet import Bottleneck

BLOCKS = (3, 4, 6, 3)


class ResNet(nn.Module):
    """Image (batch, channels, height, width) to logits (batch, outputs); features are 32 x width long."""

    def __init__(self, *, width: int = 64, channels: int = 3, outputs: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = _stage(width, width, BLOCKS[0], stride=1)
        self.layer2 = _stage(4 * width, 2 * width, BLOCKS[1], stride=2)
        self.layer3 = _stage(8 * width, 4 * width, BLOCKS[2], stride=2)
        self.layer4 = _stage(16 * width, 8 * width, BLOCKS[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(32 * width, outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def middle(self, images: torch.Tensor) -> torch.Tensor:
        """(batch, channels, height, width) to the maps of the third stage (batch, 16 x width, height/16, width/16)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))  # (batch, width, height/4, width/4)
        maps: torch.Tensor = self.layer3(self.layer2(self.layer1(x)))
        return maps

    def pooled(self, middle: torch.Tensor) -> torch.Tensor:
        """Maps of the third stage to features (batch, 32 x width)."""
        return torch.flatten(self.avgpool(self.layer4(middle)), 1)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """(batch, channels, height, width) to (batch, 32 x width)."""
        return self.pooled(self.middle(images))

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """(batch, 32 x width) to logits (batch, outputs)."""
        logits: torch.Tensor = self.fc(self.dropout(features))
        return logits

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(batch, channels, height, width) to logits (batch, outputs)."""
        return self.classify(self.features(images))


def _stage(channels: int, planes: int, blocks: int, *, stride: int) -> nn.Sequential:
    """Bottleneck blocks; the first one changes resolution and width."""
    expanded = planes * Bottleneck.expansion
    downsample = nn.Sequential(
        nn.Conv2d(channels, expanded, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(expanded)
    )
    first = Bottleneck(channels, planes, stride, downsample)
    return nn.Sequential(first, *(Bottleneck(expanded, planes) for _ in range(blocks - 1)))
