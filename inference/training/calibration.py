"""Temperature and thresholds, fitted on validation cases only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

SCREEN_SENSITIVITY = 0.95
FLAG_SPECIFICITY = 0.95
OUTSIDE = 10  # one in so many may lie on the wrong side of the indeterminate zone
RIDGE = 0.01


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """A threshold on the calibrated probability, and what it gives on the validation cases."""

    name: str
    threshold: float
    sensitivity: float
    specificity: float


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature T for which sigmoid(logit / T) has the least negative log likelihood (Guo et al. 2017)."""
    log_temperature = torch.zeros(1, requires_grad=True)
    x, y = torch.from_numpy(logits).float(), torch.from_numpy(labels).float()
    optimizer = torch.optim.LBFGS([log_temperature], lr=0.1, max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = binary_cross_entropy_with_logits(x / log_temperature.exp(), y)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    # Separable validation cases would drive the temperature to zero, and every answer to certainty.
    return float(log_temperature.detach().exp().clamp(0.5, 10))


def fit_logistic(logits: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """Bias and weights (k,) of a logistic regression of labels (n,) on several logits (n, k), lightly regularised."""
    x, y = torch.from_numpy(logits).float(), torch.from_numpy(labels).float()
    parameters = torch.zeros(1 + x.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([parameters], lr=0.1, max_iter=500, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = binary_cross_entropy_with_logits(x @ parameters[1:] + parameters[0], y)
        # Separable validation cases would drive the weights, and so every answer to certainty.
        loss = loss + RIDGE * parameters[1:].square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    fitted = parameters.detach().numpy().astype(float)
    return float(fitted[0]), fitted[1:]


def fit_platt(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Bias and weight, above 0, for which sigmoid(bias + weight * logit) has the least negative log likelihood.

    The targets are those of Platt 1999 (section 2.2): not 0 and 1, so that separable cases do not become certain.
    """
    yes, no = int(labels.sum()), int((~labels.astype(bool)).sum())
    targets = np.where(labels.astype(bool), (yes + 1) / (yes + 2), 1 / (no + 2))
    x, y = torch.from_numpy(logits).double(), torch.from_numpy(targets).double()
    parameters = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([parameters], lr=0.1, max_iter=500, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        bias, log_weight = parameters
        # A weight of 0 would make every score the same.
        loss = binary_cross_entropy_with_logits(bias + log_weight.exp() * x, y)
        loss = loss + RIDGE * log_weight.square() / len(x)
        loss.backward()
        return torch.as_tensor(loss)

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    bias, log_weight = parameters.detach().tolist()
    return float(bias), float(np.exp(log_weight))


def operating_points(probability: np.ndarray, labels: np.ndarray) -> tuple[OperatingPoint, ...]:
    """Three points, in this order.

    `balanced`: the largest Youden index; `screen`: the highest threshold with a sensitivity of at least 0.95; `flag`:
    the lowest one with a specificity of at least 0.95.
    """
    truth = labels.astype(bool)
    values = np.unique(probability)
    # Between two seen values: a threshold that sits on a case flips with the last bit.
    candidates = np.concatenate([[values[0] / 2], (values[:-1] + values[1:]) / 2, [(values[-1] + 1) / 2]])
    sensitivity = np.array([(probability[truth] >= t).mean() for t in candidates])
    specificity = np.array([(probability[~truth] < t).mean() for t in candidates])
    youden = sensitivity + specificity
    # Where several thresholds are equally good, the middle one is furthest from a mistake.
    best = np.nonzero(youden == youden.max())[0]
    balanced = int(best[len(best) // 2])
    screen = int(np.nonzero(sensitivity >= SCREEN_SENSITIVITY)[0][-1])
    flag = int(np.nonzero(specificity >= FLAG_SPECIFICITY)[0][0])
    return tuple(
        OperatingPoint(
            name=name,
            threshold=float(candidates[i]),
            sensitivity=float(sensitivity[i]),
            specificity=float(specificity[i]),
        )
        for name, i in (("balanced", balanced), ("screen", screen), ("flag", flag))
    )


def indeterminate(probability: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """The lowest and the highest probability of cases that cannot be told apart.

    Split conformal prediction for each class (Vovk 2012, conditional validity of inductive conformal predictors): of
    new cases like these with a fracture, 90 % are above the zone or in it; of those without, 90 % below or in it.
    """
    truth = labels.astype(bool)
    positive, negative = np.sort(probability[truth]), np.sort(probability[~truth])
    missed, called = ((len(one) + 1) // OUTSIDE for one in (positive, negative))
    lowest = positive[missed - 1] if missed else 0.0
    highest = negative[len(negative) - called] if called else 1.0
    low, high = sorted((float(lowest), float(highest)))
    return low, high


def best_f1(probability: np.ndarray, labels: np.ndarray) -> float:
    """The threshold with the largest F1 score, between two seen values."""
    order = np.argsort(-probability)
    truth = labels.astype(bool)[order]
    hits = np.cumsum(truth)
    f1 = 2 * hits / (np.arange(1, len(truth) + 1) + truth.sum())
    values = probability[order]
    f1[:-1][values[:-1] == values[1:]] = 0  # a threshold cannot part equal values
    best = int(f1.argmax())
    return float((values[best] + (values[best + 1] if best + 1 < len(values) else 0.0)) / 2)
