"""Bidirectional LSTM over the slices of a case: features in, slice and case logits out.

Paper 003, section 2.2: the slice features of a case, in order, go through one bidirectional LSTM layer to
the case label. The second output, one logit per slice, lets neighbours correct a slice.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class SliceSequence(nn.Module):
    """Features (cases, slices, features) to logits per slice (cases, slices) and per case (cases,)."""

    def __init__(self, *, features: int = 2048, units: int = 128, dropout: float = 0.3) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(features)
        self.lstm = nn.LSTM(features, units, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(dropout)
        self.slice_head = nn.Linear(2 * units, 1)
        self.case_head = nn.Linear(4 * units, 1)

    def forward(self, features: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`lengths` (cases,) counts the true slices of each case; the rest is padding and has no influence."""
        inputs = self.dropout(self.norm(features))
        packed = pack_padded_sequence(inputs, lengths.cpu(), batch_first=True, enforce_sorted=False)
        hidden, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=features.shape[1])
        hidden = self.dropout(hidden)  # (cases, slices, 2 units)
        real = torch.arange(features.shape[1], device=features.device) < lengths.to(features.device)[:, None]
        highest = hidden.masked_fill(~real[..., None], -1.0).amax(1)  # LSTM outputs lie in (-1, 1)
        mean = (hidden * real[..., None]).sum(1) / lengths.to(hidden)[:, None]
        case: torch.Tensor = self.case_head(torch.cat([highest, mean], 1))  # (cases, 1)
        slices: torch.Tensor = self.slice_head(hidden)  # (cases, slices, 1)
        return slices[..., 0], case[:, 0]
