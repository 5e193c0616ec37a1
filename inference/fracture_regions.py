"""From suspicious slices to regions of bone: Grad-CAM, cut to the bone, joined over neighbouring slices."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy import ndimage

from inference.explain import grad_cam
from inference.findings import Code, Finding, Mask, Measurement, Voxel
from inference.nets.cervical_fracture import images
from inference.nets.resnet import ResNet
from inference.preprocess.crop import Crop
from inference.preprocess.orientation import Oriented

VOLUME = Code(scheme="SCT", value="118565006", meaning="Volume")
BONE_HU = 200  # trabecular bone and everything denser
NEIGHBOURS = np.ones((3, 3, 3), bool)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The `[output.regions]` table of the pipeline configuration, where every key is explained."""

    cam_share: float
    bone_margin_mm: float
    min_volume_mm3: float
    max_findings: int


@dataclass(frozen=True)
class Scene:
    """The oriented volume, its crop for the network, and how they belong together."""

    array: np.ndarray
    #: (slices, size, size) HU.
    hu: torch.Tensor
    crop: Crop
    #: Distance between rows, mm.
    pixel_mm: float
    voxel_mm3: float

    @cached_property
    def heat(self) -> np.ndarray:
        """Where the network looked, in the shape of the array, 0..1 of the highest in each slice that was asked."""
        return np.zeros(self.array.shape, np.float32)


@dataclass(frozen=True)
class Region:
    """One connected region in the oriented volume."""

    #: First voxel and one past the last.
    box: tuple[Voxel, Voxel]
    #: bool, in the shape of the box.
    inside: np.ndarray
    #: The slice with the highest probability.
    key_slice: int

    def inside_of(self, box: tuple[slice, slice, slice], inside: np.ndarray) -> float:
        """The share of the region that lies in a mask, which is given by its box."""
        low = [max(a, side.start) for a, side in zip(self.box[0], box, strict=True)]
        high = [min(b, side.stop) for b, side in zip(self.box[1], box, strict=True)]
        if any(a >= b for a, b in zip(low, high, strict=True)):
            return 0.0
        mine = tuple(slice(a - start, b - start) for a, b, start in zip(low, high, self.box[0], strict=True))
        other = tuple(slice(a - side.start, b - side.start) for a, b, side in zip(low, high, box, strict=True))
        return float((self.inside[mine] & inside[other]).sum() / self.inside.sum())


@dataclass(frozen=True)
class Answer:
    """How probable a finding is: calibrated, as it left the network, and the standard deviation over the views."""

    probability: float
    raw: float
    spread: float


@dataclass(frozen=True)
class Shown:
    """A region with its number, as a finding and a mask in the orientation of the original volume."""

    region: Region
    axial: Oriented
    number: int
    code: Code
    site: Code
    level: str | None = None

    def finding(self, voxel_mm3: float, answer: Answer) -> Finding:
        """The finding with its probability."""
        key = self.region.key_slice
        volume = float(self.region.inside.sum()) * voxel_mm3 / 1000
        return Finding(
            tracking_id=f"fracture-{self.number}",
            code=self.code,
            site=self.site,
            level=self.level,
            probability=answer.probability,
            raw_probability=answer.raw,
            uncertainty=answer.spread,
            box=self.axial.box_back(self.region.box),
            key_slice=len(self.axial.array) - 1 - key if 0 in self.axial.flipped else key,
            measurements=(Measurement(name=VOLUME, value=round(volume, 3), unit="cm3"),),
        )

    def mask(self, shape: tuple[int, ...]) -> Mask:
        """The segment that belongs to the finding."""
        where = f"{self.level} suspected fracture" if self.level else "Suspected fracture"
        return Mask(
            label=f"{where} {self.number}",
            array=in_volume(self.region.box, self.region.inside, self.axial, shape),
            kind=self.code,
            tracking_id=f"fracture-{self.number}",
        )


