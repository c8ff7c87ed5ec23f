"""The ClientApp: hands a call to the resident worker of its node, or answers it in this process.

Flower starts a new process for every message in deployment, so this module imports neither torch nor transformers as
long as there is a worker. A node says who it is in its configuration:
    client         the client's name; in a simulation partition-id counts the clients in sorted order instead
    data           where its rows are, instead of what the experiment says
    worker         directory of the resident worker (`fedloom join` starts one); without it the base is loaded here
    store          directory for what the client keeps
    memory_bytes   that the site allows for training; left out: any
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedloom.engine.flower.calls import HELLO, answered, hello
from fedloom.engine.flower.wire import Envelope, from_record, to_record

app = ClientApp()


@app.query()
def query(message: Message, context: Context) -> Message:
    """Who are you, which classes do you have, what can be known of you."""
    return reply_with(message, context)


@app.train()
def train(message: Message, context: Context) -> Message:
    """An assignment of a round: to train, or to measure."""
    return reply_with(message, context)


def reply_with(message: Message, context: Context, **more: Any) -> Message:
    """The answer to one message. more: in addition to what the node's configuration says."""
    config = {**context.node_config, **more}
    answer = answered(from_record(message.content), lambda asked: _answer(asked, config))
    return Message(to_record(answer), reply_to=message)


def _answer(asked: Envelope, config: Mapping[str, Any]) -> Envelope:
    if asked.facts.get("kind") == HELLO:
        return hello(config)
    if "worker" in config:
        from fedloom.engine.flower.mailbox import ask_worker

        return ask_worker(str(config["worker"]), asked)
    from fedloom.engine.flower.client import answer_here

    return answer_here(asked, config)
