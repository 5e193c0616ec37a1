"""Where and how networks run: the device, the batches, always float32.

Knows nothing about images. bfloat16 moves the logits of compact networks; they are calibrated in float32.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path

import torch

BATCH = 32


def choose_device(name: str = "auto") -> torch.device:
    """ "auto" is the first GPU if there is one; otherwise "cpu", "cuda" or "cuda:N"."""
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    if name.split(":")[0] not in ("cpu", "cuda"):
        raise ValueError(f'device "{name}": use "auto", "cpu" or "cuda:N"')
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f'device "{name}": this machine has {torch.cuda.device_count()} GPU(s); use "auto" or "cpu"')
    return device


def machine(device: torch.device) -> str:
    """What a training or a measurement ran on, for people who compare its seconds."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    known = Path("/proc/cpuinfo")  # on Linux alone
    lines = known.read_text().splitlines() if known.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {torch.get_num_threads()} threads"


def loader_processes(device: torch.device) -> int:
    """How many processes prepare training images: a GPU has to be fed; a CPU is better left to the network."""
    return min(os.cpu_count() or 1, 12) if device.type == "cuda" else 0


def in_batches(
    function: Callable[[torch.Tensor], torch.Tensor], inputs: torch.Tensor, *, device: torch.device, batch: int = BATCH
) -> torch.Tensor:
    """Apply a function along the first axis without gradients; the parts are moved to the device one by one."""
    with torch.inference_mode():
        parts = [function(inputs[i : i + batch].to(device)) for i in range(0, len(inputs), batch)]
        return torch.cat(parts)
