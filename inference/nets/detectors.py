"""The detectors of papers 000, 002 and 004 by the names in settings and manifests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

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
