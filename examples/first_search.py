"""A first search: three networks, trained by whatever workers there are. Needs `tenure master` and `tenure worker`."""

from tenure.client import Client

CONFIG = {"dataset": "digits", "num_epochs": 5}


def network(units: int) -> dict[str, list[dict[str, object]]]:
    hidden = {"id": "hidden", "operation": "dense", "params": {"units": units, "activation": "relu"}}
    output = {"id": "output", "operation": "dense", "params": {"units": 10}}
    return {"nodes": [hidden, output], "edges": [{"id": "1", "source_id": "hidden", "target_id": "output"}]}


with Client() as client:  # $TENURE_MASTER, else 127.0.0.1:50051
    search = client.search("first")
    handles = search.submit_many({"architecture": network(units), "config": CONFIG} for units in (16, 64, 256))
    for handle in search.as_completed(handles):
        result = handle.result()
        print(f"{result.metrics['params']:.0f} parameters: accuracy {result.metrics['val_accuracy']:.3f}")
