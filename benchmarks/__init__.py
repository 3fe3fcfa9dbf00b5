"""
Side-by-side figures: each benchmark runs Alya and what it is measured against in turn, on a server of its own.

``python -m benchmarks.NAME`` prints a table and, as its last line, one JSON object. Read the ratios: a rate is of the
machine as much as of the code. ``busy_percent`` is what else the machine did just before; figures taken on a busy
machine prove little.
"""
