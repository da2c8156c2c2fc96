"""int8 within a bound on what it may cost: the layers that cost the most stay in float until the bound holds."""

from __future__ import annotations

import onnx
import torch
from torch import nn

from hwnas.accuracy import Evaluator
from hwnas.accuracy.evaluate import logits, top1
from hwnas.deploy.parity import outputs
from hwnas.errors import GraphError
from hwnas.lowering.onnx import OnnxForm
from hwnas.lowering.sensitivity import sensitivities
from hwnas.progress import Progress, silent
from hwnas.runtimes import open_session
from hwnas.spaces import Arch
from hwnas.targets import saturates_here

_STEPS = 10  # at most so many times are layers added to those in float
_JUDGED = 256  # training images that tell which layers cost the most


def lower_within_bound(
    form: OnnxForm, network: nn.Module, evaluator: Evaluator, arch: Arch, *, progress: Progress = silent
) -> onnx.ModelProto:
    """An int8 network that loses no more accuracy than its recipe's ``max_accuracy_drop``.

    Accuracy is that of the runtime on the evaluator's validation images, against torch's on the same. Which layers
    cost the most is measured on the images that the ranges are taken from (`sensitivities`).

    Args:
        form: of an int8 recipe with a bound.
        network: of the arch, in evaluation mode.
        evaluator: holds the data.
        arch: of the network.
        progress: callback, invoked after every layer and every step.

    Returns:
        the graph; `hwnas.lowering.quantize.float_layers` says which layers were left in float.

    Raises:
        GraphError: the bound holds only with no layer in int8.
    """
    how = form.recipe.quantization
    assert how is not None and how.max_accuracy_drop is not None
    images = evaluator.training_images(arch["resolution"], form.images_needed)
    batches = list(evaluator.data.batches("validation", arch["resolution"], limit=evaluator.images))
    expected, labels = logits(network, batches)
    accuracy = top1(expected, labels)

    def drop(model: onnx.ModelProto) -> float:
        with open_session(model, form.recipe) as session:
            got = [outputs(session, x.numpy()) for x, _ in batches]
        return accuracy - top1(torch.cat([torch.from_numpy(part) for part in got]), labels)

    quantizer = form.quantizer(network, evaluator.supernet.space.image_shape(arch), images)
    model = form.checked(quantizer.quantized())
    least = whole = drop(model)
    if whole <= how.max_accuracy_drop:
        return model
    costly = list(sensitivities(quantizer, images[:_JUDGED].numpy(), progress=progress))
    step = -(-len(costly) // _STEPS)
    for kept in range(step, len(costly), step):
        progress("leaving layers in float until the bound on accuracy holds", kept, len(costly))
        model = form.checked(quantizer.quantized(costly[:kept]))
        found = drop(model)
        if found <= how.max_accuracy_drop:
            return model
        least = min(least, found)
    raise GraphError(
        f"{form.recipe.name} allows int8 to cost {how.max_accuracy_drop:.2%} of accuracy, and on {len(labels)} "
        f"validation images it costs this network {whole:.2%}, and still {least:.2%} with up to "
        f"{len(range(step, len(costly), step)) * step} of its {len(costly)} layers in float. Choose another method of "
        "calibration, a wider bound, or a float recipe" + (f". {why}" if (why := saturates_here(form.recipe)) else "")
    )
