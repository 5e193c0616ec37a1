"""How cervical vertebrae break: one function per mechanism, from the anatomy to the planes of a fracture.

The mechanisms and their usual places follow the common classifications (Anderson-D'Alonzo for the dens,
Levine-Edwards for the hangman's fracture, AO Spine for the subaxial spine). How often each level breaks, and how
many break together, is counted from the 2,019 studies of the RSNA 2022 challenge.
All coordinates are those of the vertebra: x left, y back, z head, mm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from inference.phantom.anatomy import pillar_centre, spinolaminar
from inference.phantom.specification import Break, Lesion, Point, Profile, Vertebra

#: Fractured studies per level, and studies with 1, 2, ... fractured levels (RSNA 2022, `train.csv`).
LEVEL_COUNTS = {"C1": 146, "C2": 285, "C3": 73, "C4": 108, "C5": 162, "C6": 277, "C7": 393}
NUMBER_COUNTS = (623, 239, 64, 26, 7, 2)

Triple: TypeAlias = Sequence[float] | np.ndarray


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A vertebra after its fracture, and what else moved."""

    shape: Vertebra
    lesion: Lesion
    #: How far everything above slipped forward, mm.
    slip_mm: float = 0.0


@dataclass(frozen=True)
class _Draw:
    """A vertebra about to break, with the numbers that every mechanism needs."""

    rng: np.random.Generator
    shape: Vertebra
    profile: Profile

    def crack(self, point: Triple, normal: Triple, reach: float, push: Sequence[float] = (0, 0, 0)) -> Break:
        """A rough plane; the fragment moves along `push` by a drawn distance."""
        direction = np.array(normal, float) + 0.25 * self.rng.standard_normal(3)
        moves = np.array(push, float) * self.rng.uniform(*self.profile.displacement_mm)
        return Break(
            point=as_point(point),
            normal=as_point(unit(direction)),
            gap_mm=float(self.rng.uniform(*self.profile.gap_mm)),
            reach_mm=reach,
            shift=as_point(moves),
            phases=phases(self.rng),
        )

    def lesion(self, name: str, *breaks: Break, swelling: float = 0.7, blood: float = 0.0) -> Lesion:
        """The fracture, with swelling in front and blood in the canal of up to so many mm."""
        return Lesion(
            level=self.shape.level,
            name=name,
            acute=True,
            breaks=breaks,
            swelling_mm=swelling * float(self.rng.uniform(0.3, 1.2)),
            haematoma_mm=blood * float(self.rng.uniform(0, 1)),
        )

    def side(self) -> float:
        return float(self.rng.choice([-1.0, 1.0]))

    def between(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))


def draw_fractures(
    rng: np.random.Generator, vertebrae: Sequence[Vertebra], profile: Profile, *, visible: Sequence[str]
) -> list[Broken]:
    """Acute fractures of one patient, at levels that are in the field of view."""
    open_levels = [shape for shape in vertebrae if shape.level in visible and shape.level in LEVEL_COUNTS]
    weights = np.array([LEVEL_COUNTS[shape.level] for shape in open_levels], float)
    number = 1 + int(rng.choice(len(NUMBER_COUNTS), p=np.array(NUMBER_COUNTS) / sum(NUMBER_COUNTS)))
    chosen = rng.choice(len(open_levels), min(number, len(open_levels)), replace=False, p=weights / weights.sum())
    return [_break(rng, open_levels[int(index)], profile) for index in chosen]


def _break(rng: np.random.Generator, shape: Vertebra, profile: Profile) -> Broken:
    names = _usual(shape.level)
    shares = np.array(list(names.values()), float)
    name = list(names)[int(rng.choice(len(names), p=shares / shares.sum()))]
    return _MECHANISMS[name](_Draw(rng, shape, profile))


def _usual(level: str) -> dict[str, float]:
    """Mechanisms of a level with their relative frequency."""
    if level == "C1":
        return {"Jefferson": 4, "posterior arch": 4, "anterior arch": 2}
    if level == "C2":
        return {"dens I": 0.5, "dens II": 5, "dens III": 3, "hangman": 3, "body split": 1, "lamina": 1}
    low = level in ("C6", "C7")
    return {
        "wedge compression": 2,
        "burst": 1.2,
        "teardrop": 1.5,
        "body split": 0.8,
        "facet": 3,
        "perched facet": 0.7,
        "lamina": 2,
        "spinous process": 3 if low else 1,
        "transverse process": 4 if low else 2,
    }


