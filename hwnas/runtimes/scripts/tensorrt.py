from polygraphy.backend.common import BytesFromPath
from polygraphy.backend.trt import EngineFromBytes, TrtRunner

INPUT, BATCH = "input", 1


def run(x):
    with TrtRunner(EngineFromBytes(BytesFromPath("model.engine"))) as runner:
        return runner.infer({INPUT: x})["output"]
