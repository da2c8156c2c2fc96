"""Torch modules as programs: eager execution, saved with torch.export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from hwnas.errors import GraphError
from hwnas.files.atomic import system_refusals, write_whole
from hwnas.lowering.fold import blank, blanks, folded, stand_in
from hwnas.lowering.form import Form, InputType, Program, chained
from hwnas.lowering.torch_archive import archive_bytes
from hwnas.nn.wired import Wired
from hwnas.spaces import Op
from hwnas.spaces.ops import Shape
from hwnas.spaces.wiring import FROM_IMAGE

_SEVERAL = 2  # torch.export takes an axis of size 1 for a constant


def without_checks(module: torch.fx.GraphModule) -> nn.Module:
    """The module of an exported program, without its input checks.

    `hwnas.runtimes.Session` checks inputs once, outside the timed part.
    """
    module._forward_pre_hooks.clear()
    return module


def input_shape(module: nn.Module, batch: int = 1) -> tuple[int, ...]:
    """Input shape of a lowered module (or a sequence of them), with the batch axis.

    Args:
        module: the module.
        batch: size of a symbolic batch axis.
    """
    first, *image = _input(module).shape
    return (batch if takes_any_batch(module) else first, *image)


def takes_any_batch(module: nn.Module) -> bool:
    """Whether the batch axis of a lowered module is symbolic."""
    return isinstance(_input(module).shape[0], torch.SymInt)


def input_dtype(module: nn.Module) -> torch.dtype:
    """Type of the input of a lowered module: float32, uint8 if it includes the normalisation, int64 for tokens."""
    return _input(module).dtype


def _input(module: nn.Module) -> Tensor:
    """The input of a lowered module (or of a sequence of them), without values."""
    while isinstance(module, Wired):
        module = module.parts[0]
    assert isinstance(module, torch.fx.GraphModule)
    found: Tensor = next(node.meta["val"] for node in module.graph.nodes if node.op == "placeholder")
    return found


class TorchForm(Form):
    """Programs of the `torch` runtime: modules of torch layers with BN folded."""

    filename = "model.pt2"

    def lower(
        self, network: nn.Module, shape: Shape, images: Tensor | None = None, *, dtype: InputType = "float32"
    ) -> nn.Module:
        """A trained network for inputs ``(batch, *shape)``, with BN folded into the convolutions."""
        return self.traced(folded(network), (blank(self.recipe.batch, shape, dtype),))

    def lower_ops(self, ops: Sequence[Op], *, wired: bool = False) -> dict[Op, Program]:
        """Each op with random weights."""
        return {op: self.traced(stand_in(op), blanks(op, self.recipe.batch)) for op in ops}

    def traced(self, module: nn.Module, given: tuple[Tensor, ...]) -> nn.Module:
        """The program of a module for inputs of the shapes and types of the given ones."""
        return without_checks(_exported(module, given).module(check_guards=False))

    def any_batch(self, program: Program) -> nn.Module:
        """The module, traced again with a symbolic batch axis."""
        assert isinstance(program, torch.fx.GraphModule)
        x = torch.zeros(_SEVERAL, *input_shape(program)[1:], dtype=input_dtype(program))
        try:
            return without_checks(_exported(program, (x,), any_batch=True).module(check_guards=False))
        except (torch._dynamo.exc.UserError, RuntimeError) as error:
            raise GraphError(
                "the network cannot take any number of images in a run: torch.export refuses a symbolic batch axis "
                f"({str(error).strip().partition(chr(10))[0]}). Build the op from others that keep the first axis, or "
                "export with a fixed batch"
            ) from error

    def assemble(self, programs: Sequence[Program], reads: Sequence[tuple[int, ...]] | None = None) -> Program:
        """Modules that call each other."""
        modules = {str(i): program for i, program in enumerate(programs) if isinstance(program, nn.Module)}
        return Wired(modules, chained(len(modules)) if reads is None else reads)

    def another(self, program: Program, number: int) -> Program:
        """The module itself: torch does not merge equal computations."""
        return program

    def tied(self, program: Program) -> Program:
        """The module with all inputs tied to a single one; a mask of tokens, to ones."""
        assert isinstance(program, torch.fx.GraphModule)
        first, *others = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"]
        if not others:
            return program
        if all(other.shape == first.shape for other in others):
            return Wired({"0": program}, [(FROM_IMAGE,) * (1 + len(others))])
        given = torch.zeros(first.shape, dtype=first.dtype)
        return self.traced(_Masked(program, [torch.ones(other.shape) for other in others]), (given,))

    def write(self, program: Program, folder: Path) -> Path:
        """Write ``model.pt2`` (a zip of tensors and JSON, without a pickle)."""
        assert isinstance(program, nn.Module)
        x = torch.zeros(input_shape(program, _SEVERAL), dtype=input_dtype(program))
        exported = _exported(program, (x,), any_batch=takes_any_batch(program))
        path = folder / self.filename
        write_whole(path, archive_bytes(exported))
        return path


class _Masked(nn.Module):
    """A program whose other inputs are constants."""

    def __init__(self, program: nn.Module, others: Sequence[Tensor]) -> None:
        super().__init__()
        self.program, self.others = program, nn.ParameterList(nn.Parameter(x, requires_grad=False) for x in others)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.program(x, *self.others)
        return y


def _exported(module: nn.Module, given: tuple[Tensor, ...], *, any_batch: bool = False) -> torch.export.ExportedProgram:
    shapes = tuple({0: torch.export.Dim("batch")} for _ in given) if any_batch else None
    with system_refusals("torch's export"):
        exported = torch.export.export(module, given, dynamic_shapes=shapes)
    _tidy(exported.graph_module.graph)
    return exported


def _tidy(graph: torch.fx.Graph) -> None:
    """Remove, in place, checks of types, which held in the trace, and conversions that change nothing."""
    aten = torch.ops.aten
    conversions = (aten.to.device, aten.to.dtype, aten.to.dtype_layout, aten.alias.default, aten.detach.default)
    for node in list(graph.nodes):
        if node.target is aten._assert_tensor_metadata.default:
            graph.erase_node(node)
        elif node.target in conversions and node.args[0].meta["val"].dtype == node.meta["val"].dtype:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
