"""Networks of modules with explicit connections between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from hwnas.spaces.wiring import FROM_IMAGE


class Wired(nn.Module):
    """Modules that read the input or each other; the last one computes the output.

    Args:
        modules: by name, in the order of execution.
        reads: for each module, the positions of the modules that it reads; `FROM_IMAGE` for the input.
    """

    def __init__(self, modules: Mapping[str, nn.Module], reads: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)
        self.reads = tuple(reads)

    @property
    def parts(self) -> list[nn.Module]:
        """The modules in the order of execution; a shared module occurs several times."""
        return [module for module in self._modules.values() if module is not None]

    def forward(self, x: Tensor) -> Tensor:
        """Input of the first module -> output of the last one."""
        return run_wired(self.parts, self.reads, x)


def run_wired(modules: Sequence[nn.Module], reads: Sequence[tuple[int, ...]], x: Tensor) -> Tensor:
    """Run modules on an input; see `Wired`."""
    last = {read: i for i, those in enumerate(reads) for read in those}  # position of the last reader
    values: dict[int, Tensor] = {FROM_IMAGE: x}
    for i, (module, those) in enumerate(zip(modules, reads, strict=True)):
        values[i] = module(*(values[read] for read in those))
        for read in set(those):
            if last[read] == i:
                del values[read]
    return values[len(modules) - 1]
