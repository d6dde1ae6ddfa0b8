"""What restart-master, restart-workers and rolling-restart are made of.

Targets (``master_target``, ``worker_target``, ``store_target``) know how one thing is restarted, by ``processes`` on
this machine or by somebody's command (``templates``); ``plan`` makes ``steps`` of them, workers by ``groups``.
``snapshot`` looks at the broker, ``recovery`` waits until it is whole, ``probe`` is its client meanwhile,
``accounting`` compares two looks and says which promise broke, ``console`` writes that down. Nothing stays down:
``interruptions`` holds Ctrl-C back, ``run_record`` keeps runs apart and holds what each has ``stopped``, and by
``resuming`` the next run begins with that. ``master``, ``workers`` and ``rolling`` are the commands. ``upgrading``
builds on all of it.
"""
