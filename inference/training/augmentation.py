"""Random changes of training images: flip and rotation as in paper 003, and scale, shift, and HU changes."""

from __future__ import annotations

import math

import torch
from torch.nn.functional import affine_grid, grid_sample

from inference.preprocess.crop import PAD_HU

ROTATION = 10.0  # degrees, paper 003 section 3.2
SCALE = (0.85, 1.2)  # patients and crops differ in size
SHIFT = 0.05  # of the image
HU_GAIN, HU_OFFSET, HU_NOISE = 0.05, 20.0, 20.0  # scanners differ; not in the paper


def augment(hu: torch.Tensor, masks: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """(batch, rows, columns) HU and masks 0..1 to the same, each image moved with its mask."""
    count = len(hu)

    def uniform(low: float, high: float) -> torch.Tensor:
        return torch.rand(count, generator=generator) * (high - low) + low

    angle = uniform(-ROTATION, ROTATION) * math.pi / 180
    scale = uniform(*SCALE)
    flip = (uniform(0, 1) < 0.5).float() * 2 - 1
    cos, sin = angle.cos() * scale, angle.sin() * scale
    rows = [flip * cos, -sin, uniform(-SHIFT, SHIFT), flip * sin, cos, uniform(-SHIFT, SHIFT)]
    matrices = torch.stack(rows, 1).reshape(count, 2, 3)
    grid = affine_grid(matrices, [count, 1, *hu.shape[1:]], align_corners=False)
    # grid_sample pads with 0, so that black has to be 0 while the image is moved.
    both = grid_sample(torch.stack([hu.float() - PAD_HU, masks.float()], 1), grid, align_corners=False)
    moved = both[:, 0] + PAD_HU
    noise = torch.randn(hu.shape, generator=generator) * uniform(0, HU_NOISE)[:, None, None]
    gain, offset = uniform(1 - HU_GAIN, 1 + HU_GAIN), uniform(-HU_OFFSET, HU_OFFSET)
    return moved * gain[:, None, None] + offset[:, None, None] + noise, both[:, 1]
