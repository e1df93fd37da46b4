"""What scoring needs of this machine."""

import torch


def missing_gpus(device: str, ranks: int) -> list[str]:
    """What is lacking to score on `device` over so many ranks."""
    present = torch.cuda.device_count()
    if device != "cuda" or present >= ranks:
        return []
    return [f"cluster.device=cuda: {ranks} CUDA GPU(s) are needed, {present} are here; cluster=local_cpu needs none"]
