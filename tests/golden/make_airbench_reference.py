"""Write the golden values of the speedrun's recipe, of `benchmarks/airbench_torch.py`.

Made with PyTorch 2.15.0 (CPU): pip install torch==2.15.0, then this script in tests/golden.
"""

import argparse
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from airbench_problem import RATE, SHARE, STEPS, WHITENED, WIDTHS, initial_values
from golden_problem import BATCH_SIZE, Tensors, batch

from benchmarks.airbench_torch import (
    BATCH,
    MEAN,
    STD,
    Network,
    Optimizer,
    averaged,
    loss_of,
    whitening,
)

REFERENCE = Path(__file__).with_name("airbench_reference.npz")


def images(seed: int) -> torch.Tensor:
    """Return the normalised images of a batch, float64 (B, 3, 32, 32)."""
    x = torch.from_numpy(batch(seed)[0]).permute(0, 3, 1, 2).double() / 255
    mean, std = (torch.tensor(v, dtype=x.dtype).view(1, 3, 1, 1) for v in (MEAN, STD))
    return (x - mean) / std


def parameters(network: Network, when: str) -> Tensors:
    """Return copies of the trained parameters."""
    return {
        f"{when} {name}": value.detach().numpy().copy()
        for name, value in network.named_parameters()
        if value.requires_grad
    }


def reference() -> Tensors:
    """Return whitening, logits in both modes, parameters after 1 and all steps, and losses."""
    network = Network(WIDTHS, torch.float64)
    filters = whitening(torch.cat([images(seed) for seed in WHITENED]))
    values = {name: torch.from_numpy(value) for name, value in initial_values().items()}
    network.load_state_dict({**values, "first.weight": filters}, strict=False)
    network.eval()
    with torch.no_grad():
        found = {"whitening": filters.numpy(), "evaluation": averaged(network, images(0)).numpy()}
    network.train()
    optimizer = Optimizer(network, STEPS, SHARE, torch.float64, RATE)
    losses = []
    for step in range(STEPS):
        logits = network(images(step))
        if step == 0:
            found["training"] = logits.detach().numpy().copy()
        loss = loss_of(logits, torch.from_numpy(batch(step)[1]))
        losses.append(loss.item() / BATCH_SIZE)
        (loss * (BATCH / BATCH_SIZE)).backward()
        optimizer.step()
        network.zero_grad(set_to_none=True)
        if step == 0:
            found |= parameters(network, "first")
    statistics = {
        f"statistic {name}": value.numpy().copy()
        for name, value in network.named_buffers()
        if "running" in name
    }
    return {**found, **parameters(network, "last"), **statistics, "loss": np.array(losses)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=REFERENCE, help="default: %(default)s")
    stored = reference()
    # Float32 has more digits than the test compares.
    small = {name: value.astype(np.float32) for name, value in stored.items()}
    np.savez_compressed(parser.parse_args().output, torch=torch.__version__, **small)


if __name__ == "__main__":
    main()
