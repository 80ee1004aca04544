"""Peak memory of `fastcal predict` by members and passes, which must not grow with either.

``python -m benchmarks.prediction_memory`` writes an untrained run of 10 members of 12 MB and one
phantom volume to a temporary folder. Each prediction is a process of its own, whose peak resident
size the system reports. Beside it stands what the weights and probabilities of all members would
take if they were held.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

SHAPE = (96, 96, 24)
WIDTHS = (8, 16, 32, 64, 512)
CLASSES = 4
MEMBERS = 10
SWEEP = ((2, 2), (10, 2), (2, 10), (10, 10))
"""Numbers of members and of Monte Carlo passes per member."""


def write(folder: Path) -> int:
    """Write a run and the image of a case, and give the bytes of a member's weights."""
    import numpy as np
    import torch

    from fastcal.data.phantom import write_dataset
    from fastcal.data.preprocess import Preprocessing
    from fastcal.models import build_network, network_spec, save_weights
    from fastcal.models.run import CONFIG, FINISHED, WEIGHTS

    dataset = write_dataset(folder / "data", kind="heart", n_cases=1, shape=SHAPE)
    spec = {"name": "UNet", "widths": WIDTHS, "dropout": 0.5}
    run = folder / "run"
    for number in range(MEMBERS):
        torch.manual_seed(number)
        network = build_network(spec, in_channels=1, num_classes=CLASSES, dims=2)
        member = run / f"member_{number:02d}"
        member.mkdir(parents=True)
        save_weights(member / WEIGHTS, network)
        (member / FINISHED).write_text("{}")
    config = {
        "format": 2,
        "loss": "ce",
        "network": network_spec(network),
        "preprocessing": asdict(Preprocessing()),
        "patch": None,
        "dataset": {
            "labels": dataset.labels,
            "channel_names": dataset.channel_names,
            "ignore_label": None,
            "file_ending": ".nii.gz",
        },
    }
    (run / CONFIG).write_text(json.dumps(config))
    return int(np.sum([tensor.nbytes for tensor in network.state_dict().values()]))


def peak(folder: Path, members: int, passes: int) -> int:
    """Measure the largest resident size of a process that predicts the case, in bytes."""
    command = [sys.executable, "-m", "benchmarks.prediction_memory"]
    command += [str(folder), str(members), str(passes)]
    place = Path(__file__).parents[1]
    run = subprocess.run(command, cwd=place, capture_output=True, text=True, check=True)
    return int(run.stdout)


def _predict(folder: Path, members: int, passes: int) -> None:
    from benchmarks.memory import status_bytes
    from fastcal.predict import predict_cases

    predict_cases(
        folder / "run",
        folder / "data" / "imagesTr",
        folder / f"out-{members}-{passes}",
        members=range(members),
        mc_dropout=passes,
        maps=("entropy", "mutual_information"),
        device="cpu",
    )
    print(status_bytes("VmHWM"))


def main() -> None:
    """Print one line for each prediction of the sweep."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = write(folder)
        voxels = SHAPE[0] * SHAPE[1] * SHAPE[2]
        extents = "x".join(map(str, SHAPE))
        print(f"volume {extents}, {CLASSES} classes, {weights / 1e6:.0f} MB per member")
        for members, passes in SWEEP:
            held = members * weights + members * passes * voxels * CLASSES * 4
            megabytes = peak(folder, members, passes) / 1e6
            print(
                f"M = {members:2}, T = {passes:2}: peak {megabytes:.0f} MB "
                f"(all held: {held / 1e6:.0f} MB beyond the program)",
                flush=True,
            )


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        place, n_members, n_passes = sys.argv[1:]
        _predict(Path(place), int(n_members), int(n_passes))
