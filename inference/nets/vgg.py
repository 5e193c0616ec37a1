"""The convolutions of VGG-16 (Simonyan and Zisserman 2014, arXiv 1409.1556), with batch normalisation, at any width."""

from __future__ import annotations

from torch import nn
from torchvision.models.vgg import cfgs, make_layers

WIDTH = 64  # of the first convolutions, as published


def scaled(published: int, width: int) -> int:
    """A published number of channels or units at another width."""
    return published * width // WIDTH


def convolutions(width: int = WIDTH) -> nn.Sequential:
    """Images (batch, 3, height, width) to maps (batch, 8 x width, height/32, width/32); the last layer is a pooling."""
    layers = [one if isinstance(one, str) else scaled(one, width) for one in cfgs["D"]]
    net: nn.Sequential = make_layers(layers, batch_norm=True)
    return net
