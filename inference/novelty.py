"""How far a case lies from those a network learned from: the Mahalanobis distance of its features.

Lee et al. 2018 (arXiv 1807.03888), class-agnostic, with the covariance of Ledoit and Wolf 2004 (J. Multivariate
Analysis 88:365-411), which can be inverted with fewer cases than features. A network tells little about images
unlike those it learned from, however sure its answer looks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

PERCENTILE = 99.0  # of the validation cases lie within the threshold
#: Thresholds away, and beyond: another region or another kind of image, about which the network knows nothing.
#: Necks that are noisy, moved or turned lie between one and two.
FAR = 2.0


class Novelty(nn.Module):
    """Centre and whitening of the features; a module, so that it is stored beside the networks.

    The whitening is the inverse of the covariance's lower Cholesky factor: a triangle, kept row after row without its
    zeros.
    """

    centre: torch.Tensor
    whitening: torch.Tensor

    def __init__(self, *, features: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(features))
        self.register_buffer("whitening", _packed(torch.eye(features)))

    def distance(self, features: torch.Tensor) -> float:
        """Mahalanobis distance of the features (features,) of one case."""
        apart = features.to(self.centre) - self.centre
        size = len(apart)
        whitening = apart.new_zeros(size, size)
        whitening[tuple(torch.tril_indices(size, size))] = self.whitening
        return float(torch.linalg.vector_norm(whitening @ apart))


def _packed(lower: torch.Tensor) -> torch.Tensor:
    """The rows of a lower triangle (size, size), one after the other: (size x (size + 1) / 2,)."""
    return lower[tuple(torch.tril_indices(*lower.shape))]


def case_features(slices: torch.Tensor) -> torch.Tensor:
    """Features of the slices from feet to head, (slices, features), to those of the case, (2 x features,).

    Their mean, and how they change towards the head: without that, a neck upside down is like any other.
    """
    slices = slices.float()
    height = torch.linspace(-1, 1, len(slices), device=slices.device)
    return torch.cat([slices.mean(0), (slices * height[:, None]).mean(0)])


def fit(features: torch.Tensor) -> Novelty:
    """Fit to cases that the network did not learn from, (cases, features).

    The result has the precision in which it will be stored, so that a threshold found with it stays true. Raises
    ValueError when the features do not fit into that precision, or do not vary.
    """
    found = Novelty(features=features.shape[1])
    exact = features.double()
    factor, _ = torch.linalg.cholesky_ex(shrunk_covariance(exact))  # of no variance comes what is not finite
    whitening = torch.linalg.solve_triangular(factor, torch.eye(len(factor), dtype=factor.dtype), upper=False)
    found.centre.copy_(exact.mean(0).half())
    found.whitening.copy_(_packed(whitening).half())
    if not (torch.isfinite(found.centre).all() and torch.isfinite(found.whitening).all()):
        raise ValueError("features vary too little or too much to be stored in half precision")
    return found


def threshold(distances: Sequence[float]) -> float:
    """The distance from which a case is unlike the validation cases, whose distances these are."""
    return float(torch.quantile(torch.tensor(distances, dtype=torch.float64), PERCENTILE / 100))


def refuse(distance: float, limit: float) -> str:
    """Why a network cannot say anything about a case at this distance; empty if it can. `limit` is the threshold."""
    return (
        ""
        if distance <= FAR * limit
        else f"no images like those that the model was validated with: {_said(distance, limit)}"
    )


def complaints(distance: float, limit: float) -> list[str]:
    """One sentence if the case is unlike the validation cases."""
    return [] if distance <= limit else [f"outside the validated range: {_said(distance, limit)}"]


def _said(distance: float, limit: float) -> str:
    return f"feature distance {distance:.1f}, validated 0 to {limit:.1f}"


def shrunk_covariance(samples: torch.Tensor) -> torch.Tensor:
    """Covariance (features, features) of float64 samples (cases, features), shrunk to a multiple of the identity.

    Ledoit and Wolf 2004, lemma 3.1 to 3.4: the share of the identity is the expected squared error of the sample
    covariance, over its squared distance from that multiple.
    """
    count, size = samples.shape
    apart = samples - samples.mean(0)
    sample = apart.T @ apart / count
    target = torch.eye(size, dtype=samples.dtype) * sample.trace() / size
    dispersion = (sample - target).square().sum()
    error = (apart.square().sum(1).square().sum() / count - sample.square().sum()) / count
    share = (error / dispersion).clamp(0, 1) if dispersion > 0 else torch.ones(())
    return share * target + (1 - share) * sample
