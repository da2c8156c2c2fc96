import numpy as np
import torch

PROGRAM, BATCH, PRECISION = "model.pt2", 1, "fp16"
dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[PRECISION]
model = torch.export.load(PROGRAM).module().to("cuda", dtype)
x = np.load("example-input.npy").repeat(BATCH, axis=0)
with torch.inference_mode():
    y = model(torch.from_numpy(x).to("cuda", dtype)).float().cpu().numpy()
recorded = np.load("example-output.npy")
print("class", y[0].argmax(), "largest difference", abs(y[:1] - recorded).max())
