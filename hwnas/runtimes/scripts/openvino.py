from functools import cache

import openvino

PROGRAM, BATCH, PRECISION = "model.onnx", 1, "fp32"
settings = {"INFERENCE_PRECISION_HINT": "bf16" if PRECISION == "bf16" else "f32"}
if PRECISION == "int8":
    settings["SNIPPETS_MODE"] = "DISABLE"  # otherwise two int8 linear layers fuse into a kernel with wrong results
model = openvino.Core().read_model(PROGRAM)


@cache
def compiled(shape):
    model.reshape(shape)  # OpenVINO is slower if the number of images is not fixed
    return openvino.compile_model(model, "CPU", settings)


def run(x):
    return compiled(x.shape)(x)[0]
