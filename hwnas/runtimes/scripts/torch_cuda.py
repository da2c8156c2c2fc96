import torch

PROGRAM, BATCH, PRECISION = "model.pt2", 1, "fp16"
dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[PRECISION]
model = torch.export.load(PROGRAM).module().to("cuda", dtype)


@torch.inference_mode()
def run(x):
    return model(torch.from_numpy(x).to("cuda", dtype)).float().cpu().numpy()
