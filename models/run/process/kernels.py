"""Compiled functions, with a cache where a folder for it can be written."""

from collections.abc import Callable

import numba

_uncached: list[str] = []


def njit(cache: bool = False, **options: object) -> Callable:
    """``numba.njit``; a function whose cache cannot be written, as in a checkout and a home that are
    read-only, is compiled in each run."""

    def compile_later(function: Callable) -> Callable:
        kernel = numba.njit(**options)(function)
        if cache:
            try:
                kernel.enable_caching()
            except (RuntimeError, OSError):  # numba finds no folder that it can write
                _uncached.append(function.__name__)
        return kernel

    return compile_later


def describe_cache() -> str:
    """A sentence where kernels are compiled without a cache, else nothing."""
    if not _uncached:
        return ""
    return (
        "note: the kernels are compiled in each run, as no folder for their cache can be written; "
        "the variable NUMBA_CACHE_DIR can name one"
    )
