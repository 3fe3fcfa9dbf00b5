"""
The programs of other task queues, and what runs them: ``python -m benchmarks.peers`` is ``__main__``.

``environments`` makes what each peer is installed in; ``program`` is what their programs share; every other module is
the program of one peer, or its Django project.
"""