def _ring_cracks(d: _Draw, low: float, high: float, sides: int) -> list[Break]:
    """Breaks of the ring of C1, left and right in turn; quarter turns from the side, below 0 in front."""
    first, cracks = d.side(), []
    for number in range(sides):
        side, angle = first * (-1) ** number, math.pi / 2 * d.between(low, high)
        x, y = math.cos(angle), math.sin(angle)
        place = (side * x * d.shape.width / 2, y * d.shape.depth / 2 + d.shape.depth / 2 - 9.5, 0.0)
        cracks.append(d.crack(place, (side * y, -x, 0.0), 9.0, (side * 0.7, 0, 0)))
    return cracks


def _arch(name: str, low: float, high: float, sides: int, swelling: float) -> Callable[[_Draw], Broken]:
    def draw(d: _Draw) -> Broken:
        return Broken(shape=d.shape, lesion=d.lesion(name, *_ring_cracks(d, low, high, sides), swelling=swelling))

    return draw


def _jefferson(d: _Draw) -> Broken:
    """The ring of C1 bursts in front and at the back; the lateral masses drift apart."""
    front = _ring_cracks(d, -0.75, -0.3, int(d.rng.integers(1, 3)))
    back = _ring_cracks(d, 0.25, 0.7, int(d.rng.integers(1, 3)))
    return Broken(shape=d.shape, lesion=d.lesion("Jefferson", *front, *back, swelling=4.0))


def _dens(name: str, low: float, high: float, normal: Point, reach: float) -> Callable[[_Draw], Broken]:
    """C2: through the tip (I), the base (II) or the body below the dens (III); `low` and `high` mm above the body."""

    def draw(d: _Draw) -> Broken:
        place = (0.0, -0.5, d.shape.height / 2 + d.between(low, high))
        push = (0.0, d.side(), 0.0)  # tips forwards or backwards
        return Broken(
            shape=d.shape, lesion=d.lesion(name, d.crack(place, normal, reach, push), swelling=5.0, blood=2.0)
        )

    return draw


def _hangman(d: _Draw) -> Broken:
    """C2: both partes interarticulares part, and body with dens slips forward on C3."""
    px, py = pillar_centre(d.shape)
    forward = d.between(0.2, 1.0)
    cracks = [d.crack((s * (px - 2), py - 1, 0.5), (0.2 * s, 0.85, 0.35), 9.0, (0, forward, 0)) for s in (-1.0, 1.0)]
    return Broken(shape=d.shape, lesion=d.lesion("hangman", *cracks, swelling=4.0, blood=1.0))


def _wedge(d: _Draw) -> Broken:
    """The front of the body is crushed; the upper front edge buckles."""
    loss = d.between(*d.profile.loss)
    shape = replace(d.shape, front_loss=loss, back_loss=0.1 * loss)
    place = (d.between(-4, 4), -shape.depth / 2 + 2.5, shape.height * (0.5 - loss) - 2.5)
    edge = d.crack(place, (0.0, 0.5, 0.85), 7.0, (0, -0.5, 0))
    return Broken(shape=shape, lesion=d.lesion("wedge compression", edge, swelling=4.0))


def _burst(d: _Draw) -> Broken:
    """The whole body bursts; a fragment of the back wall moves into the canal."""
    loss = d.between(*d.profile.loss)
    shape = replace(d.shape, front_loss=loss, back_loss=loss * d.between(0.4, 0.9))
    cracks = [
        d.crack((d.between(-2, 2), 0, 0), (1, 0.1, 0), 13.0, (0.4 * d.side(), 0, 0)),
        d.crack((0, shape.depth / 2 - 4, shape.height * 0.15), (0, 1, 0.2), 9.0, (0, 1.2, 0)),
    ]
    for _ in range(int(d.rng.integers(0, 3))):  # comminution
        place = d.rng.uniform(-0.3, 0.3, 3) * (shape.width, shape.depth, shape.height)
        cracks.append(d.crack(place, d.rng.standard_normal(3), d.between(5, 9)))
    return Broken(shape=shape, lesion=d.lesion("burst", *cracks, swelling=5.0, blood=3.0))


def _teardrop(d: _Draw) -> Broken:
    """The lower front corner of the body breaks off."""
    place = (d.between(-3, 3), -d.shape.depth / 2 + d.between(2.5, 4.5), -d.shape.height / 2 + d.between(2.5, 4.5))
    corner = d.crack(place, (0, -0.75, -0.65), d.between(8, 11), (0, -0.8, -0.3))
    return Broken(shape=d.shape, lesion=d.lesion("teardrop", corner, swelling=5.0))


