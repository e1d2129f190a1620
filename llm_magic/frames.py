"""Tables of data: pandas where it is installed, which nothing else here needs."""

from __future__ import annotations

from llm_magic.errors import OptionError


def import_pandas():
    """The module pandas, imported only when a table is asked for."""
    try:
        import pandas
    except ImportError:
        raise OptionError("pandas is not installed", "run: pip install pandas") from None
    return pandas
