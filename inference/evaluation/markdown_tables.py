"""Numbers of results as JSON and Markdown have them: nothing undefined passes for a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """The same with None for NaN and infinity: JSON has neither, and a reader that is not Python's rejects them."""
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def number(value: float | None, digits: int) -> str:
    """Rounded, or n/a."""
    return "n/a" if value is None else f"{value:.{digits}f}"


def estimate(value: float | None, interval: Sequence[float | None], digits: int = 3) -> str:
    """A value and its interval in brackets, as far as they are defined."""
    low, high = (number(end, digits) for end in interval)
    return number(value, digits) + ("" if "n/a" in (low, high) else f" ({low} to {high})")


def spread(values: Sequence[float]) -> dict[str, float | int]:
    """Mean and sample standard deviation of the defined values of folds, and how many folds these are."""
    defined = np.array(values, float)
    defined = defined[np.isfinite(defined)]
    return {
        "mean": float(defined.mean()) if len(defined) else float("nan"),
        "sd": float(defined.std(ddof=1)) if len(defined) > 1 else float("nan"),
        "folds": len(defined),
    }


def over_folds(values: Mapping[str, Any], folds: int, digits: int) -> str:
    """What `spread` found, after `plain`: mean ± standard deviation, with the number of folds where some lack it."""
    if values["mean"] is None:
        return "n/a"
    deviation = "" if values["sd"] is None else f" ± {values['sd']:.{digits}f}"
    missing = "" if values["folds"] == folds else f" ({values['folds']} of {folds} folds)"
    return f"{values['mean']:.{digits}f}{deviation}{missing}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    top, *body = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return "\n".join([top, "|" + "---|" * len(head), *body])
