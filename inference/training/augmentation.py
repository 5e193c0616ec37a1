"""Random changes of training images: flip and rotation as in paper 003, and scale, shift, and HU changes."""

from __future__ import annotations

import math

import torch
from torch.nn.functional import affine_grid, grid_sample

from inference.preprocess.crop import PAD_HU

ROTATION = 10.0  # degrees, paper 003 section 3.2
SCALE = (0.85, 1.2)  # patients and crops differ in size
SHIFT = 0.1  # of half the image
HU_GAIN, HU_OFFSET, HU_NOISE = 0.05, 20.0, 20.0  # scanners differ; not in the paper


def augment(hu: torch.Tensor, masks: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """HU and masks 0..1 to the same, both (batch, channels, size, size), moved and with other HU.

    The channels of an item, such as neighbouring slices, move alike.
    """
    # grid_sample pads with 0, so that black has to be 0 while the image is moved.
    both = _moved(torch.cat([hu.float() - PAD_HU, masks.float()], 1), generator)
    planes = hu.shape[1]
    return _changed(both[:, :planes] + PAD_HU, generator), both[:, planes:]


def _moved(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    angle = _uniform(images, -ROTATION, ROTATION, generator) * math.pi / 180
    scale = _uniform(images, *SCALE, generator)
    flip = (_uniform(images, 0, 1, generator) < 0.5).float() * 2 - 1
    right, down = (_uniform(images, -SHIFT, SHIFT, generator) for _ in range(2))
    cos, sin = angle.cos() * scale, angle.sin() * scale
    matrices = torch.stack([flip * cos, -sin, right, flip * sin, cos, down], 1).reshape(-1, 2, 3)
    grid = affine_grid(matrices, list(images.shape), align_corners=False)
    return grid_sample(images, grid, align_corners=False)


def _changed(hu: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    gain, offset, noise = (
        _uniform(hu, low, high, generator)[:, None, None, None]
        for low, high in ((1 - HU_GAIN, 1 + HU_GAIN), (-HU_OFFSET, HU_OFFSET), (0, HU_NOISE))
    )
    return hu * gain + offset + torch.randn(hu.shape, generator=generator).to(hu.device) * noise


def _uniform(images: torch.Tensor, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    """One number per item of the batch."""
    return (torch.rand(len(images), generator=generator) * (high - low) + low).to(images.device)
