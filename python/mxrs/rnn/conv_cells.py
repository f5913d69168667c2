"""Cells whose two dense layers are convolutions: inputs and states are pictures (Shi et al. 2015 for LSTM)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from .. import symbol as sym
from .cells import BaseRNNCell, RNNParams, gru_step, lstm_step

__all__ = ["BaseConvRNNCell", "ConvGRUCell", "ConvLSTMCell", "ConvRNNCell"]

_LEAKY = functools.partial(sym.LeakyReLU, act_type="leaky", slope=0.2)
Pair = tuple[int, int]


class BaseConvRNNCell(BaseRNNCell):
    """Base of the convolutional cells.

    Parameters
    ----------
    input_shape : tuple of int
        Shape of a step, batch included (its size does not count): it tells the shape of the states.
    num_hidden : int
        Channels of output and states.
    h2h_kernel, h2h_dilate : pairs of int
        The convolution of the state; odd kernels, padded so that the size stays.
    i2h_kernel, i2h_stride, i2h_pad, i2h_dilate : pairs of int
        The convolution of the input.
    i2h_weight_initializer, h2h_weight_initializer, i2h_bias_initializer, h2h_bias_initializer
        Initializers of the parameters, or their names.
    activation : str or function of a symbol
    prefix, params
        As of `BaseRNNCell`.
    conv_layout : 'NCHW' or 'NHWC'
    """

    _gates: Sequence[str] = ()

    def __init__(
        self,
        input_shape: Sequence[int],
        num_hidden: int,
        h2h_kernel: Pair,
        h2h_dilate: Pair,
        i2h_kernel: Pair,
        i2h_stride: Pair,
        i2h_pad: Pair,
        i2h_dilate: Pair,
        i2h_weight_initializer: Any,
        h2h_weight_initializer: Any,
        i2h_bias_initializer: Any,
        h2h_bias_initializer: Any,
        activation: Any,
        prefix: str = "",
        params: RNNParams | None = None,
        conv_layout: str = "NCHW",
    ) -> None:
        super().__init__(prefix=prefix, params=params)
        if any(k % 2 == 0 for k in h2h_kernel):
            raise AssertionError(f"{type(self).__name__}: h2h_kernel must be odd, got {tuple(h2h_kernel)}")
        self._num_hidden = num_hidden
        self._activation_kind = activation
        self._conv_layout = conv_layout
        pad = tuple(d * (k - 1) // 2 for k, d in zip(h2h_kernel, h2h_dilate, strict=True))
        self._h2h = {"kernel": h2h_kernel, "dilate": h2h_dilate, "pad": pad, "stride": (1, 1)}
        self._i2h = {"kernel": i2h_kernel, "dilate": i2h_dilate, "pad": i2h_pad, "stride": i2h_stride}
        weights = self._params
        self._iW = weights.get("i2h_weight", init=i2h_weight_initializer)
        self._hW = weights.get("h2h_weight", init=h2h_weight_initializer)
        self._iB = weights.get("i2h_bias", init=i2h_bias_initializer)
        self._hB = weights.get("h2h_bias", init=h2h_bias_initializer)
        self._state_shape = self._shape_of_state(tuple(input_shape))

    def _shape_of_state(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        out = sym.Convolution(
            sym.Variable("data"), num_filter=self._num_hidden, layout=self._conv_layout, **self._i2h
        )
        _, shapes, _ = out.infer_shape(data=input_shape)
        return (0, *shapes[0][1:])

    @property
    def _gate_names(self) -> Sequence[str]:
        return self._gates

    @property
    def state_info(self) -> list[dict[str, Any]]:
        """One state of the shape of the output; for LSTM two."""
        return [{"shape": self._state_shape, "__layout__": self._conv_layout}]

    def _convolve(self, inputs: Any, state: Any, name: str) -> tuple[Any, Any]:
        more = {"num_filter": self._num_hidden * len(self._gates), "layout": self._conv_layout}
        i2h = sym.Convolution(
            data=inputs, weight=self._iW, bias=self._iB, name=f"{name}i2h", **self._i2h, **more
        )
        h2h = sym.Convolution(
            data=state, weight=self._hW, bias=self._hB, name=f"{name}h2h", **self._h2h, **more
        )
        return i2h, h2h

    def __call__(self, inputs: Any, states: Sequence[Any]) -> tuple[Any, list[Any]]:
        """One step."""
        raise NotImplementedError(f"{type(self).__name__} does not define a step")


class _ConvCell(BaseConvRNNCell):
    """The arguments that the three cells share, with their defaults."""

    _prefix_default = ""

    def __init__(
        self,
        input_shape: Sequence[int],
        num_hidden: int,
        h2h_kernel: Pair = (3, 3),
        h2h_dilate: Pair = (1, 1),
        i2h_kernel: Pair = (3, 3),
        i2h_stride: Pair = (1, 1),
        i2h_pad: Pair = (1, 1),
        i2h_dilate: Pair = (1, 1),
        i2h_weight_initializer: Any = None,
        h2h_weight_initializer: Any = None,
        i2h_bias_initializer: Any = "zeros",
        h2h_bias_initializer: Any = "zeros",
        activation: Any = _LEAKY,
        prefix: str | None = None,
        params: RNNParams | None = None,
        conv_layout: str = "NCHW",
    ) -> None:
        super().__init__(
            input_shape,
            num_hidden,
            h2h_kernel,
            h2h_dilate,
            i2h_kernel,
            i2h_stride,
            i2h_pad,
            i2h_dilate,
            i2h_weight_initializer,
            h2h_weight_initializer,
            i2h_bias_initializer,
            h2h_bias_initializer,
            activation,
            self._prefix_default if prefix is None else prefix,
            params,
            conv_layout,
        )


class ConvRNNCell(_ConvCell):
    """The plain cell with convolutions: `h' = activation(W * x + b + U * h + c)`."""

    _gates = ("",)
    _prefix_default = "ConvRNN_"

    def __call__(self, inputs: Any, states: Sequence[Any]) -> tuple[Any, list[Any]]:
        """One step."""
        name = self._step_name()
        i2h, h2h = self._convolve(inputs, states[0], name)
        output = self._activation(i2h + h2h, self._activation_kind, name=f"{name}out")
        return output, [output]


class ConvLSTMCell(_ConvCell):
    """`LSTMCell` with convolutions, and `activation` in the place of tanh."""

    _gates = ("_i", "_f", "_c", "_o")
    _prefix_default = "ConvLSTM_"

    @property
    def state_info(self) -> list[dict[str, Any]]:
        """Two states of the shape of the output."""
        return super().state_info * 2

    def __call__(self, inputs: Any, states: Sequence[Any]) -> tuple[Any, list[Any]]:
        """One step."""
        name = self._step_name()
        i2h, h2h = self._convolve(inputs, states[0], name)
        axis = self._conv_layout.find("C")
        slices = sym.SliceChannel(i2h + h2h, num_outputs=4, axis=axis, name=f"{name}slice")
        return lstm_step(name, slices, states[1], self._activation_kind, self._activation)


class ConvGRUCell(_ConvCell):
    """`GRUCell` with convolutions, and `activation` in the place of tanh."""

    _gates = ("_r", "_z", "_o")
    _prefix_default = "ConvGRU_"

    def __call__(self, inputs: Any, states: Sequence[Any]) -> tuple[Any, list[Any]]:
        """One step."""
        name = self._step_name()
        i2h, h2h = self._convolve(inputs, states[0], name)
        axis = self._conv_layout.find("C")
        split = {} if axis == 1 else {"axis": axis}
        return gru_step(name, i2h, h2h, states[0], self._activation_kind, self._activation, **split)
