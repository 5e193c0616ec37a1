"""The two networks of paper 003 as one model: cropped HU in, slice and case logits out.

Training fits temperature and thresholds on these scores and the pipeline reports them: one path for both.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from inference import engine
from inference.nets.resnet import ResNet
from inference.nets.sequence import SliceSequence
from inference.preprocess import windows

VIEWS = 2  # as acquired, and mirrored left to right


@dataclass(frozen=True)
class Scores:
    """Logits of the case as acquired (row 0) and mirrored (row 1), on the CPU."""

    #: (views, slices)
    slices: torch.Tensor
    #: (views,)
    case: torch.Tensor


@dataclass(frozen=True)
class FractureNets:
    """Slice network and sequence network, in eval mode on one device."""

    slices: ResNet
    sequence: SliceSequence

    def score(self, hu: torch.Tensor) -> Scores:
        """(slices, size, size) HU of one case, from feet to head."""
        return self.score_features([features(self.slices, hu, flip=flip) for flip in (False, True)])

    def score_features(self, views: list[torch.Tensor]) -> Scores:
        """Features of each view, (slices, features)."""
        self.sequence.eval()
        with torch.inference_mode():
            slices, case = self.sequence(torch.stack(views), torch.tensor([len(view) for view in views]))
        return Scores(slices.cpu(), case.cpu())


def images(hu: torch.Tensor) -> torch.Tensor:
    """(slices, size, size) HU to network input (slices, 3, size, size)."""
    return windows.stack(hu).contiguous(memory_format=torch.channels_last)


def features(net: ResNet, hu: torch.Tensor, *, flip: bool = False) -> torch.Tensor:
    """(slices, size, size) HU to (slices, features), optionally of the mirror image."""
    net.eval()
    view = hu.flip(-1) if flip else hu
    return engine.in_batches(lambda part: net.features(images(part)), view, device=next(net.parameters()).device)
