"""A network whose weights are adapted while it trains."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import torch
from pydantic import Field, JsonValue, field_validator
from torch import Tensor, nn

from hwnas.adapters.base import Adapter
from hwnas.adapters.kinds import ADAPTERS
from hwnas.errors import InvalidValue, UnknownName
from hwnas.files import Spec

_FORMS = ("0", "down", "up")  # of a layer of a traced network (`hwnas.nn.segment`)
_NOISE = 1e-5  # singular values below this share of the largest one are rounding errors of single precision


class AdapterChoice(Spec):
    """A method of fine-tuning that merges into the weights.

    Attributes:
        method: name in `hwnas.adapters.ADAPTERS`.
        rank: size of the change of a layer.
    """

    method: str
    rank: int = Field(default=8, ge=1)

    @field_validator("method")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in ADAPTERS:
            raise ValueError(str(UnknownName("method of fine-tuning", value, ADAPTERS)))
        return value


class Adapted:
    """What is trained of a network: all its weights, or adapters of its layers and little else.

    The weights of the network are always the merged ones: before each update, gradients of the weights are turned into
    gradients of the adapters' parameters (`pull`), and after it the weights are merged anew (`push`). So the network is
    trained, evaluated and stored as one without adapters.

    The last layer, norms and biases are trained as they are, with the method ``head`` the last layer alone. A layer
    whose adapter would have no fewer parameters than itself keeps its weight.

    Args:
        network: with the weights before the training.
        choice: the method; None to train all weights.
        seed: of the adapters' initial values.

    Raises:
        InvalidValue: no layer can be adapted.

    Attributes:
        trained: name -> parameter that an optimizer trains.
        clipped: all parameters whose gradients a clipped norm counts.
    """

    def __init__(self, network: nn.Module, choice: AdapterChoice | None, *, seed: int) -> None:
        self._weights = {name: p for name, p in network.named_parameters() if p.requires_grad}  # frozen ones stay
        self._adapters: dict[str, Adapter] = {}
        self._before: dict[str, Tensor] = {}
        self._adapting = choice is not None
        own = set(self._weights)
        if choice is not None:
            head = _last_layer(self._weights)
            self._adapt(choice, head, seed)
            only_head = ADAPTERS[choice.method].make is None
            own = head if only_head else head | {name for name, p in self._weights.items() if p.dim() < 2}
        self.trained: dict[str, nn.Parameter] = {name: p for name, p in self._weights.items() if name in own}
        for name, adapter in self._adapters.items():
            self.trained |= {f"{name}:{theta}": parameter for theta, parameter in adapter.named_parameters()}
        selves = [name for name, adapter in self._adapters.items() if not _has_optimizer(adapter)]
        self.clipped = [*self.trained.values(), *(self._weights[name] for name in selves)]
        self._used = own | set(self._adapters)

    def _adapt(self, choice: AdapterChoice, head: set[str], seed: int) -> None:
        """Make the adapters.

        Raises:
            InvalidValue: no layer can be adapted.
        """
        kind = ADAPTERS[choice.method]
        make, rank = kind.make, choice.rank if kind.ranked else 1
        if make is None:
            return
        largest = ("", 0, 0)
        for name, weight in self._weights.items():
            if weight.dim() < 2 or name in head or _is_transform(name):
                continue
            matrix = weight.detach().flatten(1)
            largest = max(largest, (name, *matrix.shape), key=lambda found: min(found[1:]))
            if rank > min(matrix.shape):
                continue
            generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
            adapter = make(matrix, rank, generator)
            if sum(p.numel() for p in adapter.parameters()) < matrix.numel():
                self._adapters[name], self._before[name] = adapter, weight.detach().clone()
        if not self._adapters:
            name, out, into = largest
            what = f"; the largest, {name}, is a matrix of {out} x {into}" if name else ""
            raise InvalidValue(
                f"{choice.method} of rank {rank} has no fewer parameters than any layer{what}: choose a smaller rank"
            )

    def start(self, device: torch.device, state: Mapping[str, Tensor] | None) -> None:
        """Begin or go on: freeze what is not trained, and merge the adapters' weights into the network.

        Args:
            device: of the network.
            state: of a training that goes on.
        """
        if self._adapting:
            for name, weight in self._weights.items():
                weight.requires_grad_(name in self._used)
        self._before = {name: tensor.to(device) for name, tensor in self._before.items()}
        for name, adapter in self._adapters.items():
            if state is not None:
                prefix = f"{name}:"
                own = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
                adapter.load_state_dict(own)
            adapter.to(device)
        self.push(0.0)

    def pull(self) -> None:
        """Add the gradients of the weights to those of the adapters' parameters."""
        for name, adapter in self._adapters.items():
            gradient = self._weights[name].grad
            if gradient is not None and _has_optimizer(adapter):
                with torch.enable_grad():
                    merged = adapter.merge(self._before[name].flatten(1))
                torch.autograd.backward(merged, gradient.flatten(1))

    @torch.no_grad()
    def push(self, learning_rate: float) -> None:
        """Write the merged weights into the network.

        Args:
            learning_rate: of adapters that train themselves, by the gradients of the weights.
        """
        for name, adapter in self._adapters.items():
            weight = self._weights[name]
            if weight.grad is not None:
                adapter.advance(weight.grad.flatten(1), learning_rate)
                weight.grad = None
            weight.copy_(adapter.merge(self._before[name].flatten(1)).view_as(weight))

    def end(self) -> dict[str, JsonValue]:
        """End the training: what was frozen for it can be trained again.

        Returns:
            with a method of fine-tuning: the number of parameters that were trained, and the rank of each layer where
            the method finds it.
        """
        if not self._adapting:
            return {}
        for weight in self._weights.values():
            weight.requires_grad_(True)
        trained = sum(p.numel() for p in self.trained.values())
        for adapter in self._adapters.values():
            if not _has_optimizer(adapter):
                trained += sum(buffer.numel() for buffer in adapter.buffers())
        # Of the weights that are kept, which may be averages, or those of an earlier update.
        ranks: dict[str, JsonValue] = {
            name: int(torch.linalg.matrix_rank(self._weights[name].detach().flatten(1).double().cpu(), rtol=_NOISE))
            for name, adapter in self._adapters.items()
            if adapter.found is not None
        }
        return {"trained_parameters": trained, **({"ranks": ranks} if ranks else {})}

    def state(self) -> dict[str, Tensor]:
        """The state of the adapters, by names."""
        return {
            f"{name}:{own}": tensor
            for name, adapter in self._adapters.items()
            for own, tensor in adapter.state_dict().items()
        }


def _has_optimizer(adapter: Adapter) -> bool:
    """Whether it has parameters for an optimizer; otherwise it trains itself."""
    return any(True for _ in adapter.parameters())


def _is_transform(name: str) -> bool:
    """Whether a weight of a supernet transforms kernels: ``slots.NAME.transforms.…``."""
    parts = name.split(".")
    return parts[0] == "slots" and parts[2:3] == ["transforms"]


def _last_layer(weights: Mapping[str, nn.Parameter]) -> set[str]:
    """Names of the weights and biases of the last layer; in all forms, where it has a rank."""
    found = [name for name, p in weights.items() if p.dim() > 1 and not _is_transform(name)]
    if not found:
        return set()
    layer, _, place = found[-1].rpartition(".")[0].rpartition(".")
    places = _FORMS if place in _FORMS else (place,)
    prefixes = {f"{layer}.{each}".lstrip(".") for each in places}
    return {name for name in weights if name.rpartition(".")[0] in prefixes}
