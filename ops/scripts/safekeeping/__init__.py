"""What backup, restore, disaster-drill and support-bundle are made of.

``servers`` finds the servers of a store, ``appendonly`` copies the files of one that runs on, ``replication`` has one
send a snapshot of itself, ``looks`` says what a store holds at a moment, ``folder`` is the form of a backup on disk,
``throwaway`` starts a server on a copy to prove that it is one. ``making``, ``restoring``, ``drilling`` and
``bundling`` are the four commands.
"""
