"""Phantoms that several tests look at: rendered once per process, never changed."""

from dataclasses import replace
from functools import cache

from inference.phantom.cervical_ct import Rendered, render, sample_spec

SMALL_SEED = 101  # of the few hundred first seeds one of the smallest: 104 slices of 208 x 208, one lamina of C5


@cache
def rendered(seed: int = SMALL_SEED, *, positive: bool | None = None) -> Rendered:
    """Return the standard phantom of a seed, with its label or a forced one."""
    phantom = render(sample_spec(seed, positive=positive))
    for array in (phantom.volume, phantom.fractures, phantom.vertebrae):
        array.flags.writeable = False
    return phantom


@cache
def with_one_gap(seed: int, number: int) -> Rendered:
    """Return the phantom with its acute fracture `number` alone, as a gap whose fragment has not moved."""
    spec = sample_spec(seed, positive=True)
    gap = replace(spec.acute[number], shift=(0.0, 0.0, 0.0))
    return render(replace(spec, fractures=(gap, *(f for f in spec.fractures if f.healed))))
