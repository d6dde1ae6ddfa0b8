"""The worker: a supervisor that owns leases, and executor children that run evaluations.

The supervisor never imports torch, an executor never imports grpc; they talk over a framed pipe (`pipe.py`).
"""
