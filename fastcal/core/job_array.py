"""Which part of the cases a job of an array does."""

from __future__ import annotations

from collections.abc import Mapping


def chosen_part(
    num_parts: int | None, part_id: int | None, environment: Mapping[str, str]
) -> tuple[int, int]:
    """Return the number of parts and this part: what is given, else that of a job array of SLURM.

    Args:
        num_parts: The number of parts; None where it was not given.
        part_id: This part, from 0; None where it was not given.
        environment: The process's environment.

    Raises:
        ValueError: The array does not say which share is whose.

    Example:
        >>> chosen_part(4, None, {})
        (4, 0)
        >>> chosen_part(4, None, {"SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_ID": "3"})
        (4, 3)
    """
    if num_parts is not None and part_id is not None:
        return num_parts, part_id
    count, own = array_part(environment)
    if num_parts is not None and count != num_parts and _ids(environment):
        # Perhaps some of the parts once more; which they are is not known, as the ids of the first
        # array may have begun anywhere.
        raise ValueError(
            f"num_parts must be the size of the job array ({count}) where --part-id is not given, "
            f"got {num_parts}"
        )
    return count if num_parts is None else num_parts, own if part_id is None else part_id


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
    found = _ids(environment)
    if not found:
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


def _ids(environment: Mapping[str, str]) -> dict[str, int]:
    """Return what SLURM says of the array; nothing outside one."""
    found = {}
    for name in ("COUNT", "ID", "MIN", "MAX", "STEP"):
        text = environment.get(f"SLURM_ARRAY_TASK_{name}", "")
        if text.isascii() and text.isdigit():
            found[name] = int(text)
    return found if {"COUNT", "ID"} <= found.keys() else {}
