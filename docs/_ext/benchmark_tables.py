"""Tables of the figures that the scripts in ``benchmarks/`` write as JSON.

``{benchmark-table} name`` reads ``docs/benchmarks/name.json`` when the site is built: a list of
``records`` with one figure a field, and the ``machine`` they were measured on. Records that
agree in `rows` and `columns` are averaged over the rest, seeds above all.
"""

import json
import statistics
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective


def words(argument):
    return argument.split()


class BenchmarkTable(SphinxDirective):
    """A table of one figure: `rows` by `columns` of what a benchmark wrote."""

    required_arguments = 1
    option_spec: ClassVar = {
        "rows": words,
        "columns": directives.unchanged_required,
        "value": directives.unchanged_required,
        "scale": float,
        "digits": directives.nonnegative_int,
        "only": words,
    }

    def run(self):
        path = Path(self.env.srcdir, "benchmarks", f"{self.arguments[0]}.json")
        self.env.note_dependency(str(path))
        if not path.exists():
            return [nodes.paragraph(text=f"Not measured yet: run benchmarks/{path.stem}.py.")]
        result = json.loads(path.read_text())
        return [self._table(self._select(result["records"])), _source(path, result)]

    def _select(self, records):
        wanted = [field.partition("=")[::2] for field in self.options.get("only", ())]
        return [
            record
            for record in records
            if all(str(record.get(field)) in value.split(",") for field, value in wanted)
            and record.get(self.options["value"]) is not None
        ]

    def _table(self, records):
        rows, column = self.options["rows"], self.options["columns"]
        cells = {}
        for record in records:
            row = tuple(record.get(field) for field in rows)
            cells.setdefault(row, {}).setdefault(record.get(column), []).append(
                record[self.options["value"]]
            )
        heads = list(dict.fromkeys(record.get(column) for record in records))
        lines = [
            [*map(str, row), *(self._mean(of.get(head, ())) for head in heads)]
            for row, of in cells.items()
        ]
        return table([*rows, *map(str, heads)], lines)

    def _mean(self, values):
        if not values:
            return "–"
        scale, digits = self.options.get("scale", 1.0), self.options.get("digits", 2)
        mean = f"{scale * statistics.fmean(values):.{digits}f}"
        if len(values) == 1:
            return mean
        return f"{mean} ± {scale * statistics.stdev(values):.{digits}f}"


def table(heads, lines):
    """Build a docutils table from rows of text."""
    group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in heads), cols=len(heads))
    group += nodes.thead("", _row(heads))
    group += nodes.tbody("", *map(_row, lines))
    return nodes.table("", group, classes=["benchmark"])


def _row(texts):
    return nodes.row("", *(nodes.entry("", nodes.paragraph(text=text)) for text in texts))


def _source(path, result):
    machine = ", ".join(f"{key} {value}" for key, value in result.get("machine", {}).items())
    seeds = {record.get("seed", record.get("split")) for record in result["records"]}
    text = f"benchmarks/{path.stem}.py; {machine or 'machine not recorded'}; draws: {len(seeds)}."
    return nodes.paragraph("", "", nodes.emphasis(text=text))


def setup(app):
    app.add_directive("benchmark-table", BenchmarkTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
