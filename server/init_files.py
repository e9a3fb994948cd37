"""The files `flower-server --init` writes: a study to fill in, and the steps to its first run."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import yaml

from hymate.durable import write_text
from hymate.errors import InputFault
from hymate.parsing import parse
from server.certificates import subject_names
from server.federation_config import join_address
from server.study import StudyConfig

HOST = "coordinator.example.org"
NAME = r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}"
STUDY = """\
# One study, led by this coordinator. Paths start at this file.
# See whether it is complete: flower-server --config study.yaml --dry-run
name: my-study
seed: 0

task:
  name: in_hospital_mortality   # every site needs labels/in_hospital_mortality/ in its MEDS data set
  lookback_hours: 48

pretrain: {rounds: 10}          # masked forecasting; 0 leaves the phase out
finetune: {rounds: 10, patience: 5}
strategy: {name: fedavg}
evaluation: {local_baseline: true}   # also train every site by itself, and compare

participation:
  quorum: 1.0                   # sites a round needs: a share (0.67) or a number (2)
  required: []                  # names of sites that every round needs, whatever the quorum
  deadline_minutes: 60          # how long a round waits; later replies are written down and dropped
  retries: 1                    # how often a site that failed is asked again within the deadline

federation:
  address: 0.0.0.0:9092         # where the coordinator listens; sites need to reach this port only
  public_address: coordinator.example.org:9092   # CHANGE: what sites call it; in the certificate
  health_address: 127.0.0.1:9091                 # gRPC health, for probes on this machine
  tls:
    certificate: tls/server.crt
    key: tls/server.key
    ca: tls/ca.crt              # every site gets a copy of this one
  sites:                        # CHANGE: the sites by name, each with the public key it sent
    north: {public_key: keys/north.pub, required: true}   # required: the study waits for it
    south: {public_key: keys/south.pub}
  wait_minutes: 60              # for the required sites and the quorum
"""

README = """\
# Leading a study

1. Write in `study.yaml` by which name or address sites reach this machine (`public_address`) and which
   sites take part.
2. Make the certificates, naming the same host (more than one `--host` is fine):

       flower-server certificates --out tls --host coordinator.example.org

   Send `tls/ca.crt` to every site. `tls/ca.key` signs certificates: keep it away from this machine.
3. Each site runs `hymate-client keygen` and sends its `.pub` file. Check by another channel (telephone)
   that it came from the site, then put it into `keys/`. The private key never leaves the site.
4. See whether everything is in place; nothing is started:

       flower-server --config study.yaml --dry-run

5. Lead the study. Sites may start before or after; the run folder is `runs/my-study`:

       flower-server --config study.yaml

   Stopped, or the machine went down? The same command with `--resume` goes on after the last complete
   round.
"""


def write_example(folder: Path, host: str = "", sites: Sequence[str] = ()) -> list[Path]:
    """Write `study.yaml` and `README.md`.

    Args:
        host: by which sites reach the coordinator, in place of the example's.
        sites: who takes part, in place of the example's two; the study waits for all of them.

    Raises:
        InputFault: a file is there already, or a host or name cannot be used; nothing is written then.
    """
    study, steps = STUDY, README
    if host:
        subject_names([host])
        study = study.replace(f"{HOST}:9092", json.dumps(join_address(host, 9092))).replace(
            "CHANGE: what", "what"
        )
        steps = steps.replace(HOST, host)
    for name in sites:
        if not re.fullmatch(NAME, name):
            raise InputFault(f"--site '{name}'", "is no name for a site", "letters, digits, - and _ only")
        if sites.count(name) > 1:
            raise InputFault(f"--site {name}", "is given twice", "give every site its own name")
    if sites:
        lines = "".join(f"    {name}: {{public_key: keys/{name}.pub, required: true}}\n" for name in sites)
        study = re.sub(r"(  sites:) .*\n(    .*\n)+", lambda found: f"{found[1]}\n{lines}", study)
    files = {folder / "study.yaml": study, folder / "README.md": steps}
    for path in files:
        if path.exists():
            raise InputFault(path, "is there already", "name another folder")
    parse(StudyConfig, yaml.safe_load(study), folder / "study.yaml")
    (folder / "keys").mkdir(parents=True, exist_ok=True)
    for path, text in files.items():
        write_text(path, text)
    return list(files)
