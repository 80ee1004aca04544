"""Draw docs/images/*.png, one picture of each plot, from synthetic cases.

    .venv/bin/python docs/draw_images.py

The plots show forty cases of three classes, whose predictions are overconfident by different
amounts. Another picture shows a phantom under every augmentation.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from fastcal import CalibrationStatistics
from fastcal.data.phantom import make_case
from fastcal.data.preprocess import Preprocessing
from fastcal.report import plots, style
from fastcal.train.augment import augment
from fastcal.train.augmentation import AugmentationConfig

IMAGES = Path(__file__).parent / "images"
CLASSES = ("background", "ventricle", "wall")

# Each transform alone, about as strong as its range allows.
TRANSFORMS = {
    "as it is": {},
    "rotation, 30°": {"rotation": 1, "rotation_degrees": 30},
    "scaling": {"scaling": 1},
    "elastic": {"elastic": 1, "elastic_deformation": (0.25, 0.25)},
    "mirrored": {"mirror": 1, "mirror_axes": (0,)},
    "noise": {"noise": 1, "noise_sigma": (0.1, 0.1)},
    "blur": {"blur": 1, "blur_sigma": (1.2, 1.2)},
    "contrast": {"contrast": 1, "contrast_range": (0.4, 0.5)},
    "low resolution": {"low_resolution": 1, "low_resolution_range": (0.25, 0.3)},
    "gamma": {"gamma": 1, "gamma_range": (1.5, 2.0)},
}


def cohort(seed: int = 4, n_cases: int = 40, n_voxels: int = 8_000) -> CalibrationStatistics:
    """Count targets drawn from known probabilities, against predictions that are sharper."""
    generator = torch.Generator().manual_seed(seed)
    offset = torch.tensor([2.0, 0.0, 0.0])[:, None]
    stats = CalibrationStatistics(len(CLASSES), n_bins=10)
    for case in range(n_cases):
        logits = offset + 1.6 * torch.randn(len(CLASSES), n_voxels, generator=generator)
        target = torch.multinomial(logits.softmax(0).T, 1, generator=generator).T
        sharpness = 0.8 + 1.8 * torch.rand((), generator=generator)
        shift = 0.8 * torch.randn(len(CLASSES), 1, generator=generator)
        probs = (sharpness * logits + shift).softmax(0)
        stats.update(probs[None], target, case_id=[f"case {case:02d}"])
    return stats


def augmentation() -> Figure:
    """Draw a slice of the brain phantom under every transform, with the outlines of its labels."""
    case = make_case(kind="brain", index=1, shape=(96, 96, 16))
    like = case.geometry
    prepared = Preprocessing(percentiles=(0.5, 99.5))
    image = prepared.apply(case.image[:1], like)[8:9].mT.flip(2)
    label = prepared.apply_label(case.label, like)[8:9].mT.flip(1)
    # Seeds whose draws are easy to see.
    seeds = (0, 4, 2, 26, 0, 0, 1, 0, 31, 0, 8, 12)
    settings = [*TRANSFORMS.items(), *[("nnU-Net's preset", {"preset": "nnunet"})] * 2]
    figure = style.new_figure(10.2, 8.0)
    for number, ((name, chosen), seed) in enumerate(zip(settings, seeds, strict=True)):
        config = AugmentationConfig.model_validate(chosen)
        images, labels = augment(image, label, config, seed=seed)
        panel = figure.add_subplot(3, 4, number + 1)
        panel.imshow(images[0, 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        for value in np.unique(labels)[1:].tolist():
            mask = (labels[0] == value).numpy()
            panel.contour(mask, [0.5], colors=style.segment_colour(value), linewidths=1.2)
        panel.set_title(name)
        panel.set_axis_off()
    return figure


def save(figure: Figure, name: str) -> None:
    """Write the figure as a PNG."""
    (IMAGES / name).write_bytes(style.png_bytes(figure, dpi=110))


def main() -> None:
    """Draw every picture."""
    stats = cohort()
    with style.house_style():
        figure = style.new_figure(4.6, 5.6)
        plots.reliability_diagram(
            stats, ax=figure.add_subplot(), min_count=100, interval=0.95, title="Top label"
        )
        save(figure, "reliability_diagram.png")
        figure = style.new_figure(10.2, 4.4)
        plots.classwise_grid(stats, class_names=CLASSES, min_count=100, figure=figure)
        save(figure, "classwise_grid.png")
        figure = style.new_figure(5.6, 4.6)
        plots.dataset_reliability(
            stats, ax=figure.add_subplot(), min_count=20, class_index=1, title="Ventricle"
        )
        save(figure, "dataset_reliability.png")
        save(augmentation(), "augmentation.png")


if __name__ == "__main__":
    main()
