"""The executor: the child process in which one slot's evaluations run, one after the other.

It imports the evaluator once and stays warm. It may import torch and never imports grpc; it knows nothing of masters
and leases, only the pipe to its supervisor (``tenure.worker.pipe``). Start it as ``python -m tenure.worker.executor``.

* ``__main__.py``: start-up, and the loop over evaluations
* ``cleanup.py``: what is cleared away between two of them, and what can't be
* ``evaluation.py``: one evaluation, from its message to the message that says how it ended
* ``context.py``: what the evaluator is given
* ``outbox.py``: messages to the supervisor
* ``watchdog.py``: the end of the supervisor is the end of everything started for it
"""
