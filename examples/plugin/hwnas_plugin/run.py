import numpy as np
from onnx.reference import ReferenceEvaluator

PROGRAM, INPUT, BATCH = "model.onnx", "input", 1
x = np.load("example-input.npy").repeat(BATCH, axis=0)
[y] = ReferenceEvaluator(PROGRAM).run(None, {INPUT: x})
recorded = np.load("example-output.npy")
print("class", y[0].argmax(), "largest difference", abs(y[:1] - recorded).max())
