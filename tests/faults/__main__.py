"""``python -m tests.faults``: do every kind, print the table and the counts.

``--only TEXT`` takes the kinds whose names hold it, ``--jobs N`` shares them among N processes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from queue import Empty, SimpleQueue

from .kinds import Result, Verdict
from .registry import all_kinds
from .session import Session, known_failures, write_known


def main() -> int:
    """Run from the command line; the exit code is 1 where failures differ from the known ones."""
    asked = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    asked.add_argument("--only", default="", help="kinds whose names hold this text")
    asked.add_argument("--jobs", type=int, default=1, help="processes that share the kinds")
    asked.add_argument("--failures", action="store_true", help="print only what fails")
    asked.add_argument("--write-known", action="store_true", help="write known.txt anew")
    options = asked.parse_args()
    names = [name for name in all_kinds() if options.only in name]
    with tempfile.TemporaryDirectory(prefix="fastcal-faults-") as folder:
        results = run(names, Path(folder), options.jobs, only_failures=options.failures)
    results.sort(key=lambda one: names.index(one.kind))
    counts = Counter(one.verdict for one in results)
    print(f"\n{len(results)} kinds, {sum(one.seconds for one in results):.0f} s")
    for verdict in Verdict:
        if counts[verdict]:
            print(f"{counts[verdict]:6d}  {verdict}")
    if options.write_known:
        write_known(results)
        return 0
    known = known_failures()
    found = {one.kind: one.verdict for one in results if one.verdict is not Verdict.PASS}
    expected = {name: known[name] for name in names if name in known}
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            print(f"{expected.get(name, 'PASS')} in known.txt, {found.get(name, 'PASS')}: {name}")
    return int(found != expected)


def run(names: list[str], folder: Path, jobs: int, *, only_failures: bool) -> list[Result]:
    """Do kinds in several warm processes; each line is printed as it comes."""
    waiting: SimpleQueue[str] = SimpleQueue()
    for name in names:
        waiting.put(name)
    results: list[Result] = []
    failed: list[BaseException] = []
    lock = threading.Lock()

    def work(number: int) -> None:
        try:
            with Session(folder / str(number)) as session:
                while True:
                    try:
                        name = waiting.get_nowait()
                    except Empty:
                        return
                    result = session.judge(name)
                    with lock:
                        results.append(result)
                        if not only_failures or result.verdict is not Verdict.PASS:
                            print(f"{result.verdict:14} {name} | {result.message}", flush=True)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return results


if __name__ == "__main__":
    sys.exit(main())
