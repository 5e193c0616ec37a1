"""A synthetic CT of the cervical spine, with or without fractures, and the truth about every voxel.

Read `render`: soft tissue, then each vertebra in its own box, then the physics of the scanner. Nothing but
an acute fracture and its swelling depends on the label: both kinds are drawn from the same random streams,
and the same seed with `positive` true and false gives the same neck.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from inference.phantom import anatomy, fracture, fracture_sites, physics
from inference.phantom.anatomy import Points
from inference.phantom.soft_tissue import refine, soft_tissue
from inference.phantom.specification import (
    GENERATOR_VERSION,
    LEVELS,
    PROFILES,
    Neck,
    PhantomSpec,
    Point,
    Scan,
    Vertebra,
    streams,
)

_STREAMS = ("label", "spine", "neck", "scan", "fractures", "canals", "healed", "tissue", "trabeculae", "noise")
#: Average adult size in mm: width, depth, height, disc below, canal depth, pillar, spinous length, bifid.
_SIZES = {
    "C2": (19.0, 15.0, 17.0, 5.0, 17.0, 19.0, 16.0, 5.0),
    "C3": (19.5, 15.0, 13.5, 5.0, 15.5, 19.5, 13.0, 4.0),
    "C4": (20.5, 15.5, 13.0, 5.0, 15.0, 20.0, 13.0, 4.0),
    "C5": (22.0, 16.0, 13.0, 5.0, 15.0, 20.5, 15.0, 4.0),
    "C6": (24.0, 16.5, 13.5, 5.5, 15.0, 21.5, 20.0, 2.5),
    "C7": (26.5, 17.0, 15.0, 5.5, 15.0, 22.0, 29.0, 0.0),
    "T1": (28.0, 17.5, 17.0, 5.5, 15.5, 21.0, 31.0, 0.0),
}
WARP_MM = 0.7
GAP_HU = 45  # blood
VEIN_HU = 70
RIM_HU = 450  # added beside a healed fracture


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


def sample_spec(seed: int, profile: str = "standard", *, positive: bool | None = None) -> PhantomSpec:
    """Draw a phantom; `positive` forces the label (half of all seeds are positive otherwise)."""
    rng = streams(seed, _STREAMS)
    difficulty = PROFILES[profile]
    draw = rng["label"].random(2)
    label = draw[0] < 0.5 if positive is None else positive
    vertebrae = _draw_spine(rng["spine"])
    count = (1 + int(draw[1] > 0.6) + int(draw[1] > 0.9)) if label else 0
    acute = fracture_sites.draw_fractures(rng["fractures"], vertebrae, difficulty, count)
    return PhantomSpec(
        seed=seed,
        profile=profile,
        generator_version=GENERATOR_VERSION,
        scan=_draw_scan(rng["scan"], difficulty.noise_hu, vertebrae),
        neck=_draw_neck(rng["neck"]),
        vertebrae=vertebrae,
        fractures=acute + fracture_sites.draw_healed(rng["healed"], vertebrae, difficulty),
        canals=fracture_sites.draw_canals(rng["canals"], vertebrae, difficulty),
    )


def render(spec: PhantomSpec) -> Rendered:
    """Compute the voxels of a phantom. Pure: same spec, same voxels."""
    rng = streams(spec.seed, _STREAMS)
    x, y, z = _axes(spec.scan)
    coarse: Points = (x[..., ::2], y[:, ::2], z[::2])
    hu = refine(soft_tissue(spec, coarse, rng["tissue"]), spec.scan.shape)
    fractures = np.zeros(spec.scan.shape, np.uint8)
    vertebrae = np.zeros(spec.scan.shape, np.uint8)
    texture = _trabeculae(rng["trabeculae"])
    for shape in spec.vertebrae:
        _add_vertebra(spec, shape, (hu, fractures, vertebrae), texture)
    shoulder = 1 / (1 + np.exp((z.ravel() - spec.vertebrae[LEVELS.index("C6")].centre[2]) / 7))
    if spec.neck.filling:
        third = spec.vertebrae[LEVELS.index("C3")].centre
        at = (third[0] + 24, third[1] - spec.neck.jaw_gap - 22, third[2] + 13)
        hu = physics.fillings(hu, (x, y, z), at, rng["noise"])
    hu = physics.acquire(hu, spec.scan, shoulder, rng["noise"])
    volume = np.clip(np.rint(hu), -1024, 3071).astype(np.int16)
    return Rendered(spec, volume, fractures, vertebrae)


def rotation(shape: Vertebra) -> np.ndarray:
    """Columns are the vertebra's axes in world coordinates: side bend, then turn, then forward lean."""
    sp, cp, sy, cy = math.sin(shape.pitch), math.cos(shape.pitch), math.sin(shape.yaw), math.cos(shape.yaw)
    sr, cr = math.sin(shape.roll), math.cos(shape.roll)
    lean = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    turn = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    bend = np.array([[cr, 0, sr], [0, 1, 0], [-sr, 0, cr]])
    return np.asarray(lean @ turn @ bend, np.float32)


