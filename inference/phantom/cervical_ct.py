"""A synthetic CT of the cervical spine, with or without fractures, and the truth about every voxel.

Read `sample_spec` for what is drawn and in which order, then `render`: soft tissue, each vertebra in its own box,
metal, the physics of the scanner. Every component draws from a random stream of its own, and only the fractures
themselves (with their swelling and slip) depend on the label: the same seed with `positive` true and false gives
the same neck, the same mimics and the same scanner.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import gaussian_filter

from inference.phantom import anatomy, fracture, mechanisms, mimics, physics, spine
from inference.phantom.anatomy import Points
from inference.phantom.hardware import draw_implant, metal
from inference.phantom.head import head
from inference.phantom.scanning import draw_neck, draw_scan, visible_levels
from inference.phantom.soft_tissue import refine, soft_tissue
from inference.phantom.specification import (
    GENERATOR_VERSION,
    LEVELS,
    PROFILES,
    Lesion,
    PhantomSpec,
    Point,
    Scan,
    Vertebra,
    streams,
)

_STREAMS = (
    *("label", "spine", "wear", "variants", "fractures", "canals", "implant", "neck", "scan"),
    *("tissue", "trabeculae", "artefacts", "noise"),
)
POSITIVE_SHARE = 0.5
WARP_MM = 0.7
GAP_HU = 45  # blood
OLD_GAP_HU = 20  # fibrous tissue or cartilage
VEIN_HU = 70
RIM_HU = 450  # added beside an old break
CRUSHED_HU = 380  # added where trabeculae are impacted
METAL_HU = 3071


@dataclass(frozen=True)
class Rendered:
    """A phantom on its grid; arrays are (slices, rows, columns), slice 0 the lowest."""

    spec: PhantomSpec
    #: int16, HU.
    volume: np.ndarray
    #: uint8: 0 none, otherwise the position in `spec.acute` plus one.
    fractures: np.ndarray
    #: uint8: 0 none, otherwise the position in LEVELS plus one.
    vertebrae: np.ndarray


@dataclass(frozen=True)
class _Arrays:
    """What vertebrae are written into, on the grid of the scan."""

    hu: np.ndarray
    fractures: np.ndarray
    vertebrae: np.ndarray


def sample_spec(seed: int, profile: str = "standard", *, positive: bool | None = None) -> PhantomSpec:
    """Draw a phantom; `positive` forces the label (half of all seeds are positive otherwise)."""
    rng = streams(seed, _STREAMS)
    difficulty = PROFILES[profile]
    drawn = bool(rng["label"].random() < POSITIVE_SHARE)
    vertebrae = mimics.wear(rng["wear"], spine.draw_spine(rng["spine"]), difficulty.wear)
    scan = draw_scan(rng["scan"], difficulty, vertebrae)
    broken = mechanisms.draw_fractures(rng["fractures"], vertebrae, difficulty, visible=visible_levels(scan, vertebrae))
    broken = broken if (drawn if positive is None else positive) else []
    vertebrae, variants = mimics.draw_variants(
        rng["variants"], vertebrae, difficulty, broken=[item.lesion.level for item in broken]
    )
    canals = mimics.draw_canals(rng["canals"], vertebrae, difficulty)
    for item in broken:
        crushed = item.shape
        vertebrae = tuple(
            replace(v, front_loss=crushed.front_loss, back_loss=crushed.back_loss) if v.level == crushed.level else v
            for v in vertebrae
        )
        vertebrae = spine.slipped(vertebrae, item.lesion.level, item.slip_mm)
    return PhantomSpec(
        seed=seed,
        profile=profile,
        generator_version=GENERATOR_VERSION,
        scan=scan,
        neck=draw_neck(rng["neck"], difficulty),
        vertebrae=vertebrae,
        lesions=tuple(item.lesion for item in broken) + variants,
        canals=canals,
        implant=draw_implant(rng["implant"], difficulty),
    )


def render(spec: PhantomSpec) -> Rendered:
    """Compute the voxels of a phantom. Pure: same spec, same voxels."""
    rng = streams(spec.seed, _STREAMS)
    axes = _axes(spec.scan)
    coarse: Points = (axes[0][..., ::2], axes[1][:, ::2], axes[2][::2])
    tissue = soft_tissue(spec, coarse, rng["tissue"])
    arrays = _Arrays(
        hu=refine(head(tissue, spec, coarse), spec.scan.shape),
        fractures=np.zeros(spec.scan.shape, np.uint8),
        vertebrae=np.zeros(spec.scan.shape, np.uint8),
    )
    texture = _trabeculae(rng["trabeculae"])
    for shape in spec.vertebrae:
        _add_vertebra(spec, shape, arrays, texture)
    hu = physics.artefacts(arrays.hu, spec, axes, rng["artefacts"])
    hu = physics.acquire(hu, spec.scan, _shoulder(spec, axes[2]), rng["noise"])
    volume = np.clip(np.rint(hu), -1024, 3071).astype(np.int16)
    return Rendered(spec, volume, arrays.fractures, arrays.vertebrae)


def _shoulder(spec: PhantomSpec, z: np.ndarray) -> np.ndarray:
    """(slices,) 0..1: how much shoulder each slice crosses."""
    sixth = spec.vertebrae[LEVELS.index("C6")].centre[2]
    return np.asarray(1 / (1 + np.exp((z.ravel() - sixth) / 7)))


def _add_vertebra(spec: PhantomSpec, shape: Vertebra, arrays: _Arrays, texture: np.ndarray) -> None:
    """Write one vertebra into its box of the arrays (HU, fracture truth, vertebra labels)."""
    turn = spine.rotation(shape)
    box = _box(spec.scan, shape, turn)
    hu, fractures, vertebrae = arrays.hu[box], arrays.fractures[box], arrays.vertebrae[box]
    points = _warped(_local(_axes(spec.scan), box, shape, turn), shape)
    planes = [
        fracture.plane(points, source, _voxel_across(source.normal, turn, spec.scan), acute=lesion.acute)
        for lesion in spec.lesions
        if lesion.level == shape.level
        for source in lesion.breaks
    ]
    solid = points
    for plane in planes:
        solid = plane.shifted(solid)
    grain = _sampled(texture, hu.shape)
    distance = anatomy.vertebra(solid, shape) + np.float32(0.12) * grain
    bone = _bone_hu(spec.scan, distance, grain)
    if shape.sclerosis:
        bone += np.float32(shape.sclerosis) * np.exp(-((anatomy.beside_facet(solid, shape) / 2.5) ** 2))
    for canal in spec.canals:
        if canal.level == shape.level:
            bone += (VEIN_HU - bone) * fracture.channel(points, canal, spec.scan.spacing[1])
    truth = _break(spec, shape, (solid, bone), planes)
    inside = np.clip(0.5 - distance / np.float32(sum(spec.scan.spacing) / 3), 0, 1)
    hu += (bone - hu) * inside
    number = next((n for n, lesion in enumerate(spec.acute, start=1) if lesion.level == shape.level), 0)
    fractures[truth & (distance < 0)] = number
    vertebrae[distance < 0] = LEVELS.index(shape.level) + 1
    if spec.implant is not None:
        hu[metal(points, shape, spec.implant) < 0] = METAL_HU


def _break(
    spec: PhantomSpec, shape: Vertebra, where: tuple[Points, np.ndarray], planes: list[fracture.Plane]
) -> np.ndarray:
    """Open the gaps and press the crushed bone of one vertebra into its HU; where acute fracture is, bool."""
    solid, bone = where
    truth = np.zeros(bone.shape, bool)
    if shape.front_loss and _acute(spec, shape):
        crushed = fracture.crushed(solid, shape)
        bone += CRUSHED_HU * crushed
        truth |= crushed > 0.5
    for plane in planes:
        bone += RIM_HU * plane.rim()
        bone += ((GAP_HU if plane.acute else OLD_GAP_HU) - bone) * plane.gap()
        if plane.acute:
            truth |= plane.truth()
    return truth


def _acute(spec: PhantomSpec, shape: Vertebra) -> Lesion | None:
    return next((lesion for lesion in spec.acute if lesion.level == shape.level), None)


def _bone_hu(scan: Scan, distance: np.ndarray, grain: np.ndarray) -> np.ndarray:
    """Dense cortex that fades over its thickness into textured trabecular bone."""
    depth = np.maximum(-distance, 0) / np.float32(scan.cortex_mm)
    cortex = np.exp(-(depth**4))
    trabecular = np.float32(scan.trabecular_hu) * (1 + np.float32(0.3) * grain)
    return np.asarray(trabecular + (np.float32(scan.cortical_hu) - trabecular) * cortex, np.float32)


def _axes(scan: Scan) -> Points:
    """World x, y, z of the voxels as an open mesh, float32 mm."""
    z, y, x = (
        (start + step * np.arange(count)).astype(np.float32)
        for start, step, count in zip(reversed(scan.origin), scan.spacing, scan.shape, strict=True)
    )
    return x[None, None, :], y[None, :, None], z[:, None, None]


def _box(scan: Scan, shape: Vertebra, turn: np.ndarray) -> tuple[slice, slice, slice]:
    """Voxels that can contain the vertebra."""
    low, high = anatomy.extent(shape)
    corners = np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
    world = (corners[:, None, :] * turn[None]).sum(-1) + np.array(shape.centre) - np.array(scan.origin)
    first, last = world.min(0) - 2, world.max(0) + 2
    spans = zip(reversed(first), reversed(last), scan.spacing, scan.shape, strict=True)
    low_s, low_r, low_c = [
        slice(min(max(int(a / step), 0), n), min(max(int(b / step) + 1, 0), n)) for a, b, step, n in spans
    ]
    return low_s, low_r, low_c


def _local(axes: Points, box: tuple[slice, slice, slice], shape: Vertebra, turn: np.ndarray) -> Points:
    x = axes[0][:, :, box[2]] - np.float32(shape.centre[0])
    y = axes[1][:, box[1], :] - np.float32(shape.centre[1])
    z = axes[2][box[0], :, :] - np.float32(shape.centre[2])
    lx, ly, lz = (x * turn[0, k] + y * turn[1, k] + z * turn[2, k] for k in range(3))
    return lx, ly, lz


def _warped(points: Points, shape: Vertebra) -> Points:
    """Bend the coordinates a little so that left and right differ."""
    x, y, z = points
    a, b, c, d = (np.float32(phase) for phase in shape.warp)
    size = np.float32(WARP_MM)
    side = size * np.sin(y * np.float32(0.13) + a) + size * np.sin(z * np.float32(0.2) + b)
    return x + side, y + size * np.sin(x * np.float32(0.16) + c), z + size * np.sin(x * np.float32(0.14) + d)


def _voxel_across(normal: Point, turn: np.ndarray, scan: Scan) -> float:
    """Width of a voxel seen along a direction given in the vertebra's axes, mm."""
    world = (turn * np.array(normal, np.float32)[None]).sum(-1)  # x, y, z
    return float(np.sqrt(((world * np.array(scan.spacing[::-1])) ** 2).sum()))


def _trabeculae(rng: np.random.Generator) -> np.ndarray:
    """A tile of trabecular texture, mean 0 and standard deviation 1: two grain sizes of filtered noise."""
    white = rng.standard_normal((2, 48, 128, 128), dtype=np.float32)
    fine = gaussian_filter(white[0], 0.8, mode="wrap")
    coarse = gaussian_filter(white[1], 2.5, mode="wrap")
    mixed = fine / fine.std() + 0.7 * coarse / coarse.std()
    return np.asarray(mixed / mixed.std(), np.float32)


def _sampled(texture: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The texture tile repeated to a shape."""
    indices = [np.arange(count) % tile for count, tile in zip(shape, texture.shape, strict=True)]
    return np.asarray(texture[np.ix_(*indices)])
