"""The one run over cases: whatever the source of the members, the rest is done here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fastcal.cases.combine import Wanted, combine
from fastcal.cases.descriptions import copy_description, write_description
from fastcal.cases.files import CaseContent, CaseFiles
from fastcal.cases.ledger import Ledger
from fastcal.cases.pipeline import Stages, run_stages
from fastcal.cases.reference import LabelMap, LabelMaps, check_extents
from fastcal.cases.segments import write_folder
from fastcal.cases.shards import add_statistics, write_statistics
from fastcal.cases.slabs import Slabs
from fastcal.cases.summary import PredictionSummary
from fastcal.core.lock import sole_use
from fastcal.data import images
from fastcal.models.memory import OutOfMemoryError, is_out_of_memory

if TYPE_CHECKING:
    from fastcal.cases.loop import CaseRun
    from fastcal.cases.settings import Counted, Part, Written
    from fastcal.cases.source import Source


def run(source: Source, counted: Counted, written: Written, part: Part) -> PredictionSummary:
    """Combine the members of each case, count it, and write its files.

    While a case is computed, one thread reads ahead what comes next, and another writes the case
    before; see `fastcal.cases.pipeline`.

    A case that has all its files, as they were written and from the inputs that are there now, is
    skipped, so that a killed run resumes where it was and its files are bit-identical to those of
    a run that was not killed. Everything that can be checked is checked before the first file is
    written.

    Args:
        source: Gives the cases and their members.
        counted: What is counted against which labels.
        written: Which files are written, and where.
        part: Which share of the cases is done.

    Raises:
        DataError: A file cannot be read or does not fit, an output would take the place of an
            input, the folder was made from something else, or another command works in it; the
            message names it. With ``keep_going``, the error of a case is in the summary instead.
        ValueError: Settings do not go together.
        OutOfMemoryError: A ValueError that says what to lower.
        OSError: The error of the disk.
    """
    counted.check_without_prediction()
    source.reading.accumulator(written.computed_maps)  # refuses maps that do not suit the reading
    files = CaseFiles(written, statistics=counted.labels is not None)
    cases = part.of(source.cases)
    files.check_names(cases)
    references = None
    if counted.labels is not None:
        references = LabelMaps.find(counted.labels, source.reading.scheme)
        if not part.keep_going:
            references.require(cases)
    ledger = Ledger(source, counted, files, references)
    ledger.check_places(cases)
    with sole_use(files.folder, "command", part=part.name):
        ledger.open(cases, part)
        if source.dataset_json is not None:
            copy_description(source.dataset_json, files.folder, written.file_ending)
        elif written.save_probabilities and source.reading.scheme.num_classes > 1:
            write_description(source.reading.scheme, files.folder, written.file_ending)

        wanted = Wanted.of(counted, written)
        slabs = None if part.memory is None else Slabs(source, wanted, files, part.memory)

        def read(case: str) -> Iterator[Any]:
            ledger.begin(case)
            if slabs is None:
                yield None if references is None else _labels(source, references, case)
                yield from source.read(case)

        def compute(case: str, pieces: Iterator[Any]) -> CaseContent:
            try:
                if slabs is not None:
                    return slabs.combine(case, references)
                reference: LabelMap | None = next(pieces)
                members = source.members(case, pieces)
                combined = combine(
                    case,
                    members,
                    source.reading,
                    wanted,
                    reference=reference,
                    again=lambda: source.members(case, source.read(case)),
                )
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                raise OutOfMemoryError(f"{case}: {source.advice}") from error
            return CaseContent.of(combined.statistics, source.reading, combined.like)

        def write(case: str, content: CaseContent) -> None:
            files.write(case, content)
            ledger.end(case)

        done = run_stages(
            cases,
            Stages(read, compute, write),
            finished=ledger.finished,
            keep_going=part.keep_going,
            progress=part.progress,
        )
        return _summary(done, source, counted, files, part)


def _labels(source: Source, references: LabelMaps, case: str) -> LabelMap:
    """Read the labels of a case, once their extents are those of an image that is read too."""
    places = (path for path in source.inputs(case) if images.ending_of(path.name) is not None)
    image = next((path for path in places if path.is_file()), None)
    if image is not None:
        references.require([case])
        check_extents(references.paths[case], image)
    return references.read(case)


def _summary(
    done: CaseRun, source: Source, counted: Counted, files: CaseFiles, part: Part
) -> PredictionSummary:
    """Add the statistics of all finished cases of a part.

    They are read from the file of each case, in the order of the names, whether a case was done
    now or before a kill: the state is bit-identical either way.
    """
    statistics = state_file = None
    finished = sorted((*done.done, *done.skipped))
    if files.written.segments:
        scores = [files.segments_of(case) for case in finished]
        write_folder(
            scores,
            files.folder,
            source.reading.scheme,
            part_id=part.part_id,
            num_parts=part.num_parts,
        )
    if counted.labels is not None:
        statistics = add_statistics(
            map(files.statistics_of, finished), start=counted.statistics(source.reading.scheme)
        )
        state_file, _ = write_statistics(
            statistics, files.folder, part_id=part.part_id, num_parts=part.num_parts
        )
    return PredictionSummary(
        files.folder, done.done, done.skipped, done.failed, statistics, state_file
    )
