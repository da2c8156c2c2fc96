"""Steps around a network in its program: normalisation of a uint8 image before it, softmax or sigmoid after it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, cast, get_args

import torch
from torch import Tensor, nn

from hwnas.errors import InvalidValue
from hwnas.spaces.ops import Shape

if TYPE_CHECKING:
    import onnx

    from hwnas.lowering import Program
    from hwnas.targets import Recipe

Step: TypeAlias = Literal["normalize", "softmax", "sigmoid"]
STEPS: tuple[Step, ...] = get_args(Step)
ACTIVATIONS: tuple[Step, ...] = ("softmax", "sigmoid")
NORMALISATION = ("value_range", "mean", "std")  # of a transform


def check_steps(include: Sequence[str]) -> tuple[Step, ...]:
    """The steps to include, each once, in the order of `STEPS`.

    Raises:
        InvalidValue: a step is unknown.
    """
    for name in include:
        if name not in STEPS:
            raise InvalidValue(f"{name!r} cannot be included in a program; the steps are {', '.join(STEPS)}")
    return tuple(step for step in STEPS if step in include)


@dataclass(frozen=True, slots=True, kw_only=True)
class Included:
    """The steps that a program includes.

    Attributes:
        steps: their names.
        low, high: values of black and white before the mean is subtracted.
        mean, std: of each channel.
    """

    steps: tuple[Step, ...]
    low: float
    high: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, transform: Mapping[str, object], include: Sequence[str]) -> Included:
        """The steps for a transform (`hwnas.data.Data.transform`).

        Raises:
            InvalidValue: a step is unknown, or the transform lacks what the normalisation needs.
        """
        steps = check_steps(include)
        if "normalize" not in steps and NORMALISATION[0] not in transform:  # of tokens
            return cls(steps=steps, low=0.0, high=1.0, mean=(), std=())
        if missing := [name for name in NORMALISATION if not isinstance(transform.get(name), list)]:
            raise InvalidValue(f"the transform of the data has no {missing[0]}, so it cannot be included in a program")
        (low, high), mean, std = (cast("list[float]", transform[name]) for name in NORMALISATION)
        return cls(steps=steps, low=low, high=high, mean=tuple(mean), std=tuple(std))

    @property
    def normalizes(self) -> bool:
        """Whether the program takes uint8 images ``(batch, height, width, channels)``."""
        return "normalize" in self.steps

    @property
    def activation(self) -> Step | None:
        """The step after the network."""
        return next((step for step in self.steps if step in ACTIVATIONS), None)

    @property
    def scale(self) -> list[float]:
        """Factor of a pixel's value from 0 to 255, for each channel."""
        return [(self.high - self.low) / (255 * std) for std in self.std]

    @property
    def shift(self) -> list[float]:
        """Summand after the factor, for each channel."""
        return [(self.low - mean) / std for mean, std in zip(self.mean, self.std, strict=True)]

    def shape(self, image: Shape) -> Shape:
        """Shape of an input of the program, from the network's: ``(channels, height, width)`` or ``(length,)``."""
        if not self.normalizes:
            return image
        channels, height, width = image
        return height, width, channels

    def transform(self, transform: Mapping[str, object]) -> dict[str, object]:
        """The transform that remains to be done before the program."""
        if not self.normalizes:
            return dict(transform)
        rest = {name: value for name, value in transform.items() if name not in NORMALISATION}
        return {**rest, "layout": "NHWC", "dtype": "uint8"}

    def batches(self, batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of images for the program, from normalised ones ``(n, channels, height, width)``.

        Images with more than 8 bits per channel are rounded to 8.
        """
        for images, labels in batches:
            yield (self._raw(images) if self.normalizes else images), labels

    def _raw(self, images: Tensor) -> Tensor:
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (self.mean, self.std))
        pixels = (images * std + mean - self.low) * (255 / (self.high - self.low))
        return pixels.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    def around(self, network: nn.Module) -> nn.Module:
        """A network with the steps around it, in torch."""
        return _Around(network, self)

    def into(self, program: Program, recipe: Recipe) -> Program:
        """A program with the steps in it.

        Raises:
            GraphError: the runtime does not accept the graph.
        """
        from hwnas.lowering import form_of

        if isinstance(program, nn.Module):
            from hwnas.lowering.torch import TorchForm, input_dtype, input_shape

            batch, *image = input_shape(program)
            dtype = torch.uint8 if self.normalizes else input_dtype(program)
            x = torch.zeros(batch, *self.shape(cast("Shape", tuple(image))), dtype=dtype)
            return TorchForm(recipe).traced(self.around(program), (x,))
        from hwnas.lowering.onnx import OnnxForm

        form = form_of(recipe)
        assert isinstance(form, OnnxForm)
        return form.checked(_with_steps(cast("onnx.ModelProto", program), self))


class _Around(nn.Module):
    """A network with steps around it. A product of uint8 and float32 is float32, so no cast is needed."""

    def __init__(self, network: nn.Module, how: Included) -> None:
        super().__init__()
        self.network, self.how = network, how
        self.scale = nn.Parameter(torch.tensor(how.scale), requires_grad=False)
        self.shift = nn.Parameter(torch.tensor(how.shift), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.how.normalizes:
            x = (x * self.scale + self.shift).permute(0, 3, 1, 2)
        y: Tensor = self.network(x)
        if self.how.activation == "sigmoid":
            return y.sigmoid()
        return y.softmax(1) if self.how.activation == "softmax" else y


def _with_steps(model: onnx.ModelProto, how: Included) -> onnx.ModelProto:
    """An ONNX graph with the steps at its input and its output, whose names are unchanged."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    from hwnas.graphs import copied

    model = copied(model)
    graph = model.graph
    [given], [result] = graph.input, graph.output
    names = {}
    before, after = [], []
    if how.normalizes:
        names[given.name] = "normalized"
        for name, values in (("pixel_scale", how.scale), ("pixel_shift", how.shift)):
            array = np.array(values, np.float32).reshape(-1, 1, 1)
            graph.initializer.append(numpy_helper.from_array(array, name))
        # Channels first, then numbers: ONNX Runtime multiplies whole channels at once (224 px, RGB: 0.14 ms instead of
        # 1.65 ms with the channels last), and a uint8 transpose moves a quarter of the bytes.
        before = [
            helper.make_node("Transpose", [given.name], ["channels"], "channels_first", perm=[0, 3, 1, 2]),
            helper.make_node("Cast", ["channels"], ["pixels"], "cast_pixels", to=TensorProto.FLOAT),
            helper.make_node("Mul", ["pixels", "pixel_scale"], ["scaled"], "scale_pixels"),
            helper.make_node("Add", ["scaled", "pixel_shift"], ["normalized"], "shift_pixels"),
        ]
        batch, *image = (axis.dim_value for axis in given.type.tensor_type.shape.dim)
        shape = [batch, *how.shape(cast("Shape", tuple(image)))]
        given.CopyFrom(helper.make_tensor_value_info(given.name, TensorProto.UINT8, shape))
    if how.activation:
        names[result.name] = "logits"
        after = [helper.make_node(how.activation.capitalize(), ["logits"], [result.name], how.activation)]
        if how.activation == "softmax":
            after[0].attribute.append(helper.make_attribute("axis", 1))
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    return model
