"""Post-processing transforms that take the members of an ensemble."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from monai.config.type_definitions import KeysCollection
from monai.transforms.transform import MapTransform, Transform
from monai.utils.enums import TransformBackends

from fastcal.accumulator import EnsembleAccumulator
from fastcal.core.arrays import Array
from fastcal.core.problem import Activation, Space
from fastcal.ensemble import ensemble_statistics
from fastcal.monai.maps import channel_first, check_maps, check_weights

_MAPS = ("mean", "entropy", "mutual_information")


class EnsembleUncertainty(Transform):
    """The mean of an ensemble and the disagreement of its members, from one pass over them.

    It takes what `monai.transforms.MeanEnsemble` takes: a list or tuple of members ``[C, *S]``, or
    one array ``[E, C, *S]``; tensors, `MetaTensor` or NumPy arrays. Members are not stacked.

    Args:
        weights: One per member, normalised to sum 1; equal by default.
        maps: Any of ``mean, label, confidence, entropy, expected_entropy, mutual_information,
            variance, disagreement``; see `fastcal.ensemble_statistics`.
        from_logits: Members are logits; False: probabilities. Never guessed.
        activation: ``"softmax"``, or ``"sigmoid"`` for exclusive classes that need not sum to 1.
        multilabel: Every class is a Bernoulli of its own.
        space: ``"prob"`` averages probabilities, ``"logit"`` averages logits and activates then.

    ``transform(members)`` gives the maps by name, channel first (``[1, *S]``; ``[C, *S]`` for the
    mean), with the metadata of the first member; or the map itself where ``maps`` is a string.

    Raises:
        TypeError, ValueError: An argument is not one of these, or the members do not fit together.

    Example:
        >>> import torch
        >>> members = [torch.tensor([[9.0], [-9.0]]), torch.tensor([[-9.0], [9.0]])]
        >>> EnsembleUncertainty(maps="entropy")(members)
        tensor([[0.6931]])
    """

    backend = [TransformBackends.TORCH, TransformBackends.NUMPY]  # noqa: RUF012  # MONAI's type

    def __init__(
        self,
        weights: Sequence[float] | Array | None = None,
        *,
        maps: str | Sequence[str] = _MAPS,
        from_logits: bool = True,
        activation: Activation = "softmax",
        multilabel: bool = False,
        space: Space = "prob",
    ) -> None:
        self.single = isinstance(maps, str)
        self.maps = check_maps(maps)
        self.weights = check_weights(weights)
        self.from_logits = from_logits
        self.activation: Activation = activation
        self.multilabel = multilabel
        self.space: Space = space
        EnsembleAccumulator(  # raises for bad arguments
            self.maps,
            from_logits=from_logits,
            activation=activation,
            multilabel=multilabel,
            space=space,
        )

    def __call__(self, img: Sequence[Array] | Array) -> dict[str, Array] | Array:
        """Return the maps of the members ``img``, or the map if only one name was asked for."""
        first: Array = img[0] if isinstance(img, list | tuple) else img
        dims = first.ndim - (first is img)  # axes of a member
        result = ensemble_statistics(
            img,
            maps=self.maps,
            class_dim=0,
            from_logits=self.from_logits,
            activation=self.activation,
            multilabel=self.multilabel,
            space=self.space,
            weights=self.weights,
        )
        found = channel_first(result, self.maps, first, 0, dims)
        return found[self.maps[0]] if self.single else found


class EnsembleUncertaintyd(MapTransform):
    """`EnsembleUncertainty` of the items of a dictionary: `MeanEnsembled` with uncertainty.

    Args:
        keys: Keys of the members; or one key, of a list of members or of an array ``[E, C, *S]``.
        output_key: Where the mean goes; every other map goes to ``f"{output_key}_{map}"``. By
            default it is the key itself, if there is only one.
        weights: See `EnsembleUncertainty`, also for the arguments not listed here.
        allow_missing_keys: Use the members that are there.

    Raises:
        ValueError: There are several keys and no ``output_key``; see also `EnsembleUncertainty`.
        KeyError: A member is missing.

    Example:
        >>> import torch
        >>> data = {"a": torch.tensor([[9.0], [-9.0]]), "b": torch.tensor([[-9.0], [9.0]])}
        >>> found = EnsembleUncertaintyd(["a", "b"], "pred", maps=("mean", "entropy"))(data)
        >>> found["pred"], found["pred_entropy"]
        (tensor([[0.5000],
                [0.5000]]), tensor([[0.6931]]))
    """

    backend = EnsembleUncertainty.backend

    def __init__(
        self,
        keys: KeysCollection,
        output_key: Hashable | None = None,
        weights: Sequence[float] | Array | None = None,
        *,
        maps: str | Sequence[str] = _MAPS,
        from_logits: bool = True,
        activation: Activation = "softmax",
        multilabel: bool = False,
        space: Space = "prob",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if len(self.keys) > 1 and output_key is None:
            raise ValueError(f"output_key must be given with {len(self.keys)} keys, got None")
        self.output_key = self.keys[0] if output_key is None else output_key
        self.ensemble = EnsembleUncertainty(
            weights,
            maps=check_maps(maps),
            from_logits=from_logits,
            activation=activation,
            multilabel=multilabel,
            space=space,
        )

    def __call__(self, data: Mapping[Hashable, Array]) -> dict[Hashable, Array]:
        """Return a copy of ``data`` with the maps added."""
        results = dict(data)
        members = [data[key] for key in self.key_iterator(results)]
        if not members:
            return results
        found = self.ensemble(members[0] if len(self.keys) == 1 else members)
        for name, array in found.items():
            results[self.output_key if name == "mean" else f"{self.output_key}_{name}"] = array
        return results
