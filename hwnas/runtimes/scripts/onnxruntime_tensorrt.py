import onnxruntime

PROGRAM, INPUT, BATCH = "model.onnx", "input", 1
session = onnxruntime.InferenceSession(PROGRAM, providers=[("TensorrtExecutionProvider", {"trt_fp16_enable": True})])


def run(x):
    [y] = session.run(None, {INPUT: x})
    return y
