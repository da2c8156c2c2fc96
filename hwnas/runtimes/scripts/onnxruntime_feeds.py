import onnxruntime

PROGRAM = "model.onnx"
session = onnxruntime.InferenceSession(PROGRAM, providers=["CPUExecutionProvider"])


def run(inputs):
    return session.run(None, inputs)
