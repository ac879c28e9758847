"""Tables of the figures that the scripts in ``benchmarks/`` write as JSON.

.. code-block:: markdown

   ```{benchmark-table} two_dimensional
   :rows: method nfe
   :columns: task
   :values: energy*1000
   What to show as long as there is no such file.
   ```

reads ``docs/benchmarks/two_dimensional.json`` when the site is built: `records`, with one figure
a field, and the `machine` or `settings` they were measured with. Records that agree in `rows` and
`columns`, as those of several seeds do, become mean ± standard deviation. Without `columns`
every one of the `values` is a column.
"""

import json
import statistics
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

_SETTINGS = ("date", "processor", "threads", "budget", "torch", "sknsgf")
_DRAWS = ("seed", "split", "draw")


class BenchmarkTable(SphinxDirective):
    """A table of what a benchmark wrote."""

    required_arguments = 1
    has_content = True
    option_spec: ClassVar = {
        "rows": str.split,
        "columns": directives.unchanged_required,
        "values": str.split,
        "only": str.split,
        "digits": directives.nonnegative_int,
    }

    def run(self):
        """Read the file, or show the content where there is none."""
        path = Path(self.env.srcdir, "benchmarks", f"{self.arguments[0]}.json")
        self.env.note_dependency(str(path))
        if not path.exists():
            return self.parse_content_to_nodes()
        result = json.loads(path.read_text(encoding="utf-8"))
        records = [record for record in _records(result) if self._is_wanted(record)]
        return [self._table(records), _source(path, result, records)]

    def _is_wanted(self, record):
        wanted = (field.split("=") for field in self.options.get("only", ()))
        return all(str(record.get(name)) in values.split(",") for name, values in wanted)

    def _table(self, records):
        rows, column = self.options["rows"], self.options.get("columns")
        cells = {}
        for record in records:
            key = tuple(record.get(name) for name in rows)
            for value in self.options["values"]:
                name, _, scale = value.partition("*")
                if record.get(name) is not None:
                    head = str(record[column]) if column else value.replace("*", " × ")
                    cell = cells.setdefault(key, {}).setdefault(head, [])
                    cell.append(float(scale or 1) * record[name])
        heads = list(dict.fromkeys(head for of in cells.values() for head in of))
        lines = [
            [*(_text(part) for part in key), *(self._mean(of.get(head)) for head in heads)]
            for key, of in cells.items()
        ]
        return table([*rows, *heads], lines)

    def _mean(self, values):
        if not values:
            return "–"
        digits = self.options.get("digits", 2)
        mean = f"{statistics.fmean(values):z.{digits}f}".replace("-", "−")  # and no −0.00
        return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def _records(result):
    """Return the records of a file; nested dictionaries are cases, methods and their figures."""
    if "records" in result:
        return result["records"]
    return [
        {"case": case, "method": method, **figures}
        for case, methods in result.items()
        if isinstance(methods, dict)
        for method, figures in methods.items()
        if isinstance(figures, dict)
    ]


def _text(value):
    return "–" if value in (None, 0, "") else str(value)


def table(heads, lines):
    """Build a docutils table from rows of text."""
    group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in heads), cols=len(heads))
    group += nodes.thead("", _row(heads))
    group += nodes.tbody("", *map(_row, lines))
    return nodes.table("", group, classes=["benchmark"])


def _row(texts):
    return nodes.row("", *(nodes.entry("", nodes.paragraph(text=text)) for text in texts))


def _source(path, result, records):
    """Say where the figures come from."""
    settings = result.get("machine") or result.get("settings") or {}
    said = [f"{name} {settings[name]}" for name in _SETTINGS if settings.get(name) is not None]
    draws = {tuple(record.get(name) for name in _DRAWS) for record in records}
    parts = [f"benchmarks/{path.stem}.py", *said, f"draws: {len(draws)}"]
    return nodes.paragraph("", "", nodes.emphasis(text="; ".join(parts) + "."))


def setup(app):
    """Register the directive."""
    app.add_directive("benchmark-table", BenchmarkTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
