"""What is in the spinal canal: fat, the sac with its fluid, cord, roots, and what is wrong with them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from inference.phantom.mr.canvas import Canvas
from inference.phantom.mr.specification import CordLesion, Disc, MRPhantomSpec
from inference.phantom.mr.tissue import TISSUES, Tissue
from inference.phantom.specification import Vertebra

CORD, CANAL = "cord", "canal"
SIDE = 0.78  # half width of the canal as a share of its depth
ROOTS = 22
#: Cervical cord by level: half depth and half width, mm (the cervical enlargement is at C5).
_CORD = {"C1": (4.2, 5.6), "C3": (3.9, 6.2), "C5": (3.8, 6.8), "C7": (3.6, 6.0), "T2": (3.4, 4.8), "T5": (3.2, 4.4)}
_LOWER_CORD = {"T9": (3.2, 4.3), "T10": (3.3, 4.4), "T11": (3.7, 4.8), "T12": (3.9, 5.0)}


@dataclass(frozen=True)
class Tube:
    """The canal at points of the sagittal plane: arrays (k,), mm."""

    s: np.ndarray
    d: np.ndarray
    #: Half depth and half width of the bony canal.
    depth: np.ndarray
    width: np.ndarray
    #: The sac: middle, half depth, half width.
    sac: tuple[np.ndarray, np.ndarray, np.ndarray]
    cord: tuple[np.ndarray, np.ndarray, np.ndarray]


def paint(canvas: Canvas, spec: MRPhantomSpec) -> None:
    """Paint the canal and everything in it; bone and discs come after."""
    where = np.flatnonzero(np.abs(canvas.d) < 16)
    if not len(where):
        return
    tube, aside = _tube(canvas, spec, where), canvas.aside(where)
    patch = canvas.labels[:, where]
    d = tube.d[None]
    flat = (aside / tube.width) ** 2
    canal = flat + (d / np.maximum(tube.depth, 0.5)) ** 2
    patch[canal < 1] = canvas.label("fat", CANAL)
    patch[(canal < 1) & (d < 1.1 - tube.depth)] = canvas.label("ligament", CANAL)
    flavum = _bumps(canvas, spec.discs, tube.s, lambda disc: disc.flavum_mm, 7.0)
    behind = (d > tube.depth - flavum) & (np.abs(aside) > (2.2 if spec.region == "lumbar" else 0))
    patch[behind & (canal < 1.25) & (np.abs(aside) < 10)] = canvas.label("ligament", CANAL)
    middle, half, wide = tube.sac
    sac = (aside / np.maximum(wide, 0.1)) ** 2 + ((d - middle) / np.maximum(half, 0.1)) ** 2
    patch[(sac < 1.12) & (half > 0.8)] = canvas.label("ligament", CANAL)
    inside = (sac < 0.97) & (half > 0.8)
    patch[inside] = canvas.label("csf", CANAL)
    _flow(canvas, spec, tube, (patch, inside))
    if spec.region == "lumbar":
        _roots(canvas, spec, tube, (patch, inside & (aside**2 < 200), aside))
    _haematoma(canvas, spec, tube, (patch, canal < 1))
    _cord(canvas, spec, tube, (patch, aside))
    canvas.labels[:, where] = patch


def end_of_cord(canvas: Canvas, spec: MRPhantomSpec) -> float:
    """Where along the canal the cord ends."""
    level, above = spec.body.conus
    return canvas.course.levels[level] + above


def centre_of(canvas: Canvas, lesion: CordLesion) -> float:
    return canvas.course.levels[lesion.level] + lesion.offset


def _tube(canvas: Canvas, spec: MRPhantomSpec, where: np.ndarray) -> Tube:
    s, d = canvas.s[where], canvas.d[where]
    at = canvas.course.along
    narrow = 1 - _bumps(canvas, spec.discs, s, lambda disc: disc.stenosis, 7.0)
    depth = at(spec.vertebrae, _canal_depth, s) / 2
    width = depth * 2 * SIDE
    depth = depth * narrow
    front = _bumps(canvas, spec.discs, s, _pushed, 5.0)
    back = _bumps(canvas, spec.discs, s, lambda disc: max(disc.flavum_mm - 2.5, 0), 6.0) + _blood(canvas, spec, s)
    if spec.region == "lumbar":
        pad = _bumps(canvas, spec.discs, s, lambda _: 1.0, 8.0)
        low, high = -depth * 0.93, depth * (0.9 - 0.25 * pad)
        first = canvas.course.levels["S1"] + 16
        low = low + np.clip((first - s) / 14, 0, 1) * depth * 0.45  # fat in front of the sac at L5/S1
        end = canvas.course.levels["S2"]
        taper = np.sqrt(np.clip((s - end + 6) / 40, 0, 1))
    else:
        low, high, taper = -depth * 0.9, depth * 0.88, np.ones_like(s)
    low, high = low + 0.7 * front, high - back
    middle, half = (low + high) / 2, np.maximum((high - low) / 2, 0.6) * taper
    sac = (middle, half, width * 0.86 * (0.35 + 0.65 * taper))
    return Tube(s, d, depth, width, sac, _cord_tube(canvas, spec, s, (low, high, front)))


def _canal_depth(shape: Vertebra) -> float:
    return 21.0 * shape.depth / 37 if shape.level == "C1" else shape.canal_depth


def _pushed(disc: Disc) -> float:
    """How far a disc and its osteophytes reach into the canal, mm."""
    return disc.bulge_mm + 0.6 * disc.osteophyte_mm + (disc.herniation.size if disc.herniation else 0.0)


def _bumps(
    canvas: Canvas, discs: tuple[Disc, ...], s: np.ndarray, value: Callable[[Disc], float], reach: float
) -> np.ndarray:
    """A property of discs that fades along the canal over `reach` mm."""
    total = np.zeros_like(s)
    for disc in discs:
        if height := value(disc):
            total = np.maximum(total, height * np.exp(-(((s - canvas.course.between(disc.level)) / reach) ** 2)))
    return np.asarray(total, np.float32)


def _cord_tube(
    canvas: Canvas, spec: MRPhantomSpec, s: np.ndarray, room: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    low, high, front = room
    table = {level: sizes for level, sizes in (_CORD | _LOWER_CORD).items() if level in canvas.course.levels}
    known = sorted((canvas.course.levels[level], *sizes) for level, sizes in table.items())
    at, thick, wide = (np.array(column) for column in zip(*known, strict=True))
    half, side = np.interp(s, at, thick) * spec.body.cord, np.interp(s, at, wide) * spec.body.cord
    for lesion in spec.cord:
        grown = {"tumour": 0.38, "syrinx": 0.12}.get(lesion.kind, 0.16)
        half = half * (1 + grown * _near(s, centre_of(canvas, lesion), 0.7 * lesion.length))
    if spec.region == "lumbar":
        end = end_of_cord(canvas, spec)
        taper = np.sqrt(np.clip((s - end) / 32, 0, 1))
        half, side = half * taper, side * taper
    low = low + 0.3 * front
    half = np.minimum(half, np.maximum((high - low) / 2 - 0.35, 1.6))  # squeezed where there is no room
    middle = np.clip((low + high) / 2 * 0.6, low + half + 0.25, np.maximum(high - half - 0.25, low + half + 0.25))
    if spec.region == "lumbar":
        middle = middle + 0.25 * (high - half)  # the cord lies on the back of its sac here
    return middle, half, side


def _near(s: np.ndarray, centre: float, reach: float) -> np.ndarray:
    return np.asarray(np.exp(-(((s - centre) / reach) ** 2)), np.float32)


def _blood(canvas: Canvas, spec: MRPhantomSpec, s: np.ndarray) -> np.ndarray:
    """Thickness of epidural blood behind the sac, mm."""
    total = np.zeros_like(s)
    for swelling in spec.swellings:
        if swelling.place == "epidural":
            away = np.abs(s - canvas.course.levels[swelling.level]) / (swelling.length / 2)
            total = np.maximum(total, swelling.thickness * np.sqrt(np.clip(1 - away**2, 0, 1)))
    return np.asarray(total, np.float32)


def _haematoma(canvas: Canvas, spec: MRPhantomSpec, tube: Tube, onto: tuple[np.ndarray, np.ndarray]) -> None:
    patch, canal = onto
    blood = _blood(canvas, spec, tube.s)
    middle, half, _ = tube.sac
    behind = (tube.d > middle + half + 0.4)[None] & (blood > 0.6)[None] & canal
    patch[behind] = canvas.label("haematoma", CANAL)


def _flow(canvas: Canvas, spec: MRPhantomSpec, tube: Tube, onto: tuple[np.ndarray, np.ndarray]) -> None:
    """Fluid that moves loses signal: dark clouds behind the cord, and some in front of it."""
    if not spec.scan.flow:
        return
    patch, inside = onto
    a, b, c, e = spec.body.phases
    clouds = np.sin(0.13 * tube.s + a) + np.sin(0.047 * tube.s + b) + 0.6 * np.sin(0.9 * tube.d + 0.31 * tube.s + c)
    where = (clouds > 1.7 - 1.3 * spec.scan.flow) & (tube.d > tube.cord[0] + 0.4)
    where |= (clouds + np.sin(0.2 * tube.s + e) > 2.9 - 1.3 * spec.scan.flow) & (tube.d < tube.cord[0])
    patch[inside & where[None]] = canvas.label("flowing csf", CANAL)


def _roots(canvas: Canvas, spec: MRPhantomSpec, tube: Tube, onto: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """The cauda equina: strands that sink to the back of the sac and leave it one pair after the other."""
    patch, inside, aside = onto
    middle, half, wide = tube.sac
    end, first = end_of_cord(canvas, spec), canvas.course.levels["S2"]
    number = canvas.label("root", CANAL)
    for index in range(ROOTS):
        turn = 2.39996 * index + spec.body.phases[0]
        share = (index + 0.5) / ROOTS
        leaves = first + (end - first) * (1 - share) * 0.8
        seen = np.flatnonzero((tube.s > leaves) & (tube.s < end + 12))
        sway = 0.12 * np.sin(0.045 * tube.s[seen] + turn)
        behind = middle[seen] + half[seen] * (0.30 + 0.38 * math.sin(turn) ** 2 + sway)
        beside = wide[seen] * (0.72 * math.sin(2.1 * turn) * (1 - 0.35 * share) + sway)
        near = (aside[:, seen] - beside) ** 2 + (tube.d[seen] - behind) ** 2 < 0.55
        part = patch[:, seen]
        part[near & inside[:, seen]] = number
        patch[:, seen] = part


def _cord(canvas: Canvas, spec: MRPhantomSpec, tube: Tube, onto: tuple[np.ndarray, np.ndarray]) -> None:
    patch, aside = onto
    middle, half, side = tube.cord
    seen = np.flatnonzero((half > 0.7) & (side > 0.7) & (np.abs(tube.d - middle) < half))
    part = patch[:, seen]
    across, behind = aside[:, seen] / side[seen], (tube.d[seen] - middle[seen]) / half[seen]
    radial = across**2 + behind**2
    inside = radial < 1
    part[inside] = canvas.label("cord", CORD)
    grey = (np.abs(across) < 0.45) & (np.abs(behind) < 0.25 + 0.3 * np.abs(across))
    part[grey & inside] = canvas.label("grey matter", CORD)
    for number, lesion in enumerate(spec.cord):
        along = (tube.s[seen] - centre_of(canvas, lesion)) / (lesion.length / 2)
        if np.any(np.abs(along) < 1.4):
            wave = _wave(lesion, tube.s[seen], (across, behind))
            _lesion(canvas, lesion, f"lesion:{number}", (part, inside, radial, along, wave))
    patch[:, seen] = part


def _wave(lesion: CordLesion, s: np.ndarray, where: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """(n, k): a smooth random pattern, about -2 to 2."""
    a, b, c, d = lesion.phases
    across, behind = where
    return np.asarray(
        np.sin(0.9 * s + a) * np.sin(3 * across + b)
        + np.sin(0.55 * s + c) * np.cos(2.6 * behind + d)
        + 0.5 * np.sin(1.7 * s + 2 * across + b)
    )


def _lesion(
    canvas: Canvas,
    lesion: CordLesion,
    name: str,
    onto: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    """One lesion into the labels of the cord: (labels, inside the cord, radial, along, wave)."""
    part, inside, radial, along, wave = onto
    part_of = name if lesion.kind in ("oedema", "haemorrhage", "mixed") else CORD
    rough = 0.0 if lesion.kind == "syrinx" else 0.09
    reach = along**2 + radial / lesion.radius**2 + rough * wave

    def put(tissue: str, where: np.ndarray, share: float = 1.0) -> None:
        part[inside & where] = canvas.label(faded(tissue, share * lesion.conspicuity), part_of)

    if lesion.kind == "syrinx":
        put("csf", reach < 1)
        return
    if lesion.kind == "tumour":
        put("oedema", reach < 1.15, 0.6)
        put("tumour", reach < 0.8)
        put("csf", (reach < 0.25) & (along > 0.1))
        return
    put("oedema" if lesion.kind != "haemorrhage" else "haemorrhage rim", reach < 1.0, 0.55)
    if lesion.kind == "oedema":
        put("oedema", reach < 0.72)
    elif lesion.kind == "haemorrhage":
        put("haemorrhage rim", reach < 0.8)
        put("haemorrhage core", reach < 0.42)
    else:
        put("oedema", (reach < 0.85) & (wave > 0.3))
        put("clot", (reach < 0.85) & (wave < -0.25))
        put("haemorrhage rim", (reach < 0.5) & (np.abs(wave) < 0.25))


def faded(tissue: str, share: float) -> Tissue:
    """A tissue between cord (0) and itself (1)."""
    lesion, cord = TISSUES[tissue], TISSUES["cord"]

    def mix(a: float, b: float) -> float:
        return a + share * (b - a)

    return replace(
        lesion,
        pd=mix(cord.pd, lesion.pd),
        t1=(mix(cord.t1[0], lesion.t1[0]), mix(cord.t1[1], lesion.t1[1])),
        t2=(mix(cord.t2[0], lesion.t2[0]), mix(cord.t2[1], lesion.t2[1])),
    )
