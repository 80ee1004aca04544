"""The one run over cases: whatever the source of the members, the rest is done here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fastcal.cases.combine import Wanted
from fastcal.cases.descriptions import copy_description, write_description
from fastcal.cases.files import CaseFiles
from fastcal.cases.journal import journal_file
from fastcal.cases.ledger import Ledger
from fastcal.cases.pipeline import run_stages
from fastcal.cases.reference import LabelMaps
from fastcal.cases.segments import write_folder
from fastcal.cases.shards import add_statistics, write_statistics
from fastcal.cases.summary import PredictionSummary
from fastcal.cases.work import CaseWork, DealtWork
from fastcal.core.lock import sole_use
from fastcal.data.listing import check_text

if TYPE_CHECKING:
    from fastcal.cases.loop import CaseRun
    from fastcal.cases.settings import Counted, Part, Written
    from fastcal.cases.source import Source
    from fastcal.cases.workers import Team


def run(
    source: Source,
    counted: Counted,
    written: Written,
    part: Part,
    team: Team | None = None,
) -> PredictionSummary:
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
        team: Workers that do the cases; None for this process. A case that fails then never stops
            the others.

    Raises:
        DataError: A file cannot be read or does not fit, an output would take the place of an
            input, the folder was made from something else, or another command works in it; the
            message names it. With ``keep_going``, the error of a case is in the summary instead.
        ValueError: Settings do not go together, or no worker can do the cases.
        OutOfMemoryError: A ValueError that says what to lower.
        OSError: The error of the disk.
    """
    counted.check_without_prediction()
    source.reading.accumulator(written.computed_maps)  # refuses maps that do not suit the reading
    files = CaseFiles(written, statistics=counted.labels is not None)
    cases = part.of(source.cases)
    files.check_names(cases)
    for case in cases:
        check_text(case, next((Path(one).parent for one in source.inputs(case)), files.folder))
    references = None
    if counted.labels is not None:
        references = LabelMaps.find(counted.labels, source.reading.scheme)
        if not part.keep_going and team is None:
            references.require(cases)
    ledger = Ledger(source, counted, files, references)
    ledger.check_places(cases)
    dealt = team is not None
    # Held before anything is overwritten.
    with sole_use(files.folder, "command", part=part.name, machines=dealt) as heart:
        ledger.open(cases, part)
        if source.dataset_json is not None:
            copy_description(source.dataset_json, files.folder, written.file_ending)
        elif written.save_probabilities and source.reading.scheme.num_classes > 1:
            write_description(source.reading.scheme, files.folder, written.file_ending)

        work = CaseWork(source, Wanted.of(counted, written), files, references, ledger, part.memory)
        journal = None
        if team is None:
            done = run_stages(
                cases,
                work.stages,
                finished=ledger.finished,
                keep_going=part.keep_going,
                progress=part.progress,
            )
        else:
            journal = journal_file(files.folder, part_id=part.part_id, num_parts=part.num_parts)
            done = team.run_cases(
                cases,
                DealtWork(work, team.device),
                journal,
                heart=heart,
                finished=ledger.finished,
                progress=part.progress,
            )
        return replace(_summary(done, source, counted, files, part), journal=journal)


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
