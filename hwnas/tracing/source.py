"""Trained networks of users: where they come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from hwnas.errors import ModelError
from hwnas.models.torch_module import load_weights, loaded_program, module_in_file
from hwnas.plugins import in_file

TIMM = "timm:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A network, and what is known of it.

    Attributes:
        name: of the network.
        module: the network.
        shape: of its images, ``(channels, height, width)``; None if it is not known.
    """

    name: str
    module: nn.Module
    shape: tuple[int, ...] | None


def open_network(text: str, *, weights: Path | None, channels: int, classes: int | None) -> Source:
    """A network from a text: ``timm:NAME``, ``file.py:NAME``, or a ``.pt2`` file of ``torch.export.save``.

    Args:
        text: as above. The function in a file returns a module, or a module and a tuple of its inputs.
        weights: file of its weights, ``.safetensors`` or of ``torch.save``.
        channels: of the data's images, for timm.
        classes: of the data, for timm; None for as many as the network has by default.

    Raises:
        ModelError: it cannot be made, or the weights do not fit.
        PluginError: the file cannot be loaded.
    """
    if text.startswith(TIMM):
        source = _of_timm(text.removeprefix(TIMM), channels, classes)
    elif Path(text).suffix == ".pt2":
        source = _of_archive(Path(text))
    elif in_file(text):
        source = _of_file(text)
    else:
        raise ModelError(
            f"{text} is not a network that can be traced: pass timm:NAME, path/to/file.py:NAME, or a .pt2 file of "
            "torch.export.save. (An ONNX file has no weights that can be trained: pass the torch module)"
        )
    if weights is not None:
        load_weights(source.module, weights)
    return source


def _of_timm(name: str, channels: int, classes: int | None) -> Source:
    try:
        import timm
    except ImportError as error:
        raise ModelError(f"timm is not installed, which makes {TIMM}{name}: pip install timm") from error
    create: Callable[..., nn.Module] = timm.create_model
    try:
        module = create(name, pretrained=False, num_classes=classes, in_chans=channels)
    except RuntimeError as error:
        raise ModelError(f"timm cannot make {name}: {error}") from error
    size = getattr(module, "pretrained_cfg", {}).get("input_size")
    return Source(name=name, module=module, shape=(channels, *size[1:]) if size else None)


def _of_archive(path: Path) -> Source:
    program = loaded_program(path)
    module = program.module(check_guards=False)
    [*inputs] = program.graph_signature.user_inputs
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    shapes = [tuple(value.shape) for name in inputs if isinstance(value := values.get(str(name)), Tensor)]
    return Source(name=path.stem, module=module, shape=shapes[0][1:] if shapes else None)


def _of_file(text: str) -> Source:
    module, example = module_in_file(text)
    first = example[0] if isinstance(example, tuple | list) and example else example
    shape = tuple(first.shape[1:]) if isinstance(first, Tensor) else None
    file, _, function = text.rpartition(":")
    return Source(name=f"{Path(file).stem}-{function}", module=module, shape=shape)
