import numpy as np
import onnxruntime

PROGRAM, INPUT, BATCH = "model.onnx", "input", 1
session = onnxruntime.InferenceSession(PROGRAM, providers=[("TensorrtExecutionProvider", {"trt_fp16_enable": True})])
x = np.load("example-input.npy").repeat(BATCH, axis=0)
[y] = session.run(None, {INPUT: x})
recorded = np.load("example-output.npy")
print("class", y[0].argmax(), "largest difference", abs(y[:1] - recorded).max())
