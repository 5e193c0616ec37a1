"""What tissues weigh in a magnetic resonance image: proton density and relaxation times at 1.5 T and 3 T.

Sources: cord, white and grey matter, muscle, blood: Stanisz et al., Magn Reson Med 54:507 (2005). Fat, fluid,
cartilage: Gold et al., AJR 183:343 (2004); their fat has the long T2 that a train of echoes shows. Marrow, kidney,
liver: de Bazelaire et al., Radiology 230:652 (2004). Discs by Pfirrmann grade: Watanabe et al., Spine 32:E561 (2007),
extended to the young. Lesions are these tissues with more water or with iron, chosen so that Table 2 of paper 000
holds. Times are in ms.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

#: Fat: proton density, (T1 at 1.5 T, at 3 T), (T2 at 1.5 T, at 3 T).
FAT_PD, FAT_T1, FAT_T2 = 0.85, (288.0, 371.0), (165.0, 133.0)


@dataclass(frozen=True, kw_only=True)
class Tissue:
    """Water of a tissue, and how much of its signal comes from fat."""

    pd: float
    #: At 1.5 T and at 3 T.
    t1: tuple[float, float]
    t2: tuple[float, float]
    #: Share of fat, 0..1.
    fat: float = 0.0
    #: Standard deviation of its texture, as a share of its signal.
    grain: float = 0.04
    #: How much it pulsates: gives ghosts along the phase direction, 0..1.
    pulse: float = 0.0


TISSUES = {
    "air": Tissue(pd=0.0, t1=(1000, 1000), t2=(50, 50)),
    "skin": Tissue(pd=0.75, t1=(900, 1100), t2=(35, 32), fat=0.2),
    "fat": Tissue(pd=0.0, t1=(800, 900), t2=(40, 38), fat=0.95, grain=0.05),
    "muscle": Tissue(pd=0.8, t1=(1008, 1412), t2=(46, 44), fat=0.04, grain=0.1),
    "fascia": Tissue(pd=0.45, t1=(800, 1000), t2=(18, 16), fat=0.1),
    "ligament": Tissue(pd=0.35, t1=(700, 850), t2=(14, 13), fat=0.03),
    "interspinous": Tissue(pd=0.6, t1=(850, 1000), t2=(32, 30), fat=0.28, grain=0.12),
    "mucosa": Tissue(pd=0.85, t1=(1100, 1500), t2=(70, 62)),
    "cortex": Tissue(pd=0.06, t1=(300, 350), t2=(5, 5)),
    "marrow": Tissue(pd=0.75, t1=(760, 900), t2=(46, 42), fat=0.45, grain=0.08),
    "oedematous marrow": Tissue(pd=0.9, t1=(1250, 1500), t2=(90, 80), fat=0.12, grain=0.1),
    "fatty marrow": Tissue(pd=0.5, t1=(760, 900), t2=(46, 42), fat=0.85, grain=0.06),
    "sclerosis": Tissue(pd=0.25, t1=(760, 900), t2=(20, 18), fat=0.1),
    "haemangioma": Tissue(pd=0.95, t1=(800, 950), t2=(150, 130), fat=0.55, grain=0.25),
    "vein": Tissue(pd=0.9, t1=(1300, 1700), t2=(120, 100), fat=0.1),
    "csf": Tissue(pd=1.0, t1=(4300, 4500), t2=(1800, 1500), grain=0.01, pulse=1.0),
    "flowing csf": Tissue(pd=0.55, t1=(4300, 4500), t2=(260, 220), grain=0.1, pulse=1.0),
    "cord": Tissue(pd=0.74, t1=(745, 993), t2=(74, 78), grain=0.02),
    "grey matter": Tissue(pd=0.78, t1=(900, 1200), t2=(80, 83), grain=0.02),
    "brain": Tissue(pd=0.74, t1=(900, 1200), t2=(84, 82), grain=0.06),
    "root": Tissue(pd=0.75, t1=(815, 1083), t2=(75, 76)),
    "flow void": Tissue(pd=0.02, t1=(1441, 1932), t2=(20, 20), pulse=0.8),
    "slow blood": Tissue(pd=0.75, t1=(1441, 1932), t2=(150, 130), pulse=0.8),
    "bowel": Tissue(pd=0.8, t1=(1100, 1300), t2=(60, 55), fat=0.1, grain=0.22),
    "liver": Tissue(pd=0.8, t1=(586, 809), t2=(46, 34), fat=0.03),
    "cartilage": Tissue(pd=0.7, t1=(1024, 1168), t2=(30, 27), fat=0.1),
    "gland": Tissue(pd=0.9, t1=(1000, 1200), t2=(75, 65), fat=0.05),
    "annulus": Tissue(pd=0.5, t1=(900, 1050), t2=(30, 27), grain=0.05),
    "oedema": Tissue(pd=0.88, t1=(1050, 1400), t2=(150, 145), grain=0.06),
    "haemorrhage core": Tissue(pd=0.66, t1=(1150, 1450), t2=(42, 34), grain=0.06),
    "haemorrhage rim": Tissue(pd=0.95, t1=(600, 780), t2=(190, 175), grain=0.06),
    "clot": Tissue(pd=0.85, t1=(640, 830), t2=(44, 38), grain=0.1),
    "haematoma": Tissue(pd=0.92, t1=(640, 850), t2=(120, 100), grain=0.15),
    "soft oedema": Tissue(pd=0.92, t1=(1500, 1900), t2=(140, 125), grain=0.12),
    "tumour": Tissue(pd=0.85, t1=(950, 1250), t2=(112, 108), grain=0.1),
    "metal": Tissue(pd=0.0, t1=(1000, 1000), t2=(1, 1)),
}

#: Nucleus by Pfirrmann grade: proton density, T2 at 1.5 T.
_NUCLEUS = {1: (0.95, 165.0), 2: (0.9, 120.0), 3: (0.8, 80.0), 4: (0.65, 52.0), 5: (0.5, 40.0)}


def nucleus(grade: int) -> Tissue:
    """The middle of a disc of Pfirrmann grade 1 to 5."""
    pd, t2 = _NUCLEUS[grade]
    return Tissue(pd=pd, t1=(1200 - 50 * grade, 1400 - 55 * grade), t2=(t2, 0.88 * t2), grain=0.05)


def marrow(fat: float) -> Tissue:
    """Bone marrow with a share of fat between 0.25 (young) and 0.65 (old)."""
    return replace(TISSUES["marrow"], fat=fat)
