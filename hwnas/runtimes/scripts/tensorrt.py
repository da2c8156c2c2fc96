import numpy as np
from polygraphy.backend.common import BytesFromPath
from polygraphy.backend.trt import EngineFromBytes, TrtRunner

INPUT, BATCH = "input", 1
x = np.load("example-input.npy").repeat(BATCH, axis=0)
with TrtRunner(EngineFromBytes(BytesFromPath("model.engine"))) as runner:
    y = runner.infer({INPUT: x})["output"]
recorded = np.load("example-output.npy")
print("class", y[0].argmax(), "largest difference", abs(y[:1] - recorded).max())
