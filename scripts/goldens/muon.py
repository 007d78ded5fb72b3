"""Three steps of torch.optim.Muon on a wide and a tall matrix, in f32: goldens/muon.safetensors."""

import torch
from safetensors.torch import save_file

from common import GOLDENS


def main():
    # torch rounds to bf16 before it orthogonalizes; here the arithmetic itself is compared.
    torch.Tensor.bfloat16 = torch.Tensor.clone
    generator = torch.Generator().manual_seed(9)
    tensors = {}
    for name, shape in [("wide", (24, 40)), ("tall", (48, 16))]:
        value = torch.nn.Parameter(torch.randn(shape, generator=generator))
        tensors[f"{name}.start"] = value.detach().clone()
        optimizer = torch.optim.Muon([value], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
        for step in range(3):
            value.grad = torch.randn(shape, generator=generator) * 0.1
            tensors[f"{name}.gradient.{step}"] = value.grad.clone()
            optimizer.step()
            tensors[f"{name}.after.{step}"] = value.detach().clone()
    save_file(tensors, GOLDENS / "muon.safetensors")


if __name__ == "__main__":
    main()
