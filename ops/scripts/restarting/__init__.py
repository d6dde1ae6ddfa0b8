"""What restart-master, restart-workers and rolling-restart are made of.

Targets (``master_target``, ``worker_target``, ``store_target``) know how one thing is restarted, by ``processes`` on
this machine or by somebody's command (``templates``); ``plan`` makes ``steps`` of them, workers by ``groups``.
``snapshot`` looks at the broker, ``recovery`` waits until it is whole, ``probe`` is its client meanwhile,
``accounting`` compares two looks and says which promise broke, ``console`` writes that down. ``run_record`` keeps runs
apart and lets one go on where another stopped. ``master``, ``workers`` and ``rolling`` are the commands. ``upgrading``
builds on all of it.
"""
