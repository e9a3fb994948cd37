"""Load the weights into a torch state, change nothing, send them back with a report."""

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """One round without training."""
    arrays = message.content["arrays"]
    assert isinstance(arrays, ArrayRecord)
    with torch.no_grad():
        state = arrays.to_torch_state_dict()
    metrics = MetricRecord({"num-examples": 1, "loss": 0.0})
    content = RecordDict({"arrays": ArrayRecord(state), "metrics": metrics})
    return Message(content=content, reply_to=message)
