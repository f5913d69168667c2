"""Activation layers: a function on every element, one of them with a learnt slope."""

from __future__ import annotations

from typing import Any

from ... import initializer
from ..hybrid import HybridBlock

__all__ = ["ELU", "GELU", "SELU", "Activation", "LeakyReLU", "PReLU", "Swish"]


class Activation(HybridBlock):
    """`activation` on every element: 'relu', 'sigmoid', 'tanh', 'softrelu' (log(1+exp(x))) or 'softsign'.

    The operator raises an error for another name.
    """

    def __init__(self, activation: str, **kwargs: Any) -> None:
        self._act_type = activation
        super().__init__(**kwargs)

    def _alias(self) -> str:
        return str(self._act_type)

    def hybrid_forward(self, F: Any, x: Any) -> Any:  # type: ignore[override]
        return F.Activation(x, act_type=self._act_type, name="fwd")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._act_type})"


class LeakyReLU(HybridBlock):
    """x where x > 0, `alpha * x` elsewhere. Raises AssertionError for a negative alpha."""

    def __init__(self, alpha: float, **kwargs: Any) -> None:
        if alpha < 0:
            raise AssertionError(f"Slope coefficient for LeakyReLU must be no less than 0, got {alpha}.")
        super().__init__(**kwargs)
        self._alpha = alpha

    def hybrid_forward(self, F: Any, x: Any) -> Any:  # type: ignore[override]
        return F.LeakyReLU(x, act_type="leaky", slope=self._alpha, name="fwd")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._alpha})"


class PReLU(HybridBlock):
    """x where x > 0, `alpha * x` elsewhere, with a learnt alpha (He et al. 2015, arXiv:1502.01852).

    `in_channels` is 1 for one alpha, or the size of axis 1 for one per channel.
    """

    def __init__(self, alpha_initializer: Any = None, in_channels: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if alpha_initializer is None:
            alpha_initializer = initializer.Constant(0.25)
        with self.name_scope():
            self.alpha = self.params.get("alpha", shape=(in_channels,), init=alpha_initializer)

    def hybrid_forward(self, F: Any, x: Any, alpha: Any) -> Any:  # type: ignore[override]
        return F.LeakyReLU(x, gamma=alpha, act_type="prelu", name="fwd")


class ELU(HybridBlock):
    """x where x > 0, `alpha * (exp(x) - 1)` elsewhere (Clevert et al. 2016, arXiv:1511.07289)."""

    def __init__(self, alpha: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._alpha = alpha

    def hybrid_forward(self, F: Any, x: Any) -> Any:  # type: ignore[override]
        return F.LeakyReLU(x, act_type="elu", slope=self._alpha)


class SELU(HybridBlock):
    """ELU scaled so that mean 0 and variance 1 are kept (Klambauer et al. 2017, arXiv:1706.02515)."""

    def hybrid_forward(self, F: Any, x: Any) -> Any:  # type: ignore[override]
        return F.LeakyReLU(x, act_type="selu", name="fwd")


class GELU(HybridBlock):
    """x * Phi(x), with Phi the distribution function of the standard normal (Hendrycks and Gimpel 2016,
    arXiv:1606.08415).
    """

    def hybrid_forward(self, F: Any, x: Any) -> Any:  # type: ignore[override]
        return F.LeakyReLU(x, act_type="gelu", name="fwd")


class Swish(HybridBlock):
    """x * sigmoid(beta * x) (Ramachandran et al. 2017, arXiv:1710.05941)."""

    def __init__(self, beta: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._beta = beta

    def hybrid_forward(self, F: Any, x: Any) -> Any:  # type: ignore[override]
        return x * F.sigmoid(self._beta * x, name="fwd")
