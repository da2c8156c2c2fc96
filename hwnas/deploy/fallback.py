"""int8 with a bound on the accuracy loss: the most costly layers stay in float until the bound holds."""

from __future__ import annotations

import onnx
import torch
from torch import nn

from hwnas.accuracy import Evaluator
from hwnas.accuracy.evaluate import logits
from hwnas.deploy.parity import outputs
from hwnas.errors import GraphError
from hwnas.lowering.onnx import OnnxForm
from hwnas.lowering.sensitivity import sensitivities
from hwnas.progress import Progress, silent
from hwnas.runtimes import open_session
from hwnas.spaces import Arch
from hwnas.targets import saturates_here

_STEPS = 10  # largest number of steps that keep further layers in float
_JUDGED = 256  # training images for the cost of layers


def lower_within_bound(
    form: OnnxForm, network: nn.Module, evaluator: Evaluator, arch: Arch, *, progress: Progress = silent
) -> onnx.ModelProto:
    """An int8 network that loses no more accuracy than its recipe's ``max_accuracy_drop``.

    Accuracy in the runtime is compared with torch's on the evaluator's validation images. The cost of layers is
    measured on the calibration images (`sensitivities`).

    Args:
        form: of an int8 recipe with a bound.
        network: of the arch, in evaluation mode.
        evaluator: has the data.
        arch: of the network.
        progress: callback, invoked after every layer and every step.

    Returns:
        the graph; `hwnas.lowering.quantize.float_layers` lists its float layers.

    Raises:
        GraphError: the bound holds only without int8 layers.
    """
    how = form.recipe.quantization
    assert how is not None and how.max_accuracy_drop is not None
    size = evaluator.supernet.space.input_size(arch)
    images = evaluator.training_images(size, form.images_needed)
    batches = list(evaluator.data.batches("validation", size, limit=evaluator.images))
    expected, labels = logits(network, batches)
    accuracy = evaluator.metric(expected, labels)

    def drop(model: onnx.ModelProto) -> float:
        with open_session(model, form.recipe) as session:
            got = [outputs(session, x.numpy()) for x, _ in batches]
        return accuracy - evaluator.metric(torch.cat([torch.from_numpy(part) for part in got]), labels)

    space = evaluator.supernet.space
    quantizer = form.quantizer(network, space.input_shape(arch), images, dtype=space.dtype)
    model = form.checked(quantizer.quantized())
    least = whole = drop(model)
    if whole <= how.max_accuracy_drop:
        return model
    costly = list(sensitivities(quantizer, images[:_JUDGED].numpy(), progress=progress))
    step = -(-len(costly) // _STEPS)
    for kept in range(step, len(costly), step):
        progress("keeping layers in float until the bound on accuracy holds", kept, len(costly))
        model = form.checked(quantizer.quantized(costly[:kept]))
        found = drop(model)
        if found <= how.max_accuracy_drop:
            return model
        least = min(least, found)
    raise GraphError(
        f"{form.recipe.name} allows int8 to cost {how.max_accuracy_drop:.2%} of accuracy, but on {len(labels)} "
        f"validation images it costs this network {whole:.2%}, and still {least:.2%} with up to "
        f"{len(range(step, len(costly), step)) * step} of its {len(costly)} layers in float. Choose another "
        "calibration method, a larger bound, or a float recipe"
        + (f". {why}" if (why := saturates_here(form.recipe)) else "")
    )
