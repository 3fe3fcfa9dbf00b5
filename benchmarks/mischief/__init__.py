"""
A project whose code misbehaves, on machinery that fails: ``python -m benchmarks.mischief`` is ``__main__``.

``ways`` says how a row may misbehave and how it must end; ``ops`` registers the processors that do; ``storage`` is one
that can be taken away.
"""
