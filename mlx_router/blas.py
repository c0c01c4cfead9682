"""A fast BLAS for MLX on Linux, whose wheel carries only the reference one, some fifty times slower.

MLX calls `cblas_sgemm` and its kin through pointers that the dynamic linker filled in when it loaded `libmlx.so`.
`bind` points them to an OpenBLAS: that of the package `scipy-openblas32`, which mlx-router depends on, else the
system's. The package comes first because it is current: the OpenBLAS of a stable distribution does not know the newest
processors and takes its slowest kernels there. No compiler, environment variable or order of imports is needed, and
no other library of the process is touched.

The pointers are found as the linker finds them: by the relocations in the library's dynamic section, see elf(5) and
`struct link_map` in <link.h>.
"""

import ctypes
import mmap
import os
import platform
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path

from .machine import usable_cpus

PRODUCTS = ("cblas_sgemm", "cblas_dgemm", "cblas_cgemm")  # all that MLX takes from a CBLAS

# The first is the threaded build's name where the second is single-threaded (Fedora).
SYSTEM_LIBRARIES = ("libopenblasp.so.0", "libopenblas.so.0")

# Relocations that hold the address of a function: R_*_GLOB_DAT and R_*_JUMP_SLOT.
FUNCTION_POINTERS = {"x86_64": (6, 7), "aarch64": (1025, 1026)}

# Entries of the dynamic section: DT_*.
PLT_SIZE, STRING_TABLE, SYMBOL_TABLE, RELOCATIONS, RELOCATIONS_SIZE, PLT_RELOCATIONS = 2, 5, 6, 7, 8, 23


@dataclass(frozen=True)
class Blas:
    """The BLAS that answers MLX's f32 matrix products, and why no faster one does."""

    name: str
    library: str | None
    fast: bool
    problems: tuple[str, ...] = ()


# The library that was bound, and the prefix of its names.
_bound: list[tuple[ctypes.CDLL, str]] = []


class _Unavailable(Exception):
    """A way to a fast BLAS that is closed here; the message says why."""


def bind(libmlx: Path) -> Blas:
    """Point the matrix products of a loaded MLX to a fast BLAS, and tell which one answers them now."""
    try:
        pointers = _product_pointers(libmlx)
        current = _owner(pointers[PRODUCTS[0]].value)
        # Only the copy inside the wheel is replaced; whoever built or preloaded another one meant it.
        if not fnmatch(Path(current).parent.name, "mlx_*.libs"):
            return Blas(Path(current).name, current, fast=True)
        return _replace(pointers, current)
    except _Unavailable as error:
        return Blas("reference", None, fast=False, problems=(str(error),))


def _replace(pointers: dict[str, ctypes.c_void_p], current: str) -> Blas:
    problems = []
    for find in (_wheel, _system_library):
        try:
            name, library, prefix = find()
            functions = {product: library[prefix + product] for product in PRODUCTS}
        except (_Unavailable, AttributeError) as error:
            problems.append(str(error))
            continue
        _fit_threads(library, prefix)
        _bound.append((library, prefix))
        for product, function in functions.items():
            pointers[product].value = ctypes.cast(function, ctypes.c_void_p).value
        return Blas(name, _owner(pointers[PRODUCTS[0]].value), fast=True)
    return Blas("reference", current, fast=False, problems=tuple(problems))


def _wheel() -> tuple[str, ctypes.CDLL, str]:
    try:
        package = import_module("scipy_openblas32")
        path = Path(package.get_lib_dir()) / package.get_library(fullname=True)
        return "OpenBLAS (scipy-openblas32)", ctypes.CDLL(str(path)), "scipy_"
    except (ImportError, OSError) as error:
        raise _Unavailable(f"the package scipy-openblas32 can't be used ({error})") from error


def _system_library() -> tuple[str, ctypes.CDLL, str]:
    for name in SYSTEM_LIBRARIES:
        try:
            return "OpenBLAS (system)", ctypes.CDLL(name), ""
        except OSError:
            continue
    raise _Unavailable(f"the system has no {SYSTEM_LIBRARIES[-1]}")


def _fit_threads(library: ctypes.CDLL, prefix: str) -> None:
    """Take no more threads than the container's quota of CPU time feeds; OpenBLAS counts processors only."""
    threads = usable_cpus()
    if threads < library[f"{prefix}openblas_get_num_threads"]():
        library[f"{prefix}openblas_set_num_threads"](threads)


