import torch

PROGRAM, BATCH, OPTIONS = "model.pt2", 1, {"compile": False}
module = torch.export.load(PROGRAM).module()
model = torch.compile(module) if OPTIONS.get("compile") else module


@torch.inference_mode()
def run(x):
    return model(torch.from_numpy(x)).numpy()