def _split(d: _Draw) -> Broken:
    """A sagittal or coronal split of the body."""
    normal = (1.0, 0.1, 0.0) if d.rng.random() < 0.6 else (0.3, 0.95, 0.1)
    place = d.rng.uniform(-0.25, 0.25, 3) * (d.shape.width, d.shape.depth, d.shape.height)
    crack = d.crack(place, normal, d.between(9, 15), (0.5 * d.side(), 0, 0))
    return Broken(shape=d.shape, lesion=d.lesion("body split", crack, swelling=3.0, blood=1.5))


def _facet(d: _Draw) -> Broken:
    px, py = pillar_centre(d.shape)
    side = d.side()
    place = (side * (px + d.between(-1, 2)), py + d.between(-2, 2), d.between(-4, 4))
    crack = d.crack(place, (0.3 * side, 0.6, 0.7), 9.0, (0.4 * side, 0.4, 0))
    return Broken(shape=d.shape, lesion=d.lesion("facet", crack))


def _perched(d: _Draw) -> Broken:
    """The upper articular process breaks off and everything above slips forward."""
    px, py = pillar_centre(d.shape)
    sides = (-1.0, 1.0) if d.rng.random() < 0.4 else (d.side(),)
    cracks = [d.crack((s * px, py - 3, 5.0), (0, -0.2, 1), 7.0, (0, -1.0, 0.5)) for s in sides]
    slip = d.between(1.5, 3.0) * len(sides) * d.profile.displacement_mm[1] / 2
    return Broken(shape=d.shape, lesion=d.lesion("perched facet", *cracks, swelling=2.0, blood=2.0), slip_mm=slip)


def _lamina(d: _Draw) -> Broken:
    px, py = pillar_centre(d.shape)
    back, side, along = spinolaminar(d.shape), d.side(), d.between(0.2, 0.8)
    place = (side * px * (1 - along), py + 3 + (back - py - 3) * along, -1 - 3 * along)
    return Broken(shape=d.shape, lesion=d.lesion("lamina", d.crack(place, (side * 0.7, -0.7, 0), 8.0, (0, 0.5, 0))))


def _spinous(d: _Draw) -> Broken:
    """Clay shoveler's fracture: the end of the spinous process is torn off downwards."""
    along = d.between(0.25, 0.75)
    place = (0.0, spinolaminar(d.shape) + d.shape.spinous * along, -4 - 0.45 * d.shape.spinous * along)
    return Broken(
        shape=d.shape, lesion=d.lesion("spinous process", d.crack(place, (0, 0.95, -0.3), 9.0, (0, 0.6, -0.8)))
    )


def _transverse(d: _Draw) -> Broken:
    side = d.side()
    place = (side * (d.shape.width / 2 + d.between(4, 8)), pillar_centre(d.shape)[1] - d.between(1, 8), -1.5)
    crack = d.crack(place, (side, 0.3, 0.2), 7.0, (side * 0.6, 0, -0.4))
    return Broken(shape=d.shape, lesion=d.lesion("transverse process", crack))


_MECHANISMS: dict[str, Callable[[_Draw], Broken]] = {
    "Jefferson": _jefferson,
    "posterior arch": _arch("posterior arch", 0.25, 0.75, 2, swelling=0.7),
    "anterior arch": _arch("anterior arch", -0.75, -0.3, 1, swelling=4.0),
    "dens I": _dens("dens I", 9.0, 12.0, (0.3, 0.3, 0.9), 8.0),
    "dens II": _dens("dens II", 0.5, 3.5, (0.0, 0.35, 0.95), 11.0),
    "dens III": _dens("dens III", -5.0, -1.0, (0.0, 0.3, 0.95), 14.0),
    "hangman": _hangman,
    "wedge compression": _wedge,
    "burst": _burst,
    "teardrop": _teardrop,
    "body split": _split,
    "facet": _facet,
    "perched facet": _perched,
    "lamina": _lamina,
    "spinous process": _spinous,
    "transverse process": _transverse,
}
#: Every mechanism, for pictures and tests.
NAMES = tuple(_MECHANISMS)


def levels_of(name: str) -> tuple[str, ...]:
    """The levels at which a mechanism occurs."""
    return tuple(level for level in LEVEL_COUNTS if name in _usual(level))


def one(rng: np.random.Generator, shape: Vertebra, profile: Profile, name: str) -> Broken:
    """A fracture of a chosen mechanism."""
    return _MECHANISMS[name](_Draw(rng, shape, profile))


def unit(vector: np.ndarray) -> np.ndarray:
    """A vector of length 1."""
    return np.asarray(vector / np.sqrt((vector * vector).sum()))


def as_point(vector: Triple) -> Point:
    """Three plain floats."""
    x, y, z = (float(v) for v in vector)
    return x, y, z


def phases(rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Four random angles."""
    a, b, c, d = (float(p) for p in rng.uniform(0, 2 * math.pi, 4))
    return a, b, c, d
