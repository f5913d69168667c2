"""Checks that a generator of random numbers follows a distribution. p-values need the optional package SciPy."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from ..ndarray import NDArray

__all__ = [
    "chi_square_check",
    "gen_buckets_probs_with_ppf",
    "mean_check",
    "var_check",
    "verify_generator",
]

Generator = Callable[[int], Any]


def _draw(generator: Generator, nsamples: int) -> np.ndarray:
    samples = generator(nsamples)
    return (samples.asnumpy() if isinstance(samples, NDArray) else np.asarray(samples)).reshape(-1)


def gen_buckets_probs_with_ppf(
    ppf: Callable[[float], float], nbuckets: int
) -> tuple[list[tuple[float, float]], list[float]]:
    """`nbuckets` intervals of equal probability, from the inverse of the distribution function, and the
    probabilities.
    """
    if nbuckets < 1:
        raise AssertionError(f"gen_buckets_probs_with_ppf: nbuckets must be at least 1, got {nbuckets}")
    edges = [float(ppf(i / nbuckets)) for i in range(nbuckets + 1)]
    return list(itertools.pairwise(edges)), [1.0 / nbuckets] * nbuckets


def mean_check(generator: Generator, mu: float, sigma: float, nsamples: int = 1000000) -> bool:
    """Whether the mean of the samples lies within the 99.9 % interval around `mu` for deviation `sigma`."""
    mean = float(_draw(generator, nsamples).astype(np.float64).mean())
    width = NormalDist().inv_cdf(0.9995) * sigma / nsamples**0.5
    return mu - width < mean < mu + width


def var_check(generator: Generator, sigma: float, nsamples: int = 1000000) -> bool:
    """Whether the variance of the samples lies within the 99.9 % interval around `sigma ** 2` for a normal
    distribution.
    """
    variance = float(_draw(generator, nsamples).astype(np.float64).var(ddof=1))
    width = NormalDist().inv_cdf(0.9995) * sigma**2 * (2.0 / (nsamples - 1)) ** 0.5
    return sigma**2 - width < variance < sigma**2 + width


def chi_square_check(
    generator: Generator, buckets: Sequence[Any], probs: Sequence[float], nsamples: int = 1000000
) -> tuple[float, np.ndarray, np.ndarray]:
    """Pearson's test of the samples: (p-value, observed counts, expected counts) by bucket.

    `buckets` are disjoint ascending intervals (low, high), or single values of a discrete distribution; `probs` their
    probabilities, which sum to 1. Raises ImportError without SciPy.
    """
    try:
        from scipy.stats import chi2  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError("chi_square_check needs SciPy: pip install scipy") from error
    if len(buckets) != len(probs):
        raise AssertionError(
            f"chi_square_check: {len(buckets)} buckets and {len(probs)} probabilities were given"
        )
    if abs(sum(probs) - 1) > 1e-4:
        raise AssertionError(f"chi_square_check: probs must sum to 1, they sum to {sum(probs)}")
    samples = _draw(generator, nsamples)
    if isinstance(buckets[0], tuple | list):
        observed = np.array([((low <= samples) & (samples < high)).sum() for low, high in buckets])
    else:
        observed = np.array([(samples == value).sum() for value in buckets])
    expected = np.asarray(probs) * len(samples)
    statistic = float(((observed - expected) ** 2 / expected).sum())
    return float(chi2.sf(statistic, df=len(buckets) - 1)), observed, expected.astype(np.int64)


def verify_generator(
    generator: Generator,
    buckets: Sequence[Any],
    probs: Sequence[float],
    nsamples: int = 1000000,
    nrepeat: int = 5,
    success_rate: float = 0.2,
    alpha: float = 0.05,
) -> list[float]:
    """p-values of `nrepeat` runs of `chi_square_check`; AssertionError unless the share `success_rate` of them
    exceeds `alpha`.
    """
    runs = [chi_square_check(generator, buckets, probs, nsamples) for _ in range(nrepeat)]
    values = [p for p, _, _ in runs]
    if sum(p > alpha for p in values) < nrepeat * success_rate:
        raise AssertionError(
            f"the generator does not follow the distribution: p-values {values}, counts "
            f"{[observed.tolist() for _, observed, _ in runs]}, expected {runs[0][2].tolist()}, buckets={buckets}"
        )
    return values
