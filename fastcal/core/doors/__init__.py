"""The gates of what fastcal reads: one per format, and one error for whatever goes wrong.

Every gate opens regular files alone, compares what a file claims with what it can hold before it
allocates, bounds nesting and expansion, checks what it read, and turns whatever is raised into one
`DataError` that begins with the path.
"""

from fastcal.core.doors.archive import Archive, open_archive
from fastcal.core.doors.bounds import bounded, check_claim, check_expansion
from fastcal.core.doors.checkpoint import read_checkpoint, sealed
from fastcal.core.doors.deflate import framed, gzip_reader, gzip_writer
from fastcal.core.doors.digest import Digest, digest
from fastcal.core.doors.failures import MissingFileError, one_error
from fastcal.core.doors.itk_header import ItkHeader, itk_header
from fastcal.core.doors.json_text import parse_json, read_json, read_json_lines
from fastcal.core.doors.nifti_header import NiftiFile, NiftiHeader, nifti_header, open_nifti
from fastcal.core.doors.npy import NpyHeader, npy_header, npy_place, read_npy
from fastcal.core.doors.npz import ArchivePlace, Npz, open_npz, read_npz
from fastcal.core.doors.opening import RegularFile, open_regular, read_bytes, read_text
from fastcal.core.doors.pickle_file import read_pickle
from fastcal.core.doors.safetensors_file import Safetensors, read_safetensors, state_digest
from fastcal.core.doors.schema import validated
from fastcal.core.doors.state import StateFile, read_state
from fastcal.core.doors.writing import remove_leftovers, settle, sync, sync_folder, temporary_beside
from fastcal.core.doors.yaml_text import parse_yaml, read_yaml
from fastcal.core.doors.zip_writing import ZipWriter

__all__ = [
    "Archive",
    "ArchivePlace",
    "Digest",
    "ItkHeader",
    "MissingFileError",
    "NiftiFile",
    "NiftiHeader",
    "NpyHeader",
    "Npz",
    "RegularFile",
    "Safetensors",
    "StateFile",
    "ZipWriter",
    "bounded",
    "check_claim",
    "check_expansion",
    "digest",
    "framed",
    "gzip_reader",
    "gzip_writer",
    "itk_header",
    "nifti_header",
    "npy_header",
    "npy_place",
    "one_error",
    "open_archive",
    "open_nifti",
    "open_npz",
    "open_regular",
    "parse_json",
    "parse_yaml",
    "read_bytes",
    "read_checkpoint",
    "read_json",
    "read_json_lines",
    "read_npy",
    "read_npz",
    "read_pickle",
    "read_safetensors",
    "read_state",
    "read_text",
    "read_yaml",
    "remove_leftovers",
    "sealed",
    "settle",
    "state_digest",
    "sync",
    "sync_folder",
    "temporary_beside",
    "validated",
]
