import openvino

PROGRAM, PRECISION = "model.onnx", "fp32"
settings = {"INFERENCE_PRECISION_HINT": "bf16" if PRECISION == "bf16" else "f32"}
if PRECISION == "int8":
    settings["SNIPPETS_MODE"] = "DISABLE"  # otherwise two int8 linear layers fuse into a kernel with wrong results
model = openvino.compile_model(openvino.Core().read_model(PROGRAM), "CPU", settings)


def run(inputs):
    found = model(inputs)
    return [found[i] for i in range(len(model.outputs))]
