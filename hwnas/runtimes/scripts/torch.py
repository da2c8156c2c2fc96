import numpy as np
import torch

PROGRAM, BATCH, OPTIONS = "model.pt2", 1, {"compile": False}
module = torch.export.load(PROGRAM).module()
model = torch.compile(module) if OPTIONS.get("compile") else module
x = np.load("example-input.npy").repeat(BATCH, axis=0)
with torch.inference_mode():
    y = model(torch.from_numpy(x)).numpy()
recorded = np.load("example-output.npy")
print("class", y[0].argmax(), "largest difference", abs(y[:1] - recorded).max())
