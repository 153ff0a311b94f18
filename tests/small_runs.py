"""Small runs of train_net.py in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
TRAIN_NET = REPOSITORY / "train_net.py"

DEMO = REPOSITORY / "configs/demo/aiparsing_tiny_FPN_drawn_cihp.py"
# Of that config: a model and images that a CPU trains on in seconds.
SMALL_OVERRIDES = [
    "dataloader.train.num_workers=0",
    "dataloader.test.num_workers=0",
    "dataloader.train.total_batch_size=2",
    "dataloader.train.mapper.augmentations.0.short_edge_length=[64,64]",
    "dataloader.test.mapper.augmentations.0.short_edge_length=64",
    "model.proposal_generator.head.num_convs=1",
    "model.roi_heads.parsing_pooler.output_size=8",
    "train.log_period=1",
    "train.device=cpu",
]
SMALL = ["--config-file", str(DEMO), *SMALL_OVERRIDES, "train.eval_period=0", "train.seed=1"]


def draw_data_set(root: Path) -> None:
    """Draw the data set that the demo's config reads: 4 + 3 small scenes."""
    command = [sys.executable, "-m", "aiparsing_d2.drawn_scenes", "--output", root / "drawn_cihp"]
    sizes = ["--train", "4", "--val", "3", "--size", "96", "80"]
    subprocess.run([*command, *sizes], check=True, capture_output=True, env=environment(root))


def environment(datasets: Path) -> dict[str, str]:
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    return {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "",
        "DETECTRON2_DATASETS": str(datasets),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": path,
    }


def run(
    datasets: Path, *command: object, timeout: float = 300, **more_environment: str
) -> subprocess.CompletedProcess:
    """Run Python with these arguments."""
    return subprocess.run(
        [sys.executable, *map(str, command)],
        env={**environment(datasets), **more_environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def train_net(datasets: Path, output_dir: Path, *arguments: str) -> subprocess.CompletedProcess:
    return run(datasets, TRAIN_NET, *SMALL, f"train.output_dir={output_dir}", *arguments)


def iterations(output_dir: Path) -> list[int]:
    """Return the iterations of the lines with losses in metrics.json."""
    lines = (output_dir / "metrics.json").read_text().splitlines()
    return [line["iteration"] for line in map(json.loads, lines) if "total_loss" in line]
