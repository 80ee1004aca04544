"""Which part of the cases a job of an array does."""

from __future__ import annotations

from collections.abc import Mapping


def array_part(environment: Mapping[str, str]) -> tuple[int, int]:
    """Return the number of parts and this part, from 0, of a job array of SLURM.

    Ids of an array need not begin at 0. Outside an array there is one part.

    Args:
        environment: The process's environment.

    Raises:
        ValueError: The ids of the array have gaps, such as ``--array=1,5``, which say nothing
            about which share is whose.

    Example:
        >>> array_part({"SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_ID": "3",
        ...     "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_MAX": "4"})
        (4, 2)
    """
    found = {}
    for name in ("COUNT", "ID", "MIN", "MAX", "STEP"):
        text = environment.get(f"SLURM_ARRAY_TASK_{name}", "")
        if text.isascii() and text.isdigit():
            found[name] = int(text)
    if "COUNT" not in found or "ID" not in found:
        return 1, 0
    count, first, step = found["COUNT"], found.get("MIN", 0), found.get("STEP", 1) or 1
    part, off = divmod(found["ID"] - first, step)
    regular = found.get("MAX", first + step * (count - 1)) == first + step * (count - 1)
    if off or not 0 <= part < count or not regular:
        raise ValueError(
            "SLURM_ARRAY_TASK_ID must be one of equally spaced ids, got "
            f"{found['ID']} of {count} from {first}; give --num-parts and --part-id"
        )
    return count, part
