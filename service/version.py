"""Which version of the program this is."""

from importlib.metadata import PackageNotFoundError, version


def installed_version() -> str:
    """As the installed package says."""
    try:
        return version("inlier")
    except PackageNotFoundError:  # run from a checkout that was not installed
        return "0"