def _add_vertebra(
    spec: PhantomSpec, shape: Vertebra, arrays: tuple[np.ndarray, np.ndarray, np.ndarray], texture: np.ndarray
) -> None:
    """Write one vertebra into its box of the arrays (HU, fracture truth, vertebra labels)."""
    box = _box(spec.scan, shape)
    hu, fractures, vertebrae = (array[box] for array in arrays)
    turn = rotation(shape)
    points = _warped(_local(_axes(spec.scan), box, shape, turn), shape)
    planes = []
    for number, broken in enumerate(spec.fractures, start=1):
        if broken.level == shape.level:
            planes.append((number, fracture.plane(points, broken, _voxel_across(broken.normal, turn, spec.scan))))
    solid = points
    for _, plane in planes:
        solid = plane.shifted(solid)
    grain = _sampled(texture, hu.shape)
    distance = anatomy.vertebra(solid, shape) + np.float32(0.12) * grain
    bone = _bone_hu(spec.scan, distance, grain)
    inside = np.clip(0.5 - distance / np.float32(sum(spec.scan.spacing) / 3), 0, 1)
    for canal in spec.canals:
        if canal.level == shape.level:
            bone += (VEIN_HU - bone) * fracture.channel(points, canal, spec.scan.spacing[1])
    for number, plane in planes:
        bone += RIM_HU * plane.rim()
        bone += (GAP_HU - bone) * plane.gap()
        if not plane.fracture.healed:
            fractures[plane.truth() & (distance < 0)] = number
    hu += (bone - hu) * inside
    vertebrae[distance < 0] = LEVELS.index(shape.level) + 1


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


def _box(scan: Scan, shape: Vertebra) -> tuple[slice, slice, slice]:
    """Voxels that can contain the vertebra."""
    low, high = anatomy.extent(shape)
    corners = np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
    world = (corners[:, None, :] * rotation(shape)[None]).sum(-1) + np.array(shape.centre) - np.array(scan.origin)
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


def _draw_spine(rng: np.random.Generator) -> tuple[Vertebra, ...]:
    """From T1 upwards along a lordotic curve; returned from C1 down."""
    size = float(rng.uniform(0.9, 1.12))
    lean = np.linspace(rng.uniform(10, 26), rng.uniform(-14, 2), 7) + rng.normal(0, 1.5, 7)  # degrees
    bend, turn = rng.uniform(-5, 5, 2) / 7
    centre, below = np.zeros(3), 0.0
    spine: list[Vertebra] = []
    for index, level in enumerate(reversed(LEVELS[1:])):
        width, depth, height, disc, canal, pillar, spinous, bifid = (
            float(v) for v in np.array(_SIZES[level]) * size * rng.normal(1, 0.03, 8)
        )
        pitch = math.radians(lean[index])
        upward = np.array([math.sin(math.radians(bend * index)), -math.sin(pitch), math.cos(pitch)])
        centre = centre + (below + height / 2) * upward
        below = height / 2 + float(_SIZES[LEVELS[6 - index]][3] if index < 6 else 5.0) * size
        spine.append(
            Vertebra(
                level=level,
                centre=(float(centre[0]), float(centre[1]), float(centre[2])),
                pitch=pitch,
                yaw=math.radians(turn * index + rng.normal(0, 1.0)),
                roll=math.radians(bend * index + rng.normal(0, 1.0)),
                width=width,
                depth=depth,
                height=height,
                canal_depth=canal,
                pillar=pillar,
                stacking=height + disc,
                spinous=spinous * (0.7 if level == "C2" else 1.0),
                bifid=bifid,
                warp=_phases(rng),
            )
        )
    return (_draw_atlas(rng, spine[-1], size), *reversed(spine))


