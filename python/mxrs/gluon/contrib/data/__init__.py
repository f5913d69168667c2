"""What MXNet kept in `gluon.contrib.data`: a sampler that strides. The text data sets are not built yet."""

from typing import NoReturn

from .sampler import IntervalSampler

__all__ = ["IntervalSampler"]


def __getattr__(name: str) -> NoReturn:
    if name in ("WikiText2", "WikiText103", "text"):
        raise AttributeError(f"gluon.contrib.data.{name} is not built yet in mxrs")
    raise AttributeError(f"module '{__name__}' has no attribute {name!r}")
