"""What a study says, finished or half-way: everything the report shows, gathered from the store into one plain dict.

    report = gather(load_study(path), Store(root))       # campana.report/1, see `campana.report.schema`

It runs nothing and writes nothing. What is not built is listed as missing; nothing is made up for it.
"""

from campana.outcome.gather import gather

__all__ = ["gather"]
