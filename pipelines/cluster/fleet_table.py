"""How a fleet is, as a person reads it: a table."""

from __future__ import annotations

import datetime
import shutil

from components.common.printable import aligned, printable
from components.common.registry.standing import COMPARED, Move, moved, scores_of
from components.common.score_labels import metric
from components.common.storage.retries import shortened
from pipelines.cluster.fleet_status import NO_STANDING, ConceptStatus

_NOTHING = "-"
_LONGEST_CELL = 24
_ANY_WIDTH = (200, 24)  # of what is no terminal
_LEGEND = (
    "times in UTC; scores: the champion's, and how they moved from the champion before; LATEST: the newest version, "
    "and its {scores} over the champion's; ~: learned from other pictures or on another base model"
)


def fleet_lines(concepts: list[ConceptStatus]) -> list[str]:
    """One line a concept below a header, each failed step and whatever is not known in a line of its own, a legend."""
    names = [metric(name).name for name in COMPARED]
    header = ["CONCEPT", "SCHEDULE", "NEXT", "LAST RUN", "CHAMPION", *(name.upper() for name in names), "LATEST"]
    first, *rows = aligned([header, *map(_row, concepts)])
    longest = shutil.get_terminal_size(_ANY_WIDTH).columns
    lines = [first]
    for concept, row in zip(concepts, rows, strict=True):
        lines.append(row)
        reasons = concept.last_run.reasons if concept.last_run else ()
        notes = filter(None, (*reasons, concept.schedule.remark, concept.problem))
        lines += [f"  {shortened(printable(note), longest=longest - 2)}" for note in notes]
    return [*lines, _LEGEND.format(scores=" and ".join(names))]


def _row(concept: ConceptStatus) -> list[str]:
    found, schedule, run = concept.standing or NO_STANDING, concept.schedule, concept.last_run
    champion, latest = found.champion, found.latest
    since = moved(champion, found.before) if champion and found.before else None
    ahead = moved(latest, champion) if latest and champion and latest.version != champion.version else None
    scores = scores_of(champion) if champion else {}
    return [
        shortened(concept.name, longest=_LONGEST_CELL),
        shortened(schedule.trigger.for_people(), longest=_LONGEST_CELL) if schedule.trigger else _NOTHING,
        _time(schedule.next_run),
        f"{_time(run.created)} {run.state}" if run else _NOTHING,
        str(champion.version) if champion else _NOTHING,
        *(f"{scores[name]:.3f} {_gain(since, name)}".strip() if name in scores else _NOTHING for name in COMPARED),
        " ".join([str(latest.version), *(_gain(ahead, name) for name in COMPARED)]).strip() if latest else _NOTHING,
    ]


def _gain(move: Move | None, name: str) -> str:
    if move is None or name not in move.scores:
        return ""
    return f"{'' if move.is_of_the_same else '~'}{move.scores[name]:+.3f}"


def _time(moment: datetime.datetime | None) -> str:
    return moment.astimezone(datetime.UTC).strftime("%m-%d %H:%M") if moment else _NOTHING
