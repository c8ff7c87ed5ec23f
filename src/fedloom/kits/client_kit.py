"""The files of one client's kit, as values. Nothing in them is another client's."""

from __future__ import annotations

from cryptography import x509

from fedloom.aggregation.registry import METHODS
from fedloom.kits import layout
from fedloom.kits.certificates import certificate_pem
from fedloom.kits.keys import PrivateKey, fingerprint, private_openssh, public_openssh
from fedloom.kits.layout import KitFile, text_file
from fedloom.kits.programs import compose, dockerfile, start_script, systemd_unit
from fedloom.kits.site import AcceptTable, SiteSettings
from fedloom.kits.site_template import site_template
from fedloom.kits.tables import ClientKitTable, dumped
from fedloom.spec.experiment import ClientTable, Experiment

_README = """\
# The kit of {client} for the run {run}

Your rows stay here. This machine trains factors for the base model `{model}` and sends those to {server}.

1. `pip install 'fedloom[train,flower]'`, the version that the operator has.
2. Open `site.toml`: the path of your rows, the memory that training may take, and what you allow. Only you read
   this file; the server cannot override it, and is told of it only `memory_limit`, to plan within it.
3. `ssh-keygen -l -f client.pub` must print `{fingerprint}`, and the operator must have the same line: compare
   by telephone.
4. `fedloom join . --dry-run` shows what would be sent and to whom, and sends nothing.
5. `./start.sh`, or `./start.sh --data our.jsonl`. For a server of your own: `{unit}` (systemd), or `compose.yaml`.

Only outgoing connections to {server} are needed. The kit is valid until {expires}.

## What is sent

- Factors of {rank}{head} ({traffic}).
- The number of your rows, losses and scores on rows held out, seconds, and amounts of memory and work.
- The name `{client}`, your public key, versions of the software, and a digest of the base model's weights.{classes}

Factors are computed from your rows and can tell something about them. Set `privacy.epsilon` in `site.toml` if the
run must keep to a budget: one that adds no noise is then refused.

## What never leaves

- The rows, their texts, and the path where they are.
- `client.key`, by which the server knows you: mode 600, on this machine only. If somebody else may have read it, tell
  the operator, who must take you off the list and make you another kit.
- `site.toml`, but for its `memory_limit`.
"""
_CLASS_NAMES = "\n- The names of the classes in your rows, as the run does not name them itself."


def client_files(
    table: ClientKitTable, experiment: Experiment, authority: x509.Certificate, key: PrivateKey, named_data: str | None
) -> dict[str, KitFile]:
    """name -> file. named_data: the path of this client's rows in the operator's pilot.toml, as a hint."""
    unit = "fedloom-client.service"
    client = experiment.client(table.client)
    return {
        layout.KIT: text_file(dumped(table)),
        layout.CA_CERTIFICATE: KitFile(certificate_pem(authority)),
        layout.CLIENT_KEY: KitFile(private_openssh(key), layout.PRIVATE_MODE),
        layout.CLIENT_PUBLIC: text_file(public_openssh(key.public_key(), table.client)),
        layout.SITE: text_file(site_template(_settings(experiment, client), experiment.model.task, named_data)),
        layout.START: text_file(start_script("join"), layout.PROGRAM_MODE),
        unit: text_file(systemd_unit(unit, f"{table.client} in {table.run}", table.client)),
        "Dockerfile": text_file(dockerfile()),
        ".dockerignore": text_file("*\n"),
        "compose.yaml": text_file(compose()),
        layout.README: text_file(_readme(table, experiment, client, fingerprint(key.public_key()), unit)),
    }


def _settings(experiment: Experiment, client: ClientTable) -> SiteSettings:
    """What the site agrees to by leaving its site.toml as it is: this run, and nothing beside it."""
    accept = AcceptTable(
        models=(experiment.model.id,),
        methods=(experiment.method.name,),
        classes=experiment.model.labels if experiment.model.classifies else None,
    )
    return SiteSettings(accept=accept, columns=client.columns)


def _readme(table: ClientKitTable, experiment: Experiment, client: ClientTable, key: str, unit: str) -> str:
    model = experiment.model
    return _README.format(
        client=table.client,
        run=table.run,
        server=table.server,
        model=model.id,
        fingerprint=key,
        unit=unit,
        expires=f"{table.expires:%Y-%m-%d}",
        rank=_rank(client),
        head=", and the head that tells classes," if model.classifies else "",
        traffic=METHODS[experiment.method.name].traffic,
        classes=_CLASS_NAMES if model.classifies and model.labels is None else "",
    )


def _rank(client: ClientTable) -> str:
    if client.rank == "auto":
        return "the ranks that are planned for this machine"
    return f"rank {max(client.rank, *client.rank_pattern.values(), 0)}"
