"""Alerts about the run as a whole: its driver, its nodes, its workers, its disk.

`ENDED` is why none of them fires for ever after a run. The driver's last word is known for half an hour beyond its death: of a run
whose last word was `ending` nothing is missed; one that died in another phase is missed until that half hour is over.
"""

from cluster.observe.alerts.alert import Alert
from cluster.observe.alerts.promql import events, increase, select
from cluster.observe.alerts.templates import BYTES, CAUSE, COUNT, NODE, ROLE, RUN
from protocol import metrics as m

DRIVER = "~driver-.+"
# A run's first minutes (a model copied, engines compiled, the first checkpoints) and a handful of samples give a line that points
# anywhere: the trend counts once the same process has told of its disk for this long, and as long as it does.
TREND = "30m"
_FILLS = f"predict_linear({select(m.DISK_FREE)}[1h], 4 * 3600) < 0"
KEPT = "30m"  # for how long a run that died without a word is told of
ENDING = select(m.PHASE, role=DRIVER, phase="ending")
PLAYING = f"(max by (run) ({select(m.PHASE, role=DRIVER, phase='playing')}) == 1)"
ENDED = f"(max by (run) (last_over_time({ENDING}[{KEPT}])) == 1)"
UP = "(up == 1)"  # Prometheus' own: 1 for a target whose last scrape went well

HEARTBEAT = Alert(
    name="AdvgameHeartbeatMissing",
    severity="critical",
    # While games are played the driver looks once a second; in other phases (an engine starts, held-out seeds are measured) it need
    # not, so there only its death is told: its gauges are gone, though its node is scraped.
    expr=f"""\
(
  max by (run, instance) ({select(m.PHASE, role=DRIVER, phase="playing")}) == 1
  unless on (run) {increase(select(m.HEARTBEATS), "run", "2m")} > 0
)
or
(
  max by (run, instance) (last_over_time({ENDING}[{KEPT}])) == 0
  unless on (run) {ENDING}
  unless on (run) {ENDED}
  and on (instance) {UP}
)""",
    wait="1m",
    summary=f"The driver of {RUN} hangs or is gone",
    description=f"The driver of {RUN} on {NODE} has not looked at its parts for minutes ({COUNT}: 1 it is there and hangs, 0 it "
    "is gone without having ended the run), though its node answers.",
)
TARGET = Alert(
    name="AdvgameTargetMissing",
    severity="critical",
    expr=f"""\
count by (run, instance) (last_over_time({select(m.PROCESS_START)}[{KEPT}]))
unless on (instance) {UP}
unless on (run) {ENDED}""",
    wait="2m",
    summary=f"Node {NODE} of {RUN} cannot be scraped",
    description=f"Prometheus gets no metrics from {NODE}, where {COUNT} processes of {RUN} were; what they do is not seen, and "
    "no other alert tells of them.",
)
RESTARTS = Alert(
    name="AdvgameWorkerRestarts",
    severity="warning",
    expr=f"{events(select(m.RESTARTS), 'run, role, cause', KEPT)} > 2.5",
    wait="",
    summary=f"{ROLE} of {RUN} is restarted again and again",
    description=f"{ROLE} of {RUN} was started anew {COUNT} times in half an hour, because: {CAUSE}.",
)
DISK = Alert(
    name="AdvgameReplayDiskLow",
    severity="critical",
    expr=f"""\
min by (run) ({select(m.DISK_FREE)}) < 5 * 2 ^ 30
or
min by (run) ({select(m.DISK_FREE)})
and on (run)
({_FILLS} and {select(m.DISK_FREE)} and {select(m.DISK_FREE)} offset {TREND})""",
    wait="10m",
    summary=f"The disk of {RUN} is full soon",
    description=f"The disk that holds the replay segments and checkpoints of {RUN} has {BYTES} left: less than 5 GiB, or less "
    "than it fills in four hours at the pace of the last one.",
)

ALERTS = (HEARTBEAT, TARGET, RESTARTS, DISK)
