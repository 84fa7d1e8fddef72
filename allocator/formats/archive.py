"""npz archives of plain arrays: no pickle, C order, every size checked before anything is allocated."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allocator.errors import Fault, ProblemError

MOST_BYTES = 16 * 2**30
HARMLESS_BYTES = 2**30  # beyond it an archive may not unpack to more than MOST_RATIO times its size
MOST_RATIO = 100
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_arrays(data: bytes, where: str, what: str = "problem") -> dict[str, NDArray[Any]]:
    """All arrays of an npz by name.

    Raises:
        ProblemError: not an npz, an array of Python objects or in Fortran order, or sizes that do not agree.
    """

    def fault(name: str, message: str) -> ProblemError:
        return ProblemError([Fault(f"{where}:{name}" if name else where, message)], what)

    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except Exception as error:  # zipfile promises no list of what a damaged directory makes it raise
        raise fault("", f"is not an npz archive ({error}); it may be truncated") from None
    with archive:
        members = archive.infolist()
        total = sum(m.file_size for m in members)
        if total > MOST_BYTES:
            raise fault("", f"unpacks to {total} bytes, more than {MOST_BYTES}; split the problem")
        if total > max(HARMLESS_BYTES, MOST_RATIO * len(data)):
            raise fault("", f"unpacks to {total} bytes, over {MOST_RATIO} times its size; store it uncompressed")
        out: dict[str, NDArray[Any]] = {}
        for member in members:
            name = member.filename.removesuffix(".npy")
            if name in out:
                raise fault(name, "stands twice in the archive")
            try:
                out[name] = _read(archive, member)
            except ValueError as error:
                raise fault(name, str(error)) from None
            except Exception as error:  # whatever damaged or hostile bytes make zipfile, zlib or numpy raise
                raise fault(name, f"cannot be unpacked: {error or type(error).__name__}") from None
        return out


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in _HEADERS:
            raise ValueError(f"is npy version {version}; write version 1 or 2")
        shape, fortran, dtype = _HEADERS[version](stream)
        if dtype.hasobject or dtype.kind not in "biuf":
            raise ValueError(f"holds {dtype}, not plain numbers")
        if fortran and len(shape) > 1:
            raise ValueError("is in Fortran order; write it in C order")
        count = 1
        for n in shape:
            count *= int(n)
        expected = count * dtype.itemsize
        if min(shape, default=0) < 0 or stream.tell() + expected != member.file_size:
            raise ValueError(f"declares shape {shape} of {dtype} but holds {member.file_size} bytes")
        body = stream.read(expected)
    if len(body) != expected:
        raise ValueError("is truncated")
    array = np.frombuffer(body, dtype).reshape(shape)
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="))


def write_arrays(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The bytes of an npz; the same arrays give the same bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            with archive.open(member, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return out.getvalue()
