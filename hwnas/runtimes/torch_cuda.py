"""PyTorch on a GPU: eager kernels, captured as a CUDA graph."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from hwnas.lowering import Program
from hwnas.lowering.torch import input_shape
from hwnas.runtimes.base import parse_options
from hwnas.runtimes.cuda import Bound, CudaOptions, CudaSession, captured
from hwnas.runtimes.torch import copied, loaded
from hwnas.targets.runtimes import Precision

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class TorchCudaOptions(CudaOptions, frozen=True):
    """The ``[options]`` of a torch-cuda recipe.

    Attributes:
        channels_last: use the memory format of tensor cores, (batch, height, width, channels).
    """

    channels_last: bool = True


class TorchCudaSession(CudaSession):
    """A module of torch layers in the recipe's precision."""

    @staticmethod
    def version() -> str:
        """Version of torch."""
        return str(torch.__version__)

    def _compile(self, program: Program | Path) -> tuple[int, ...]:
        self._options = parse_options(self.recipe, TorchCudaOptions)
        module = loaded(program, self.recipe.batch)
        self._module, self._empty = prepared(
            module, DTYPES[self.recipe.precision], torch.device("cuda"), channels_last=self._options.channels_last
        )
        return tuple(self._empty.shape)

    def _allocate(self) -> Bound:
        module, given = self._module, torch.empty_like(self._empty)

        def run() -> Tensor:
            # Real fp32: cuDNN would use TF32. With static shapes, benchmarking its algorithms pays off.
            flags = torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=True, allow_tf32=False)
            with torch.inference_mode(), flags:
                y: Tensor = module(given)
            return y

        return Bound(given, captured(run) if self._options.cuda_graph else run)

    def _close(self) -> None:
        super()._close()
        del self._module, self._empty


def prepared(
    module: nn.Module, dtype: torch.dtype, device: torch.device, *, channels_last: bool
) -> tuple[nn.Module, Tensor]:
    """A copy of a lowered module with weights of another dtype on another device, and a matching input.

    Args:
        module: from `hwnas.lowering.torch.TorchForm`, in fp32 on the CPU.
        dtype: of the weights and the activations.
        device: target device.
        channels_last: memory format of images and convolution weights.
    """
    given = torch.zeros(input_shape(module), dtype=dtype, device=device)
    made = copied(module).to(device=device, dtype=dtype)
    if not channels_last or given.dim() != 4:
        return made, given
    for parameter in made.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return made, given.contiguous(memory_format=torch.channels_last)
