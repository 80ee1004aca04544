"""MONAI's inferer with uncertainty: members, passes with dropout, and the evaluator around it."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from torch import Tensor, nn

from fastcal import ensemble_statistics
from fastcal.monai import (
    UncertaintyInferer,
    uncertainty_iteration,
)

CLASSES = 3


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These tensors are too small to share."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


AFFINE = np.diag([0.8, 0.9, 2.5, 1.0]) + np.eye(4, k=3) * 7


class Net(nn.Sequential):
    def __init__(self, seed: int, dropout: float = 0.0) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            layers: list[nn.Module] = [nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6)]
            if dropout:
                layers.append(nn.Dropout2d(dropout))
            super().__init__(*layers, nn.Conv2d(6, CLASSES, 3, padding=1))
        self.eval()


def image() -> Tensor:
    return torch.randn(2, 1, 20, 17, generator=torch.Generator().manual_seed(3))


WINDOWS = SlidingWindowInferer((12, 12), sw_batch_size=3, overlap=0.5, mode="gaussian")


@pytest.mark.parametrize("weights", [None, [1.0, 0.25, 2.0]])
def test_inferer_is_the_ensemble_of_the_stitched_members(weights: list[float] | None) -> None:
    networks = [Net(seed) for seed in range(3)]
    found = UncertaintyInferer(WINDOWS, weights=weights)(image(), networks)
    with torch.no_grad():
        outputs = [WINDOWS(image(), network) for network in networks]
    expected = ensemble_statistics(
        outputs, maps=("mean", "entropy", "mutual_information"), weights=weights
    )
    assert found["pred"].shape == (2, CLASSES, 20, 17)
    assert torch.equal(found["pred"], expected.mean)
    for name in ("entropy", "mutual_information"):
        assert torch.equal(found[f"pred_{name}"], getattr(expected, name)[:, None])
    assert found["pred_mutual_information"].max() > 1e-3


def test_maps_leave_the_reference_of_a_batch() -> None:
    batch = {"image": image(), "label": torch.ones(2, 1, 20, 17)}
    maps = UncertaintyInferer(WINDOWS, maps=("mean", "label"))(batch["image"], Net(0))
    batch.update(maps)
    assert set(batch) == {"image", "label", "pred", "pred_label"}
    assert torch.equal(batch["label"], torch.ones(2, 1, 20, 17))
    assert torch.equal(batch["pred_label"], batch["pred"].argmax(1, keepdim=True))


def test_one_network_lists_modules_and_generators_are_members() -> None:
    networks = [Net(seed) for seed in range(2)]
    inferer = UncertaintyInferer(WINDOWS)
    expected = inferer(image(), networks)["pred"]
    assert torch.equal(inferer(image(), nn.ModuleList(networks))["pred"], expected)
    assert torch.equal(inferer(image(), (Net(seed) for seed in range(2)))["pred"], expected)
    one = inferer(image(), networks[0])
    assert torch.equal(one["pred"], inferer(image(), [networks[0]])["pred"])
    assert one["pred_mutual_information"].max() <= 1e-6
    whole = UncertaintyInferer()(image(), lambda x, scale: networks[0](x) * scale, 1.0)
    assert whole["pred_entropy"].shape == (2, 1, 20, 17)


def test_outputs_of_earlier_members_are_not_kept() -> None:
    alive: list[int] = []
    made: list[weakref.ref[Tensor]] = []

    class Watching(SlidingWindowInferer):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            alive.append(sum(ref() is not None for ref in made))
            output = super().__call__(*args, **kwargs)
            made.append(weakref.ref(output))
            return output

    networks = [Net(seed, dropout=0.5) for seed in range(3)]
    UncertaintyInferer(Watching((12, 12)), mc_dropout=2)(image(), networks)
    assert alive == [0] * 6


def test_networks_of_a_generator_are_not_kept() -> None:
    made: list[weakref.ref[nn.Module]] = []
    alive: list[int] = []

    def load() -> Iterator[nn.Module]:
        for seed in range(3):
            alive.append(sum(ref() is not None for ref in made))
            network = Net(seed)
            made.append(weakref.ref(network))
            yield network
            del network

    UncertaintyInferer(WINDOWS)(image(), load())
    assert alive == [0, 0, 0]


def test_dropout_is_on_for_the_passes_and_off_again_afterwards() -> None:
    network = Net(0, dropout=0.5)
    running = network[1].running_mean.clone()
    found = UncertaintyInferer(WINDOWS, mc_dropout=4, seed=11)(image(), network)
    assert found["pred_mutual_information"].mean() > 1e-3
    assert not any(module.training for module in network.modules())
    assert torch.equal(network[1].running_mean, running)
    plain = UncertaintyInferer(WINDOWS)(image(), network)
    assert plain["pred_mutual_information"].max() <= 1e-6


def test_seeds_make_passes_with_dropout_repeatable() -> None:
    network = Net(0, dropout=0.5)
    before = torch.random.get_rng_state()
    first, second, other = (
        UncertaintyInferer(WINDOWS, mc_dropout=3, seed=seed)(image(), network)["pred"]
        for seed in (11, 11, 12)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_inferer_keeps_the_metadata_of_its_input() -> None:
    inputs = MetaTensor(image()[..., None].expand(-1, -1, -1, -1, 4), affine=AFFINE)
    network = nn.Conv3d(1, CLASSES, 3, padding=1)
    inferer = UncertaintyInferer(SlidingWindowInferer((12, 12, 4)), maps=("mean", "label"))
    for array in inferer(inputs, [network, network]).values():
        assert isinstance(array, MetaTensor)
        np.testing.assert_array_equal(array.affine, AFFINE)
        assert not array.requires_grad


def test_the_evaluator_gives_every_map_to_transforms_and_metrics() -> None:
    from monai.engines.evaluator import SupervisedEvaluator
    from monai.handlers.mean_dice import MeanDice
    from monai.handlers.utils import from_engine
    from monai.transforms import AsDiscreted

    torch.manual_seed(3)
    networks = nn.ModuleList([nn.Conv2d(1, CLASSES, 3, padding=1) for _ in range(3)])
    images = torch.rand(2, 1, 1, 8, 9)
    labels = torch.randint(0, CLASSES, (2, 1, 1, 8, 9))
    one_hot = AsDiscreted(keys=["pred", "label"], argmax=[True, False], to_onehot=CLASSES)
    dice = MeanDice(output_transform=from_engine(["pred", "label"]))
    evaluator = SupervisedEvaluator(
        device="cpu",
        val_data_loader=[{"image": x, "label": y} for x, y in zip(images, labels, strict=True)],
        network=networks,
        inferer=UncertaintyInferer(),
        iteration_update=uncertainty_iteration,
        postprocessing=one_hot,
        key_val_metric={"dice": dice},
    )
    evaluator.run()
    expected = UncertaintyInferer()(images[1], networks)
    (last,) = evaluator.state.output
    assert torch.equal(last["pred_entropy"], expected["pred_entropy"][0])
    found = torch.stack([UncertaintyInferer()(x, networks)["pred"].argmax(1) for x in images])
    hits = [[((found[i] == k) & (labels[i, :, 0] == k)).sum() for k in (0, 1, 2)] for i in (0, 1)]
    sizes = [[(found[i] == k).sum() + (labels[i] == k).sum() for k in (0, 1, 2)] for i in (0, 1)]
    score = (2 * torch.tensor(hits) / torch.tensor(sizes)).mean()
    assert evaluator.state.metrics["dice"] == pytest.approx(float(score), abs=1e-6)


def test_an_iteration_with_another_inferer_says_which_is_meant() -> None:
    from monai.engines.evaluator import SupervisedEvaluator

    evaluator = SupervisedEvaluator(
        device="cpu",
        val_data_loader=[{"image": torch.zeros(1, 1, 4, 4), "label": torch.zeros(1, 1, 4, 4)}],
        network=nn.Conv2d(1, CLASSES, 1),
        iteration_update=uncertainty_iteration,
    )
    with pytest.raises(TypeError, match=r"inferer must be an UncertaintyInferer.*SimpleInferer"):
        evaluator.run()


def test_bad_networks_and_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"network must have dropout layers .*got Net"):
        UncertaintyInferer(WINDOWS, mc_dropout=2)(image(), Net(0))
    with pytest.raises(TypeError, match=r"network must be a torch\.nn\.Module"):
        UncertaintyInferer(mc_dropout=2)(image(), lambda x: x)
    with pytest.raises(TypeError, match="network must give a tensor, got tuple"):
        UncertaintyInferer()(image(), lambda x: (x, x))
    with pytest.raises(ValueError, match="got none"):
        UncertaintyInferer()(image(), [])
    for number in (1, 3):
        with pytest.raises(ValueError, match="weights must hold one number per member"):
            UncertaintyInferer(weights=[1.0] * number)(image(), [Net(0), Net(1)])
    with pytest.raises(ValueError, match="mc_dropout must be at least 0"):
        UncertaintyInferer(mc_dropout=-1)
    with pytest.raises(
        ValueError, match="space must be 'prob' for the map 'mutual_information', got 'logit'"
    ):
        UncertaintyInferer(space="logit")