def set_threads(count: int) -> None:
    """Have the bound OpenBLAS use this many threads from now on; without one, nothing happens."""
    for library, prefix in _bound:
        library[f"{prefix}openblas_set_num_threads"](count)


class _LinkMap(ctypes.Structure):
    """The start of `struct link_map`: a loaded library."""

    _fields_ = (("base", ctypes.c_size_t), ("name", ctypes.c_char_p), ("dynamic", ctypes.c_size_t))


class _Dynamic(ctypes.Structure):
    """`Elf64_Dyn`: an entry of the dynamic section."""

    _fields_ = (("tag", ctypes.c_int64), ("value", ctypes.c_uint64))


class _Relocation(ctypes.Structure):
    """`Elf64_Rela`: a place that the linker filled in, here with the address of a symbol."""

    _fields_ = (
        ("offset", ctypes.c_uint64),
        ("kind", ctypes.c_uint32),
        ("symbol", ctypes.c_uint32),
        ("addend", ctypes.c_int64),
    )


class _Symbol(ctypes.Structure):
    """`Elf64_Sym`: an entry of the symbol table."""

    _fields_ = (("name", ctypes.c_uint32), ("rest", ctypes.c_char * 20))


class _SymbolInfo(ctypes.Structure):
    """`Dl_info`: what dladdr(3) tells of an address."""

    _fields_ = (
        ("library", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("symbol", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


def _product_pointers(libmlx: Path) -> dict[str, ctypes.c_void_p]:
    """Return the writable pointers through which a loaded library calls the matrix products, by name."""
    kinds = FUNCTION_POINTERS.get(platform.machine())
    if kinds is None:
        raise _Unavailable(f"MLX's BLAS can't be replaced on {platform.machine()}")
    try:
        # dlopen's handle is the library's link map, in glibc.
        loaded = _LinkMap.from_address(ctypes.CDLL(str(libmlx), mode=os.RTLD_NOLOAD)._handle)
    except OSError as error:
        raise _Unavailable(f"MLX's library is not where it is expected ({error})") from error
    dynamic = _dynamic_section(loaded.dynamic)
    pointers = {}
    for relocation in _relocations(dynamic):
        name = _symbol_name(dynamic, relocation.symbol) if relocation.kind in kinds else ""
        if name in PRODUCTS:
            pointers[name] = _writable_pointer(loaded.base + relocation.offset)
    if len(pointers) < len(PRODUCTS):
        raise _Unavailable("this build of MLX does not take its matrix products from a library")
    return pointers


def _dynamic_section(address: int) -> dict[int, int]:
    """Return the entries by tag; glibc has made their addresses absolute."""
    entries: dict[int, int] = {}
    while (entry := _Dynamic.from_address(address)).tag:
        entries.setdefault(entry.tag, entry.value)
        address += ctypes.sizeof(_Dynamic)
    return entries


def _relocations(dynamic: dict[int, int]) -> list[_Relocation]:
    found: list[_Relocation] = []
    for table, size in ((PLT_RELOCATIONS, PLT_SIZE), (RELOCATIONS, RELOCATIONS_SIZE)):
        count = dynamic.get(size, 0) // ctypes.sizeof(_Relocation)
        if count:
            found += (_Relocation * count).from_address(dynamic[table])
    return found


def _symbol_name(dynamic: dict[int, int], index: int) -> str:
    symbol = _Symbol.from_address(dynamic[SYMBOL_TABLE] + index * ctypes.sizeof(_Symbol))
    return ctypes.string_at(dynamic[STRING_TABLE] + symbol.name).decode(errors="replace")


def _writable_pointer(address: int) -> ctypes.c_void_p:
    """Return the pointer at an address, its page made writable: libraries may be linked to be read-only there."""
    read_write = mmap.PROT_READ | mmap.PROT_WRITE
    page = address - address % mmap.PAGESIZE
    process = ctypes.CDLL(None, use_errno=True)
    if process.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(mmap.PAGESIZE), read_write):
        raise _Unavailable(f"the system refuses to replace MLX's BLAS ({os.strerror(ctypes.get_errno())})")
    return ctypes.c_void_p.from_address(address)


def _owner(address: int | None) -> str:
    """Return the path of the library that holds an address."""
    info = _SymbolInfo()
    if not ctypes.CDLL(None).dladdr(ctypes.c_void_p(address), ctypes.byref(info)):
        raise _Unavailable("MLX's matrix products belong to no library")
    return os.fsdecode(info.library)
