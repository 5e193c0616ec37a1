"""Where a network looked: Grad-CAM of single images (Selvaraju et al. 2017; paper 003, figure 3)."""

from __future__ import annotations

import torch
from torch import nn

BATCH = 16


def grad_cam(net: nn.Module, layer: nn.Module, images: torch.Tensor, *, output: int = 0) -> torch.Tensor:
    """(batch, channels, height, width) images to maps >= 0 (batch, h, w) at the resolution of the layer, on the CPU.

    The maps answer which places raised the logit `output`; their scale is comparable only inside one image.
    """
    from captum.attr import LayerGradCam  # costs a second to import, which only positive cases have to pay

    net.eval()
    method = LayerGradCam(net, layer)
    parts = []
    for first in range(0, len(images), BATCH):
        part = images[first : first + BATCH].to(next(net.parameters()).device).requires_grad_()
        maps = method.attribute(part, target=output, relu_attributions=True)
        parts.append(maps[:, 0].detach().cpu())
    return torch.cat(parts)
