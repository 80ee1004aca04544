"""Prediction with the trained members of a run: networks to label maps and uncertainty maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from fastcal.cases.combine import Estimator, References, combine
from fastcal.cases.files import CaseFiles
from fastcal.cases.labels import LabelScheme
from fastcal.cases.loop import ProgressOption, part_of
from fastcal.cases.record import copy_description, settle
from fastcal.cases.region_rules import rules_of_references
from fastcal.cases.summary import PredictionSummary, run_part
from fastcal.core.errors import DataError
from fastcal.core.problem import Activation
from fastcal.data.dataset import Case, image_cases
from fastcal.models.memory import OutOfMemoryError, is_out_of_memory
from fastcal.models.run import DATASET, Run
from fastcal.models.views import InferenceAugmentation
from fastcal.predict.members import Inference, Precision, Resampling, RunMembers
from fastcal.predict.progress import PassProgress


def predict_cases(
    run: str | Path | Run,
    images: str | Path | Sequence[Case],
    out: str | Path,
    *,
    cases: Sequence[str] | Literal["train", "val", "test"] | None = None,
    members: Sequence[int] | None = None,
    mc_dropout: int = 0,
    seed: int = 0,
    augmentation: InferenceAugmentation | None = None,
    maps: Sequence[str] = ("entropy",),
    space: Literal["prob", "logit"] = "prob",
    temperature: float = 1.0,
    resample: Resampling = "probabilities",
    overlap: float = 0.5,
    precision: Precision = "float32",
    labels: str | Path | None = None,
    n_bins: int = 15,
    closed: Literal["right", "left"] = "right",
    fine_bins: int = 0,
    regions: Sequence[str] = (),
    dtype: Literal["float32", "uint8", "uint16"] = "float32",
    save_probabilities: bool = False,
    num_parts: int = 1,
    part_id: int = 0,
    overwrite: bool = False,
    keep_going: bool = False,
    device: torch.device | str | None = None,
    batch_size: int | None = None,
    progress: ProgressOption = False,
) -> PredictionSummary:
    """Predict cases with the members of a run, on the grid of their images.

    RunMembers go one at a time through one `fastcal.EnsembleAccumulator`: memory grows neither with
    their number nor with that of their passes and views, and the weights of one member are loaded
    at a time. Networks trained on patches see overlapping windows, whose logits are blended by a
    Gaussian. They become probabilities, which are resampled to the grid of the image (linearly)
    where images had been resampled. A case that has all its files is skipped: a killed run goes on
    where it was, to the same bits.

    Parameters
    ----------
    run
        Folder that `fastcal.train.train_ensemble` wrote, or the `Run` opened from it.
    images
        Folder of ``CASE_0000.nii.gz`` files, or cases.
    out
        Folder for ``CASE.nii.gz`` (labels) and ``<map>/CASE.nii.gz``, in the image's affine and
        orientation; maps of every class (``mean``) are 4-D, classes last.
    cases
        Names of the cases to do, or the split of the run (``"test"``) that names them; all where
        None.
    members
        Numbers of the members to use (``member_03`` is 3), all finished ones where None.
    mc_dropout, seed
        Monte Carlo dropout: this many stochastic passes a member, all of one weight; 0 is none.
        The masks follow from the seed, the case and the pass.
    augmentation
        Mirrored, turned and noisy views of each image, averaged within a member or counted as
        members; none where None.
    maps
        Any of `fastcal.core.problem.MAPS`.
    space, temperature
        Average probabilities or logits; logits are divided by the temperature first.
    resample
        What is resampled where the images were: ``"probabilities"``, or ``"logits"`` as nnU-Net
        does.
    overlap
        Share of a window that its neighbour covers too, where networks were trained on patches.
    precision
        ``"float32"``, or ``"bf16"`` or ``"fp16"`` by autocast; logits are float32 after it.
    labels
        Folder of reference label maps ``CASE.nii.gz``: calibration statistics are counted in the
        same pass and written to ``calibration.json`` and ``calibration.npz``.
    n_bins, closed
        Bins of the calibration errors.
    fine_bins, regions
        Fine cells and regions of the calibration, see `fastcal.evaluate.evaluate_folder`; regions
        are made from the labels, so that ``prediction`` is none of them.
    dtype
        Of the maps: float32, or uint8 or uint16 with ``scl_slope``.
    save_probabilities
        Write ``CASE.npz`` as nnU-Net does: key ``probabilities``, (C, Z, Y, X).
    num_parts, part_id
        Do every ``num_parts``-th case from the ``part_id``-th on; the statistics of a part are
        added by `merge_statistics`.
    overwrite
        Do finished cases again, also where ``out`` was made with other settings.
    keep_going
        Go on after a case that fails; the summary lists failures.
    device, batch_size
        Where the networks run (a GPU if there is one); slices or windows in a forward pass (None:
        16 slices, 2 windows).
    progress
        True prints a line a case to stderr, and how far a long case is; a function is called with a
        `Progress`.

    Raises
    ------
    DataError
        No run, no member, no image; a file that cannot be read; another number of channels;
        labels missing, on another grid or out of range; other settings in ``out``.
    ValueError
        An option out of range, or ``mc_dropout`` on networks without dropout.
    OSError
        The disk's own error.
    OutOfMemoryError
        A ValueError that says what to lower.

    Examples
    --------
    >>> summary = predict_cases("runs/ce", "imagesTs", "out", labels="labelsTs")  # doctest: +SKIP
    >>> summary.statistics.ece()  # doctest: +SKIP
    0.0123
    """
    opened = run if isinstance(run, Run) else Run.open(run)
    files = CaseFiles(
        Path(out),
        tuple(maps),
        dtype=dtype,
        file_ending=opened.file_ending,
        save_probabilities=save_probabilities,
        statistics=labels is not None,
    )
    scheme = LabelScheme.of_classes(opened.num_classes, ignore_label=opened.ignore_label)
    activation: Activation = "sigmoid" if opened.head == "sigmoid" else "softmax"
    inference = Inference(
        mc_dropout=mc_dropout,
        seed=seed,
        temperature=temperature,
        augmentation=augmentation or InferenceAugmentation(),
        overlap=overlap,
        resample=resample,
        precision=precision,
        batch_size=batch_size,
    )
    inference.check(opened.dims)
    from_logits = inference.gives_logits(opened.preprocessing)
    estimator = Estimator(
        *(files.needed_maps, scheme, from_logits, activation, space),
        *(n_bins, closed, fine_bins, rules_of_references(regions, labels)),
    )
    estimator.accumulator()  # complains about options that do not go together
    empty = None if labels is None else estimator.statistics()
    chosen = _chosen_cases(opened, images, cases)
    part = {case.name: case for case in part_of(chosen, num_parts=num_parts, part_id=part_id)}
    references = None if labels is None else References.find(labels, scheme)
    if references is not None and not keep_going:
        references.require(list(part))

    ensemble = RunMembers(opened, members, inference, device)
    files.folder.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {
        **ensemble.settings,
        "activation": activation,
        "space": space,
        "dtype": dtype,
    }
    if labels is not None:
        settings |= {
            **{"labels": str(labels), "n_bins": n_bins, "closed": closed},
            **({"fine_bins": fine_bins} if fine_bins else {}),
            **({"regions": list(regions)} if regions else {}),
        }
    settle(files.folder, settings, overwrite=overwrite)
    copy_description(opened.path / DATASET, files.folder)

    def work(name: str) -> None:
        on_pass = PassProgress(name) if progress is True else None
        images, like = ensemble.read(part[name])
        try:
            results, _ = combine(
                lambda: ensemble.of(name, images, like, on_pass=on_pass),
                estimator=estimator,
                case=name,
                references=references,
            )
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError(f"{name}: {ensemble.advice}") from error
        files.write(name, results, scheme, like, activation=activation)

    return run_part(
        list(part),
        work,
        files=files,
        empty=empty,
        num_parts=num_parts,
        part_id=part_id,
        overwrite=overwrite,
        keep_going=keep_going,
        progress=progress,
    )


def _chosen_cases(
    run: Run, images: str | Path | Sequence[Case], wanted: Sequence[str] | str | None
) -> list[Case]:
    if isinstance(images, str | Path):
        found = {case.name: case for case in image_cases(images, run.file_ending)}
    else:
        found = {case.name: case for case in images}
        if not found:
            raise ValueError("images: got no cases, expected at least one")
    if wanted is None:
        return list(found.values())
    if isinstance(wanted, str):
        splits = run.split
        if wanted not in splits:
            raise ValueError(f"cases: got {wanted!r}, expected names or one of {sorted(splits)}")
        split, wanted = wanted, splits[wanted]
        if not wanted:
            raise DataError(run.path, f"the split of this run has no {split} cases")
    place = Path(images) if isinstance(images, str | Path) else Path("images")
    for name in wanted:
        if name not in found:
            raise DataError(place, f"no images of case {name}")
    return [found[name] for name in sorted(set(wanted))]
