"""`gluon.rnn`: recurrent cells, which compute one step and are unrolled, and recurrent layers, which compute a
whole sequence in one operator.

`recurrent_cell` holds the base of the cells and what sequences need, `cells` the plain cells, `containers` cells
made of other cells, `layers` the layers.
"""

from .cells import GRUCell, LSTMCell, RNNCell
from .containers import (
    BidirectionalCell,
    DropoutCell,
    HybridSequentialRNNCell,
    ModifierCell,
    ResidualCell,
    SequentialRNNCell,
    ZoneoutCell,
)
from .layers import GRU, LSTM, RNN
from .recurrent_cell import HybridRecurrentCell, RecurrentCell

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "BidirectionalCell",
    "DropoutCell",
    "GRUCell",
    "HybridRecurrentCell",
    "HybridSequentialRNNCell",
    "LSTMCell",
    "ModifierCell",
    "RNNCell",
    "RecurrentCell",
    "ResidualCell",
    "SequentialRNNCell",
    "ZoneoutCell",
]
