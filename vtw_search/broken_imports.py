"""Why a package cannot be imported, in one line: transformers and others hide the reason behind one of their own."""

from __future__ import annotations

import traceback
from importlib import metadata

from vtw_search.errors import MissingExtraError

# Whose code runs while another package is imported; the package at fault is the last one that is none of these.
_NEVER_AT_FAULT = frozenset(("importlib", "torch", "transformers", "vtw_search", "profilers"))
OWN_PACKAGES = ("vtw_search", "profilers", "conf")


def broken_import(error: ImportError) -> MissingExtraError:
    """Return the error that names the package whose import failed, the first cause, and what to install."""
    cause: BaseException = error
    while (before := cause.__cause__ or cause.__context__) is not None:
        cause = before
    reason = str(cause).strip().splitlines()[0].rstrip(".") if str(cause).strip() else type(cause).__name__
    if isinstance(cause, ModuleNotFoundError) and cause.name:
        package = cause.name.partition(".")[0]
        return MissingExtraError(f"{package} is not installed", remedy=f"pip install {package}")
    if isinstance(cause, ImportError):
        # "cannot import name ...", or a library that says itself what it needs.
        where = f"{cause.name}: " if cause.name and cause.name not in reason else ""
        rule, remedy = f"{where}{reason.split('. ')[0]}", "install it, in the release and build that fit your torch"
        return MissingExtraError(rule, remedy=remedy)
    package = _package_at_fault(cause)
    remedy = (
        f"install the build of {package} that fits torch {metadata.version('torch')}, or pip uninstall {package} if "
        "nothing of yours needs it"
    )
    return MissingExtraError(f"{package} {_version(package)}cannot be imported: {reason}", remedy=remedy)


def _package_at_fault(cause: BaseException) -> str:
    frames = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(cause.__traceback__)]
    packages = [name.partition(".")[0] for name in frames]
    return next((name for name in reversed(packages) if name not in _NEVER_AT_FAULT), packages[-1] if packages else "")


def _version(package: str) -> str:
    try:
        return f"{metadata.version(package)} "
    except metadata.PackageNotFoundError:
        return ""
