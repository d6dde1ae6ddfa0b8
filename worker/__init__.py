"""The worker: a supervisor that owns leases, and executor children that run evaluations.

The supervisor never imports torch or user code, an executor never imports grpc; they talk over a framed pipe.
The path of a task through the files:

* ``session.py``, ``session_stream.py``: a master sends it down the stream (or ``push_service.py``: calls Evaluate)
* ``holdings.py``: it becomes a run (``runs.py``) under its lease (``leases.py``)
* ``slots/``: a slot takes the run; its ``execution.py`` follows it in the slot's ``executor_process.py``
* ``pipe.py`` to ``executor/``: the child calls the evaluator (``evaluator.py`` is the contract, ``torch_eval/`` the
  built-in one) and writes checkpoints (``checkpoint/``), which wait in ``announcements.py`` to be registered
* ``runs.py`` again: the end becomes an outcome; ``spool.py`` keeps it on disk until a master has acknowledged it
* ``session_stream.py`` (or ``push_client.py``) delivers it; the verdict comes back to ``holdings.py``

Around it: ``main.py`` is the process, ``supervisor.py`` its life from start to drain, ``link.py`` and ``channels.py``
what both ways to a master share, ``serving.py`` what is listened on, ``settings.py`` and ``identity.py`` who this
worker is, ``scratch.py`` and ``output.py`` what a run leaves behind, ``metrics.py`` and ``machine.py`` what is seen.
``gpu/`` finds and asks GPUs, deals them out to slots, and hears of their errors; ``slots/health.py`` judges by those
whether a slot may go on, ``slots/leaks.py`` whether its executor may. ``code/`` fetches and unpacks what searches ship.
"""
