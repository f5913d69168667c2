"""Recurrent cells that MXNet kept in `gluon.contrib.rnn`. The convolutional ones are not built yet."""

from typing import NoReturn

from .cells import LSTMPCell, VariationalDropoutCell

__all__ = ["LSTMPCell", "VariationalDropoutCell"]


def __getattr__(name: str) -> NoReturn:
    if name in {f"Conv{n}D{kind}Cell" for n in (1, 2, 3) for kind in ("RNN", "LSTM", "GRU")}:
        raise AttributeError(
            f"gluon.contrib.rnn.{name} is not built yet in mxrs; the cells of mx.rnn have ConvLSTMCell and its like"
        )
    raise AttributeError(f"module '{__name__}' has no attribute {name!r}")
