"""A study with real sites: let their keys in, wait for them, submit the study, follow it, end in order."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hymate.durable import write_text
from hymate.errors import InputFault
from server.control import Unreachable, study_bundle
from server.failure import StudyFailure
from server.federation_config import FederationConfig
from server.journal import STATUS, read_status, write_status
from server.launch import SuperLink, deployed_superlink, named_superlink
from server.resume import has_work, refuse_unfinished, roll_back
from server.simulation_layout import set_aside
from server.study import StudyConfig, dump_study

Report = dict[str, Any]
SITES = "sites.json"
POLL_S = 0.3
ASK_S = 2.0
"""How often Flower is asked about nodes and the run."""
SILENCE_S = 60.0
"""How long a SuperLink may leave us without an answer before it counts as gone."""
GRACE_S = 5.0
"""How long a study may seem to be over before its own last word must be on disk."""


class Audience(Protocol):
    """Who is told how it goes."""

    def say(self, line: str) -> None:
        """One thing that happened once."""

    def waiting(self, online: Mapping[str, bool]) -> None:
        """Which sites are connected, while the study waits for them."""

    def __call__(self) -> None:
        """Look at what the run folder says now."""


@dataclass(frozen=True)
class Deployment:
    """One study, its federation and its run folder."""

    study: StudyConfig
    federation: FederationConfig
    out: Path

    @classmethod
    def of(cls, study: StudyConfig, out: Path) -> Deployment:
        if study.federation is None:
            raise InputFault(
                f"study '{study.name}'",
                "has no `federation:` section",
                "`flower-server --init DIR` writes an example",
            )
        return cls(study, study.federation, out)

    def run(
        self,
        audience: Audience,
        *,
        resume: bool = False,
        on_report: Callable[[Report], None],
        keep: bool = False,
    ) -> None:
        """Carry the study to its end; `on_report` is given `report.json`'s content.

        However this is left, nothing that it started runs any more. `keep` goes on after the report,
        until SuperLink ends or the command is interrupted.

        Raises:
            InputFault: `resume` names a run of another study.
            StudyFailure: the study ended early; the message is the cause in one line.
            KeyboardInterrupt: passed on, after the study was stopped and `status.json` says so.
        """
        if resume and self.finished():
            audience.say("this study has finished already")
            on_report(self._report())
            return
        try:
            self._lay_out(resume, audience)
            with self._superlink() as link:
                try:
                    self._carry(link, audience)
                    on_report(self._report())
                    if keep:
                        self._stay(link, audience)
                except BaseException:
                    with suppress(StudyFailure):
                        link.stop_study()
                    raise
        except KeyboardInterrupt:
            if not self.finished():
                self._note("stopped", "interrupted at the coordinator; go on with --resume")
            raise
        except OSError as fault:
            cause = f"{fault.filename or self.out}: {fault.strerror or fault}; go on with --resume"
            self._note("failed", cause)
            raise StudyFailure(cause) from None
        except StudyFailure as failure:
            if not read_status(self.out):
                self._note("failed", str(failure))
            raise

    def _note(self, state: str, cause: str) -> None:
        with suppress(OSError):  # a full disk is a cause, too
            write_status(self.out, state, cause)

    def finished(self) -> bool:
        """Whether the study has come to its report."""
        return read_status(self.out) == "finished"

    def _superlink(self) -> AbstractContextManager[SuperLink]:
        if self.federation.superlink is not None:
            return named_superlink(self.federation)
        return deployed_superlink(self.federation, self.out / "superlink")

    def _lay_out(self, resume: bool, audience: Audience) -> None:
        """Make the run folder, or make the run that is in it ready to go on.

        Raises:
            InputFault: the run is another study's, or it has work in it and `resume` was not asked for.
            StudyFailure: a process still carries it.
        """
        if resume and (self.out / "study.yaml").is_file():
            for line in roll_back(self.out, self.study, apart_from={"simulation"}):
                audience.say(line)
        else:
            if resume:
                audience.say("there is no run to go on with yet: beginning one")
            if has_work(self.out):
                refuse_unfinished(self.out)
            set_aside(self.out)
            self.out.mkdir(parents=True, exist_ok=True)
        write_text(self.out / "study.yaml", dump_study(self.study))

    def _carry(self, link: SuperLink, audience: Audience) -> None:
        if self.federation.superlink is None:
            # A database that outlived its SuperLink may hold the run that broke off.
            for run in link.control.unfinished():
                link.control.stop(run)
        names = self._register(link)
        audience.say(f"app bundle sha256 {study_bundle().sha256} (a site may name it in policy.approved_app)")
        self._wait_for_sites(link, names, audience)
        link.submit({"run": str(self.out.resolve()), "sites": len(names)})
        self._follow(link, audience)

    def _register(self, link: SuperLink) -> dict[int, str]:
        """Let every site's key in; `sites.json` says which node is which site."""
        names = {
            link.control.register(entry.public_key).node_id: site
            for site, entry in self.federation.sites.items()
        }
        write_text(self.out / SITES, json.dumps({str(node): site for node, site in names.items()}, indent=2))
        return names

    def _wait_for_sites(self, link: SuperLink, names: Mapping[int, str], audience: Audience) -> None:
        """Until the required sites and the quorum are connected."""
        rules = self.study.participation
        required = {site for site, entry in self.federation.sites.items() if entry.required}
        heard = time.monotonic()
        deadline = heard + self.federation.wait_minutes * 60
        while True:
            _check_alive(link)
            try:
                nodes = link.control.nodes().values()
            except Unreachable:
                if time.monotonic() - heard > SILENCE_S:
                    raise
                time.sleep(POLL_S)
                continue
            heard = time.monotonic()
            online = {names[node.node_id]: node.online for node in nodes if node.node_id in names}
            audience.waiting(online)
            there = {site for site, is_online in online.items() if is_online}
            if required <= there and rules.satisfied(there, len(names)):
                return
            if time.monotonic() > deadline:
                needed = required | set(rules.required)
                away = [
                    f"{site} (required)" if site in needed else site
                    for site in names.values()
                    if site not in there
                ]
                raise StudyFailure(
                    f"{len(there)} of {len(names)} sites connected within "
                    f"{self.federation.wait_minutes:g} minutes; missing: {', '.join(away)}; let them run "
                    "`hymate-client check`"
                )
            time.sleep(min(ASK_S, max(deadline - time.monotonic(), 0.1)))

    def _follow(self, link: SuperLink, audience: Audience) -> None:
        """Wait for the end that the ServerApp writes down; one that vanished, or that Flower gave up, is
        an end too."""
        watch = _Watch(link)
        while not (self.out / STATUS).is_file():
            audience()
            _check_alive(link)
            cause = watch()
            if cause and not (self.out / STATUS).is_file():
                raise StudyFailure(f"{cause}; go on with --resume")
            time.sleep(POLL_S)
        audience()
        status = json.loads((self.out / STATUS).read_text(encoding="utf-8"))
        if status["state"] != "finished":
            raise StudyFailure(status["cause"])
        self._let_finish(link)

    def _let_finish(self, link: SuperLink) -> None:
        """Give Flower a moment to write down that the run has ended."""
        deadline = time.monotonic() + 10
        with suppress(StudyFailure):
            while not link.verdict()[0].startswith("finished") and time.monotonic() < deadline:
                time.sleep(POLL_S)

    def _stay(self, link: SuperLink, audience: Audience) -> None:
        """Hold the SuperLink that is ours until it ends; one of somebody else's stays by itself."""
        if self.federation.superlink is not None:
            return
        audience.say(
            f"SuperLink stays up for the next study: let its federation.superlink be "
            f"{self.federation.local_address()}; Ctrl-C ends it"
        )
        while link.alive():
            time.sleep(POLL_S)
        raise StudyFailure(f"the study has finished, but SuperLink ended: {link.last_words()}")

    def _report(self) -> Report:
        return dict(json.loads((self.out / "report.json").read_text(encoding="utf-8")))


class _Watch:
    """Tells, every few seconds, whether a study ended without a word of its own."""

    def __init__(self, link: SuperLink) -> None:
        self._link = link
        self._looked = self._heard = time.monotonic()
        self._seen = False
        self._ended: float | None = None

    def __call__(self) -> str:
        """The cause in one line where the study has been over for a while; else empty."""
        now = time.monotonic()
        if now - self._looked < ASK_S:
            return ""
        self._looked = now
        here = self._link.working()
        self._seen |= here
        try:
            status, details = self._link.verdict()
        except Unreachable as fault:
            return str(fault) if now - self._heard > SILENCE_S else ""
        self._heard = now
        gone = self._seen and not here
        if not gone and not status.startswith("finished"):
            self._ended = None
            return ""
        self._ended = self._ended or now
        if now - self._ended < GRACE_S:
            return ""
        if status.startswith("finished"):
            return f"Flower says {status}: {details or self._link.last_words()}"
        return f"the study's process is gone (killed, or out of memory?); Flower says {status}"


def _check_alive(link: SuperLink) -> None:
    if not link.alive():
        raise StudyFailure(f"SuperLink ended: {link.last_words()}; go on with --resume")
