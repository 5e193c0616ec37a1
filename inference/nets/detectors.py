"""The detectors of papers 000, 002 and 004 by the names in settings and manifests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from inference.nets import faster_rcnn
from inference.nets.yolo import detector as yolo

DETECTORS: dict[str, Callable[..., nn.Module]] = {
    "faster-rcnn-resnet50-fpn": faster_rcnn.resnet50_fpn,
    "faster-rcnn-vgg16": faster_rcnn.vgg16,
    "ppyolov2": yolo.ppyolov2,
    "yolov3": yolo.yolov3,
    "yolov5": yolo.yolov5,
}


def build(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """An untrained detector; the arguments are those of its function. Raises ValueError for another name."""
    if name not in DETECTORS:
        raise ValueError(f"no detector {name!r}: there is {', '.join(DETECTORS)}")
    return DETECTORS[name](**arguments)


def coarsest(net: Any, images: list[torch.Tensor]) -> torch.Tensor:
    """What the backbone of any of these detectors makes of images: its coarsest map (images, channels, rows, columns).

    That of a Faster R-CNN with a feature pyramid is the pyramid's.
    """
    maps = net.backbone(net.transform(images)[0].tensors)
    if isinstance(maps, torch.Tensor):
        return maps
    coarsest: torch.Tensor = list(maps.values() if isinstance(maps, dict) else maps)[-1]
    return coarsest
