"""How a YOLO writes boxes: what its maps say at each place, and how that is read.

A place is one anchor in one cell of one map. The places of all maps are in one row: for each map from the finest to
the coarsest, each of its anchors, its rows and its columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn.functional import softplus
from torchvision.ops import box_convert

STRIDES = (8, 16, 32)  # pixels per cell of the maps
#: What the maps say of a place: centre and size as the code writes them, objectness, classes, and perhaps the IoU.
CENTRE, EXTENT, OBJECT, CLASSES = slice(0, 2), slice(2, 4), 4, 5

#: Rows and columns of each map, from the finest to the coarsest.
Shapes = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Places:
    """Where the places are, in pixels."""

    #: (n, 2) left and upper edge of the cell in cells.
    cells: torch.Tensor
    #: (n, 2) width and height of the anchor in pixels.
    anchors: torch.Tensor
    #: (n, 1) pixels per cell.
    strides: torch.Tensor

    def __getitem__(self, chosen: torch.Tensor) -> Places:
        return Places(self.cells[chosen], self.anchors[chosen], self.strides[chosen])


@dataclass(frozen=True)
class Code:
    """Between boxes in pixels and what a map says."""

    #: Grid Sensitive (YOLOv4, arXiv 2004.10934): how far a sigmoid is stretched, so that borders of cells are reached.
    stretch: float
    #: Size over anchor: exp(t), or (2 sigmoid(t))^2, which cannot explode.
    extent: Literal["exponential", "square"]

    def centres(self, said: torch.Tensor) -> torch.Tensor:
        """Right and below the cell's edge, in cells."""
        centres: torch.Tensor = self.stretch * said[..., CENTRE].sigmoid() - (self.stretch - 1) / 2
        return centres

    def decode(self, said: torch.Tensor, places: Places) -> torch.Tensor:
        """(..., n, 4 or more) to boxes (..., n, 4) left, top, right, bottom in pixels."""
        middle = (self.centres(said) + places.cells) * places.strides
        raw = said[..., EXTENT]
        # Nothing is e^6 times as large as its anchor; a float would not hold the square of what comes after.
        relative = raw.clamp(max=6).exp() if self.extent == "exponential" else (2 * raw.sigmoid()).square()
        boxes: torch.Tensor = box_convert(torch.cat([middle, relative * places.anchors], -1), "cxcywh", "xyxy")
        return boxes

    def encode(self, boxes: torch.Tensor, places: Places) -> torch.Tensor:
        """Boxes (n, 4) in pixels to (n, 4): what a map should say at these places."""
        middle, size = box_convert(boxes, "xyxy", "cxcywh").split(2, -1)
        centre = torch.logit((middle / places.strides - places.cells + (self.stretch - 1) / 2) / self.stretch)
        relative = size / places.anchors
        extent = relative.log() if self.extent == "exponential" else torch.logit(relative.sqrt() / 2)
        return torch.cat([centre, extent], -1)


def in_a_row(maps: Sequence[torch.Tensor], anchors: int) -> torch.Tensor:
    """Maps (batch, anchors x values, rows, columns) to (batch, places, values)."""
    split = [one.reshape(len(one), anchors, -1, *one.shape[2:]) for one in maps]
    parts = [one.permute(0, 1, 3, 4, 2).flatten(1, 3) for one in split]
    return torch.cat(parts, 1)


def places(shapes: Shapes, anchors: torch.Tensor) -> Places:
    """Places of maps with these rows and columns; anchors (maps, anchors per map, 2) in pixels."""
    each = []
    for (rows, columns), some, stride in zip(shapes, anchors, STRIDES, strict=True):
        rows_of, columns_of = torch.arange(rows, device=anchors.device), torch.arange(columns, device=anchors.device)
        y, x = torch.meshgrid(rows_of, columns_of, indexing="ij")
        cells = torch.stack([x, y], -1).float().reshape(1, -1, 2).expand(len(some), -1, -1).reshape(-1, 2)
        each.append((cells, some.repeat_interleave(rows * columns, 0), torch.full_like(cells[:, :1], stride)))
    cells, of_places, strides = (torch.cat(some) for some in zip(*each, strict=True))
    return Places(cells, of_places, strides)


def place(shapes: Shapes, anchor: torch.Tensor, cells: torch.Tensor, *, per_map: int) -> torch.Tensor:
    """Position in the row of anchors (m,), counted over all maps, in cells (m, 2) left, top."""
    areas = torch.tensor([rows * columns for rows, columns in shapes], device=anchor.device)
    starts = areas.cumsum(0) - areas
    columns = torch.tensor([columns for _, columns in shapes], device=anchor.device)
    level = anchor // per_map
    within = (anchor % per_map) * areas[level] + cells[:, 1] * columns[level] + cells[:, 0]
    return starts[level] * per_map + within


def quality(said: torch.Tensor, classes: int, *, share: float) -> torch.Tensor:
    """(..., values) to scores (..., classes): objectness, and to `share` the IoU that the map expects, times class."""
    log_object = -softplus(-said[..., OBJECT])
    if share:
        log_object = (1 - share) * log_object - share * softplus(-said[..., CLASSES + classes])
    return log_object.exp().unsqueeze(-1) * said[..., CLASSES : CLASSES + classes].sigmoid()
