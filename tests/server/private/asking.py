"""What is asked of the sites of a study with noise, and what they are charged."""

from __future__ import annotations

from typing import Any

import yaml
from flwr.app import Message, RecordDict

from client.ledger import Ledger
from client.ledger_entry import Entry
from client.site import SiteConfig, load_site
from hymate.protocol import TrainReply
from strategies.wire import unpack, unpack_weights
from tests.server.studies import Study

SITES = ["hospital_1", "hospital_2"]

NOISE = {"mode": "dp-sgd", "noise_multiplier": 1.0}

PRETRAIN, FINETUNE = "train.pretrain", "train.finetune"

ROUNDS = (1, 2)


def site_of(study: Study, name: str = SITES[0]) -> SiteConfig:
    return load_site(study.folder / "sites" / name / "site.yaml")


def change_policy(study: Study, name: str, **policy: Any) -> None:
    path = study.folder / "sites" / name / "site.yaml"
    content = yaml.safe_load(path.read_text())
    content["policy"] |= policy
    path.write_text(yaml.safe_dump(content))


def charged(study: Study, name: str = SITES[0]) -> list[Entry]:
    return [each.entry for each in Ledger(site_of(study, name)).entries()]


def replies(study: Study, action: str) -> list[Message]:
    return [reply for reply in study.grid.replies if reply.metadata.message_type == action]


def told(study: Study, action: str) -> list[TrainReply]:
    return [unpack(reply.content, TrainReply) for reply in replies(study, action)]


def asked(study: Study, action: str, site: str = SITES[0]) -> Message:
    """The last message of a kind to a site."""
    node = {name: node for node, name in study.grid.sites.items()}[site]
    found = [message for message in study.grid.sent if message.metadata.message_type == action]
    return [message for message in found if message.metadata.dst_node_id == node][-1]


def ask_again(study: Study, message: Message, content: RecordDict | None = None, action: str = "") -> Message:
    """A message of the study once more, or another in its place; the study's own are left as they were."""
    kind = action or message.metadata.message_type
    asked = Message(content or message.content, dst_node_id=message.metadata.dst_node_id, message_type=kind)
    reply = study.grid.ask(asked)
    study.grid.sent.pop()
    study.grid.replies.pop()
    return reply


def bits(reply: Message) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in unpack_weights(reply.content).items()}
