"""A ResNet per slice and a bidirectional LSTM over the slices of one vertebra: is it fractured?"""

from __future__ import annotations

import torch
from torch import nn

from inference.nets.resnet import ResNet
from inference.nets.sequence import SliceSequence
from inference.preprocess.vertebra_crop import CHANNELS, NEIGHBOURS


class VertebraFracture(nn.Module):
    """Images (vertebrae, slices, 6, size, size) to logits per slice (vertebrae, slices) and vertebra (vertebrae,)."""

    def __init__(self, *, width: int = 64, units: int = 128, dropout: float = 0.0) -> None:
        super().__init__()
        self.slices = ResNet(width=width, channels=CHANNELS)
        self.slices.fc = nn.Identity()  # type: ignore[assignment]
        self.sequence = SliceSequence(features=32 * width, units=units, dropout=dropout)

    def begin_with(self, trained: ResNet) -> None:
        """Copy a network that finds fractures in slices, of the same width.

        Its three windows become the bone window of the slice in the middle; neighbours and outline begin with nothing.
        """
        state = {name: tensor for name, tensor in trained.state_dict().items() if not name.startswith("fc.")}
        first = torch.zeros_like(self.slices.conv1.weight)
        first[:, NEIGHBOURS] = state["conv1.weight"].sum(1)
        self.slices.load_state_dict({**state, "conv1.weight": first})

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        count, slices = images.shape[:2]
        flat = images.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        features = self.slices.features(flat).float().reshape(count, slices, -1)
        out: tuple[torch.Tensor, torch.Tensor] = self.sequence(features, torch.full((count,), slices))
        return out
