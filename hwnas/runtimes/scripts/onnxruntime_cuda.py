import onnxruntime

PROGRAM, INPUT, BATCH = "model.onnx", "input", 1
session = onnxruntime.InferenceSession(PROGRAM, providers=["CUDAExecutionProvider"])


def run(x):
    [y] = session.run(None, {INPUT: x})
    return y
