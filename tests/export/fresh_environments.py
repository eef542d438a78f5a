"""Export a run, and evaluate each file in a new environment that has only its reader.

    python tests/export/fresh_environments.py --run RUN --dataset FOLDER --environments DIR

RUN is a finished run, FOLDER its images. DIR keeps the environments for the next time; PyTorch
takes about 6 GB. Each file must give as many correct test images as the run's own results.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from cifar_jax.commands.export import Wanted, export_run
from cifar_jax.names import EXPORTS
from cifar_jax.runner.console import Display
from cifar_jax.runner.moved import Moved
from cifar_jax.study.network import open_images, restore

READERS = {
    "safetensors": (
        ("torch", "safetensors", "numpy"),
        "import torch, load_torch; network = load_torch.load()\n"
        "def logits(images):\n"
        "    with torch.no_grad(): return network(torch.from_numpy(images)).numpy()",
    ),
    "torch": (
        ("torch", "numpy"),
        "import torch; network = torch.export.load('network.pt2').module()\n"
        "def logits(images):\n"
        "    with torch.no_grad(): return network(torch.from_numpy(images)).numpy()",
    ),
    "onnx": (
        ("onnxruntime", "numpy"),
        "import onnxruntime\n"
        "session = onnxruntime.InferenceSession('network.onnx')\n"
        "def logits(images): return session.run(None, {'images': images})[0]",
    ),
    "stablehlo": (
        ("jax", "flatbuffers", "numpy"),
        "from jax import export\n"
        "program = export.deserialize(bytearray(open('network.stablehlo', 'rb').read()))\n"
        "def logits(images): return program.call(images)",
    ),
}
EVALUATE = """
import numpy as np
images, labels = np.load("images.npy"), np.load("labels.npy")
found = [np.asarray(logits(images[i:i + 250])) for i in range(0, len(images), 250)]
print(int((np.concatenate(found).argmax(1) == labels).sum()))
"""


def python_of(root: Path, packages: tuple[str, ...]) -> Path:
    """Return Python of an environment with only these packages. Make it if it is missing."""
    python = root / "-".join(packages) / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", python.parents[1]], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    return python


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for flag in ("--run", "--environments"):
        parser.add_argument(flag, type=Path, required=True)
    parser.add_argument("--dataset")
    parser.add_argument("--only", choices=EXPORTS, nargs="*", default=list(EXPORTS))
    arguments = parser.parse_args()
    moved = Moved(arguments.dataset)
    images = open_images(restore(arguments.run), None, moved, Display())
    labels = np.asarray(images.test_labels)
    expected = round(
        json.loads((arguments.run / "results.json").read_text())["test_accuracy"] * len(labels)
    )
    print(f"the run's own results: {expected:,} of {len(labels):,} test images correct")
    wrong = 0
    for kind in arguments.only:
        packages, reader = READERS[kind]
        with tempfile.TemporaryDirectory() as directory:
            where = Path(directory)
            wanted = Wanted(kind, where / f"network{EXPORTS[kind]}")
            export_run(arguments.run, wanted, moved=moved)
            np.save(where / "images.npy", np.asarray(images.test_images))
            np.save(where / "labels.npy", labels)
            (where / "evaluate.py").write_text(reader + EVALUATE)
            python = python_of(arguments.environments.absolute(), packages)
            command = [python, "-I", "-c", "import sys; sys.path[:0] = ['.']; import evaluate"]
            done = subprocess.run(command, cwd=where, check=True, capture_output=True, text=True)
        correct = int(done.stdout.split()[-1])
        print(f"{kind}, only {', '.join(packages)}: {correct:,} correct")
        wrong += correct != expected
    return wrong


if __name__ == "__main__":
    sys.exit(main())
