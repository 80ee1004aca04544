"""Members trained alone, together and in processes, which must be the same members."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from blobs import TINY, train, write_blobs
from torch import Tensor

from fastcal.models import build_network, load_member
from fastcal.train import train_ensemble
from fastcal.train.batches import Batch
from fastcal.train.config import OptimiserConfig, TrainConfig
from fastcal.train.engines import Alone, Engine, Together
from fastcal.train.learner import Learner
from fastcal.train.optimiser import MovingAverage, build_optimiser
from fastcal.train.recipe import Recipe
from fastcal.train.strategy import Execution
from fastcal.train.validation import Validation


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_blobs(tmp_path_factory.mktemp("data") / "blobs")


def recipe(**changes: Any) -> Recipe:
    return Recipe(
        folder=Path("nowhere"),
        config=TINY.with_values(changes),
        seed=0,
        in_channels=1,
        num_classes=3,
        ignore_label=None,
        patch=None,
        iterations=4,
        class_counts=(90, 6, 4),
        device=torch.device("cpu"),
    )


def batches(dims: int, members: int, step: int) -> list[Batch]:
    random = torch.Generator().manual_seed(step)
    size = (16,) * dims
    return [
        Batch(
            torch.randn(4, 1, *size, generator=random),
            torch.randint(3, (4, *size), generator=random),
            ["a", "b", "c", "d"],
        )
        for _ in range(members)
    ]


def learned(
    engine: Engine, learners: Sequence[Learner], dims: int, members: Sequence[int], steps: int = 3
) -> Tensor:
    """Take a few steps, and return their losses ``[steps, M]``."""
    losses = []
    for step in range(steps):
        given = batches(dims, 3, step)
        losses.append(engine.losses([given[member] for member in members]))
        for learner in learners:
            learner.update()
    return torch.stack(losses)


@pytest.mark.parametrize(
    ("dims", "changes"),
    [
        (2, {"network.norm": "batch"}),
        (2, {"loss.name": "dice", "optimiser.clip_norm": 0.1, "loop.ema": 0.9}),
        (2, {"optimiser.name": "sgd", "loop.precision": "bf16"}),
        (
            3,
            {
                "network": {"norm": "instance", "deep_supervision": True, "widths": [4, 4, 8]},
                "loss.name": "dice-ce",
                "optimiser.name": "adamw",
            },
        ),
    ],
)
def test_members_trained_together_are_those_trained_alone(
    dims: int, changes: dict[str, Any]
) -> None:
    plan = recipe(**changes, **{"preprocessing.dims": dims})
    together = [Learner(plan, number, saved=False) for number in range(3)]
    losses = learned(Together(together), together, dims, range(3))
    tolerance = 2e-2 if plan.bf16 else 2e-4
    for number in range(3):
        alone = Learner(plan, number, saved=False)
        expected = learned(Alone([alone]), [alone], dims, [number])
        torch.testing.assert_close(losses[:, number], expected[:, 0], rtol=tolerance, atol=1e-5)
        state, wanted = together[number].kept.state_dict(), alone.kept.state_dict()
        assert state.keys() == wanted.keys()
        for name, value in state.items():
            torch.testing.assert_close(value, wanted[name], rtol=tolerance, atol=tolerance)
        moments = together[number].optimiser.state_dict()["state"]
        assert moments.keys() == alone.optimiser.state_dict()["state"].keys()


def test_members_together_drop_different_features_and_batches_count_once() -> None:
    plan = recipe(**{"network.dropout": 0.5})
    twins = [Learner(plan, 0, saved=False) for _ in range(2)]
    engine = Together(twins)
    (batch,) = batches(2, 1, 0)
    losses = engine.losses([batch, batch])
    assert losses[0] != losses[1]
    counted = [
        value
        for name, value in twins[1].network.state_dict().items()
        if name.endswith("num_batches_tracked")
    ]
    assert counted
    assert all(value == 1 for value in counted)


def test_a_member_that_stops_early_leaves_the_others_to_go_on(
    blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scores(learner: Learner, _: object) -> Validation:
        # Member 1 is at its best after the first epoch, member 0 always gets better.
        epoch = learner.course.epoch
        dice = (-epoch if learner.number else epoch) / 10
        return Validation(dice, [dice] * 3, 0.0, 0.0)

    monkeypatch.setattr("fastcal.train.loop._scores", scores)
    config = TINY.with_values({"loop.early_stopping": 1})
    runs = [
        train(blobs, tmp_path / strategy, config, members=2, strategy=strategy)
        for strategy in ("sequential", "vectorised")
    ]
    for number, epochs in enumerate((3, 2)):
        alone, together = (run.members[number] for run in runs)
        for member in (alone, together):
            assert json.loads((member / "member.json").read_text())["epochs"] == epochs
        expected = load_member(alone).state_dict()
        for name, value in load_member(together).state_dict().items():
            torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-4)


def test_bf16_keeps_weights_statistics_and_losses_in_float32() -> None:
    losses = {}
    for precision in ("float32", "bf16"):
        learner = Learner(recipe(**{"loop.precision": precision}), 0, saved=False)
        losses[precision] = learned(Alone([learner]), [learner], 2, [0])
        kept = [*learner.network.parameters(), *learner.network.buffers()]
        assert {tensor.dtype for tensor in kept} == {torch.float32, torch.int64}
        assert {p.grad.dtype for p in learner.network.parameters() if p.grad is not None} == {
            torch.float32
        }
    assert losses["bf16"].dtype == torch.float32
    assert not torch.equal(losses["bf16"], losses["float32"])
    torch.testing.assert_close(losses["bf16"], losses["float32"], rtol=2e-2, atol=1e-3)


def test_activations_computed_again_change_nothing() -> None:
    states = []
    for again in (False, True):
        learner = Learner(recipe(**{"loop.checkpointing": again}), 0, saved=False)
        learned(Alone([learner]), [learner], 2, [0], steps=2)
        states.append(learner.network.state_dict())
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-6, atol=1e-7)


def test_moving_average_follows_its_formula() -> None:
    network = build_network({"widths": (2, 2)}, in_channels=1, num_classes=2, dims=2)
    average = MovingAverage(network, 0.5)
    expected = [p.detach().double() for p in network.parameters()]
    for step in range(1, 21):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter))
        average.update(network, step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = [
            decay * old + (1 - decay) * new.detach().double()
            for old, new in zip(expected, network.parameters(), strict=True)
        ]
    for found, wanted in zip(average.network.parameters(), expected, strict=True):
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)


def test_a_step_of_nesterov_is_that_of_its_formula() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    config = OptimiserConfig(name="sgd", learning_rate=0.1, momentum=0.9, weight_decay=0.5)
    optimiser = build_optimiser(config, [weight])
    value, velocity = 1.0, 0.0
    for gradient in (2.0, -1.0):
        weight.grad = torch.tensor([gradient])
        optimiser.step()
        total = gradient + 0.5 * value
        velocity = 0.9 * velocity + total
        value -= 0.1 * (total + 0.9 * velocity)
        assert weight.item() == pytest.approx(value, rel=1e-6)


def test_auto_times_strategies_says_why_and_goes_on_as_before(
    blobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    config = TINY.with_values({"loop": {"channels_last": "auto", "max_epochs": 1}})
    train(blobs, folder, config, members=1, strategy="auto")
    alone = Execution.read(folder)
    assert alone is not None
    assert (alone.strategy, alone.reason) == ("sequential", "one member to train")
    train(blobs, folder, config, members=3, strategy="auto", progress=True)
    said = capsys.readouterr().err
    chosen = Execution.read(folder)
    assert chosen is not None
    assert chosen.channels_last == alone.channels_last
    assert chosen.seconds.keys() == {"sequential", "vectorised"}
    assert chosen.strategy == min(chosen.seconds, key=lambda name: chosen.seconds[name] or 0.0)
    assert f"{chosen.strategy}; seconds per step and member: sequential" in said
    other = "vectorised" if chosen.strategy == "sequential" else "sequential"
    replace(chosen, strategy=other).write(folder)
    train(blobs, folder, config, members=4, strategy="auto", progress=True)
    assert f"{other}; as before" in capsys.readouterr().err


LAUNCHED = """
import sys, torch
from pathlib import Path
from fastcal.train import TrainConfig, train_ensemble

