"""The master: a gRPC service without state of its own, in front of a store in Redis or Valkey.

``core`` decides (pure), ``store`` keeps (the only code that knows Redis), ``rpc`` translates, ``loops`` are the agents
that run by themselves. The path of a task: rpc -> core -> store/lua -> rpc.
"""