def _draw_atlas(rng: np.random.Generator, axis: Vertebra, size: float) -> Vertebra:
    """C1 sits around the dens of C2."""
    up = rotation(axis)[:, 2] * np.float32(axis.height / 2 + 8)
    x, y, z = (float(c + u) for c, u in zip(axis.centre, up, strict=True))
    return Vertebra(
        level="C1",
        centre=(x, y, z),
        pitch=axis.pitch + math.radians(rng.normal(0, 3)),
        yaw=axis.yaw + math.radians(rng.normal(0, 4)),
        roll=axis.roll,
        width=40 * size,
        depth=37 * size,
        height=10 * size,
        canal_depth=17 * size,
        pillar=18 * size,
        stacking=16 * size,
        spinous=0,
        bifid=0,
        warp=_phases(rng),
    )


def _draw_neck(rng: np.random.Generator) -> Neck:
    return Neck(
        half_width=float(rng.uniform(55, 70)),
        half_depth=float(rng.uniform(55, 66)),
        fat=float(rng.uniform(3, 9)),
        shoulders=float(rng.uniform(60, 110)),
        prevertebral=float(rng.uniform(3.5, 6)),
        airway=float(rng.uniform(8, 11)),
        jaw=bool(rng.random() < 0.8),
        jaw_gap=float(rng.uniform(16, 24)),
        filling=bool(rng.random() < 0.3),
    )


def _draw_scan(rng: np.random.Generator, noise_hu: tuple[float, float], vertebrae: tuple[Vertebra, ...]) -> Scan:
    top = vertebrae[0].centre[2] + float(rng.uniform(12, 30))
    bottom = vertebrae[-1].centre[2] - float(rng.uniform(2, 14))
    pixel, slice_mm = float(rng.uniform(0.62, 0.8)), float(rng.choice([1.0, 1.0, 1.25, 1.25, 1.5]))
    side = int(rng.choice([208, 224, 240]))
    middle = np.mean([v.centre for v in vertebrae], axis=0) + rng.uniform(-8, 8, 3)
    slices = int(round((top - bottom) / slice_mm))
    pixel = round(pixel, 4)
    return Scan(
        shape=(slices, side, side),
        spacing=(slice_mm, pixel, pixel),
        origin=(float(middle[0]) - side / 2 * pixel, float(middle[1]) + 4 - side / 2 * pixel, bottom),
        table=_point(np.round(rng.uniform((-20, 100, -900), (20, 220, 400)), 1)),
        noise_hu=float(rng.uniform(*noise_hu)),
        shoulder_noise=float(rng.uniform(0.6, 2.2)),
        blur_mm=float(rng.uniform(0.3, 0.5)),
        cortical_hu=float(rng.uniform(850, 1350)),
        trabecular_hu=float(rng.uniform(170, 400)),
        cortex_mm=float(rng.uniform(1.0, 1.7)),
        kvp=int(rng.choice([100, 120, 120, 140])),
        kernel=str(rng.choice(["Br59", "B60s", "BONE", "FC30"])),
    )


def _point(vector: np.ndarray) -> Point:
    x, y, z = (float(v) for v in vector)
    return x, y, z


def _phases(rng: np.random.Generator) -> tuple[float, float, float, float]:
    a, b, c, d = (float(p) for p in rng.uniform(0, 2 * math.pi, 4))
    return a, b, c, d