torch.set_num_threads(1)
blobs, out, config, instance = sys.argv[1:]
import json
options = dict(device="cpu", progress=False)
train_ensemble(blobs, Path(out) / "shared", members=2, strategy="sequential",
               config=TrainConfig.from_json(json.loads(config)), **options)
train_ensemble(blobs, Path(out) / "ddp", members=1, ddp=True,
               config=TrainConfig.from_json(json.loads(instance)), **options)
"""


@pytest.mark.slow
def test_processes_of_a_launch_share_members_or_train_each_together(
    blobs: Path, tmp_path: Path
) -> None:
    short = TINY.with_values({"loop.max_epochs": 2})
    # Batch normalisation would see half of the batch.
    instance = short.with_values({"network.norm": "instance", "optimiser.name": "sgd"})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    arguments = [
        str(blobs),
        str(tmp_path),
        json.dumps(short.to_json()),
        json.dumps(instance.to_json()),
    ]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", LAUNCHED, *arguments],
            env={**os.environ, **launch, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        _, error = process.communicate(timeout=300)
        assert process.returncode == 0, error
    shared = train(blobs, tmp_path / "shared", short, members=2)
    expected = train(blobs, tmp_path / "alone", short, members=2)
    for member, wanted in zip(shared.members, expected.members, strict=True):
        found, there = load_member(member).state_dict(), load_member(wanted).state_dict()
        assert all(torch.equal(found[name], there[name]) for name in there)
    alone = train(blobs, tmp_path / "instance", instance, members=1)
    found = load_member(tmp_path / "ddp/member_00").state_dict()
    for name, value in load_member(alone.members[0]).state_dict().items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)
    log = (tmp_path / "ddp/member_00/log.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in log] == [1, 2]


def test_a_launch_that_makes_no_sense_is_refused(
    blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "two")
    with pytest.raises(ValueError, match=r"RANK must be a number, .*, got 'two'"):
        train_ensemble(blobs, tmp_path / "run", config=TrainConfig())
    monkeypatch.setenv("RANK", "0")
    config = TINY.with_values({"sampling.batch_size": 3})
    with pytest.raises(ValueError, match=r"sampling\.batch_size must be a multiple of .*, got 3"):
        train_ensemble(blobs, tmp_path / "run", config=config, ddp=True)