def in_volume(box: tuple[Voxel, Voxel], inside: np.ndarray, axial: Oriented, shape: tuple[int, ...]) -> np.ndarray:
    """A mask in a box of the oriented volume as a mask of the original one."""
    array = np.zeros(shape, bool)
    (s0, r0, c0), (s1, r1, c1) = axial.box_back(box)
    array[s0:s1, r0:r1, c0:c1] = axial.array_back(inside)
    return array


def find(
    net: ResNet, scene: Scene, suspicious: np.ndarray, probability: np.ndarray, settings: Settings
) -> tuple[Region, ...]:
    """Regions in the suspicious slices, most probable first, never none."""
    hot = suspicious_places(net, scene, suspicious, settings)
    if not hot.any():  # no gradient at all: show the whole crop of the most suspicious slice
        most = suspicious[np.argmax(probability[suspicious])]
        hot[most] = scene.crop.put_back(torch.ones(1, 1, 1))[0].numpy() > 0
    labels, _ = ndimage.label(hot, structure=NEIGHBOURS)
    regions = [_region(span, labels[span] == number, probability) for number, span in _spans(labels)]
    large = [region for region in regions if region.inside.sum() * scene.voxel_mm3 >= settings.min_volume_mm3]
    kept = large or sorted(regions, key=lambda region: -int(region.inside.sum()))[:1]
    ranked = sorted(kept, key=lambda region: (-probability[region.key_slice], region.key_slice))
    return tuple(ranked[: settings.max_findings])


def in_vertebra(
    hot: np.ndarray, box: tuple[slice, slice, slice], inside: np.ndarray, probability: np.ndarray
) -> Region:
    """The hot places in the outline of a vertebra; the whole vertebra where there are none."""
    both = hot[box] & inside
    chosen = both if both.any() else inside
    (span,) = ndimage.find_objects(chosen.astype(np.uint8))
    there = tuple(
        slice(outer.start + inner.start, outer.start + inner.stop) for outer, inner in zip(box, span, strict=True)
    )
    return _region((there[0], there[1], there[2]), chosen[span], probability)


def hot_places(maps: torch.Tensor, bone: np.ndarray, share: float) -> np.ndarray:
    """Where the map reaches a share of its slice's maximum, on bone if there is any; (slices, rows, columns)."""
    highest = maps.amax((1, 2), keepdim=True)
    hot = ((maps >= share * highest) & (highest > 0)).numpy()
    on_bone = hot & bone
    # A slice whose map misses the bone keeps its map: the finding must not vanish.
    return np.asarray(np.where(on_bone.any((1, 2), keepdims=True), on_bone, hot))


def suspicious_places(net: ResNet, scene: Scene, suspicious: np.ndarray, settings: Settings) -> np.ndarray:
    """Where on bone the network looks in the suspicious slices: bool, in the shape of the scene's volume.

    The maps themselves are left in `scene.heat`.
    """
    maps = grad_cam(net, net.layer4, images(scene.hu[torch.from_numpy(suspicious)]))
    full = scene.crop.put_back(maps)
    scene.heat[suspicious] = full / full.amax((1, 2), keepdim=True).clamp_min(torch.finfo(full.dtype).tiny)
    reach = max(round(settings.bone_margin_mm / scene.pixel_mm), 1)
    disc = ndimage.generate_binary_structure(2, 1)[None]
    bone = ndimage.binary_dilation(scene.array[suspicious] > BONE_HU, disc, iterations=reach)
    hot = np.zeros(scene.array.shape, bool)
    hot[suspicious] = hot_places(full, bone, settings.cam_share)
    return hot


def _spans(labels: np.ndarray) -> list[tuple[int, tuple[slice, slice, slice]]]:
    return [(number, span) for number, span in enumerate(ndimage.find_objects(labels), start=1) if span]


def _region(span: tuple[slice, slice, slice], inside: np.ndarray, probability: np.ndarray) -> Region:
    (s0, r0, c0), (s1, r1, c1) = tuple(part.start for part in span), tuple(part.stop for part in span)
    key = s0 + int(np.argmax(probability[s0:s1]))
    return Region(((s0, r0, c0), (s1, r1, c1)), inside, key)
