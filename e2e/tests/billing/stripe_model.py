"""A model of rows on their way to Stripe, made from what the contract says and from nothing of the program.

It reads courses, one JSON list a line, and prints what each of their steps comes to, one JSON list a line. Moments are seconds.
"""

import datetime
import hashlib
import json
import sys

MINUTE, HOUR = 60, 3600
DAY = 24 * HOUR
VALUE_MAX = 999_999_999_999_999


class Row:
    def __init__(self, minute, value):
        self.minute, self.value = minute, value
        self.state, self.attempts, self.suffix = "pending", 0, 0
        self.first = self.last = self.next = self.pushed = self.confirmed = self.read_at = self.absent = None

    def due(self, now):
        if self.state == "pending":
            # 23 h after the first attempt, whatever the outcomes were.
            if self.first is not None and now - self.first >= 23 * HOUR:
                return "hold"
            if self.next is not None and now < self.next:
                return "nothing"
            # Before the first attempt of a row whose minute is older than 23 h the minute is read.
            just_read = self.read_at is not None and now - self.read_at < HOUR
            if self.first is None and now - self.minute > 23 * HOUR and not just_read:
                return "read_first"
            return "send"
        if self.state == "held":
            since = self.first if self.last is None else self.last
            return self.reading(now if since is None else since, HOUR, now)
        if self.state == "pushed" and self.confirmed is None:
            return self.reading(self.pushed, 10 * MINUTE, now)
        return "nothing"

    def reading(self, since, not_before, now):
        if now - since < not_before:
            return "nothing"
        if self.read_at is not None and self.read_at >= since:
            pause = min(max(self.read_at - since, 10 * MINUTE), HOUR)
            if now - self.read_at < pause:
                return "nothing"
        return "read"

    def attempt(self, now):
        self.attempts += 1
        self.first = now if self.first is None else self.first
        self.last, self.next = now, now + MINUTE

    def answer(self, kind, pause, jitter, now):
        # Full jitter, 1 s to 15 min.
        back_off = max(1.0, min(2 ** min(self.attempts, 11), 900) * jitter)
        if kind == "taken":
            if self.state in ("pending", "held"):
                self.state = "pushed"
            self.pushed = now if self.pushed is None else self.pushed
            self.next = self.absent = None
        elif self.state != "pending":
            pass
        elif kind == "unanswered":
            self.next = now + back_off
        elif kind == "later":
            # After an answer another key, since the answer is replayed under this one.
            self.suffix += 1
            self.next = now + max(back_off, pause)
        elif kind == "blocked":
            self.suffix += 1
            self.next = now
        elif kind == "refused":
            self.state, self.next = "failed", None

    def hold(self):
        self.state, self.absent, self.next = "held", None, None

    def read(self, got, witness, now):
        self.read_at = now
        if got == self.value:
            self.state, self.confirmed = "pushed", now
            self.pushed = now if self.pushed is None else self.pushed
            self.absent = self.next = None
            return "confirmed"
        if got != 0:
            if self.state == "pushed":
                self.state = "failed"
            return "differs"
        reference = self.last if self.last is not None else self.pushed if self.pushed is not None else now
        if not witness or now - reference < HOUR:
            self.absent = None
            return "undecided"
        # 0 with witness, twice, at least ten minutes apart.
        if self.absent is None:
            self.absent = now
        if now - self.absent < 10 * MINUTE:
            return "undecided"
        if self.state == "held":
            self.state = "abandoned"
            return "abandoned"
        if self.state == "pushed":
            self.state, self.absent = "failed", None
            return "missing"
        return "undecided"

    def work(self, step):
        now, verdict, due = step["now"], "", self.due(step["now"])
        if due == "hold":
            self.hold()
        elif due == "send":
            self.attempt(now)
            if step["answer"] != "none":
                self.answer(step["answer"], step["pause"], step["jitter"], now)
        elif due == "read_first" and step["read"] == 0:
            self.read_at = now
        elif due in ("read_first", "read"):
            verdict = self.read(step["read"], step["witness"], now)
        elif self.state == "failed" and step["retry"]:
            self.hold()
            self.read_at = None
        return [due, verdict] + self.shown()

    def shown(self):
        moments = [self.first, self.last, self.next, self.pushed, self.confirmed, self.read_at, self.absent]
        return [self.state, self.attempts, self.suffix] + [None if at is None else int(at * 1_000_000) for at in moments]


def course(steps):
    row = Row(steps[0]["minute"], steps[0]["value"])
    return [row.work(step) for step in steps[1:]]


def sealed(hour):
    """Which rows an hour lacks: number and units of each."""
    made = sum(units for _, state, units in hour["made"] if state != "abandoned")
    number = max((number + 1 for number, _, _ in hour["made"]), default=0)
    left, step = int(hour["used"]) - made, 1 if hour["places"] == 6 else 1_000_000
    # What a row's value can be, of which rounding may take one more.
    most = (VALUE_MAX - 1) * step
    # One row a minute: an hour that takes more is no usage for such a meter.
    if abs(left) > 60 * most:
        return None
    rows = []
    while left != 0:
        part = max(-most, min(most, left))
        rows.append([number, str(part)])
        number, left = number + 1, left - part
    return rows


def frozen(lane):
    """The values of a lane's rows, one after the other: together they are the units but for less than a step."""
    step, units, given, values = 1 if lane["places"] == 6 else 1_000_000, 0, 0, []
    for part in lane["units"]:
        units += part
        values.append(units // step - given)
        given += values[-1]
    return values


def minute(place):
    """Where a row goes: the first free minute of its hour, else of the previous and the current hour that has passed."""
    now, hour, taken = place["now"], place["hour"], set(place["taken"])
    candidates = []
    if not place["closed"] and now - (hour + HOUR) <= 34 * DAY:
        candidates += [hour + number * MINUTE + 30 for number in range(60)]
    start = now - now % HOUR - HOUR
    candidates += [at for at in (start + number * MINUTE + 30 for number in range(120)) if at <= now - 30]
    return next((at for at in candidates if at not in taken), None)


def adopted(found):
    """What is done with a minute of which Stripe has another value than the rows."""
    row, value, now = found["row"], found["value"], found["now"]
    if row is None:
        return "nothing" if value == 0 else "adopt"
    if row["value"] == value and row["state"] != "abandoned":
        return "confirm"
    if row["state"] != "abandoned" and row["last"] is not None and now - row["last"] < DAY:
        return "leave"
    if value == 0 and row["attempts"] == 0 and row["origin"] == "sealed":
        return "nothing"
    return "give_up" if value == 0 else "replace"


def hour(read):
    """Whether the sum of an hour says that each of its rows is there, so that no other set of them could make it.

    A row that is there counts with its value, one that is not with nothing; of one that was not taken nobody knows.
    """
    rows = read["rows"]
    if read["theirs"] is None or any(state != "pushed" for state, _ in rows):
        return False
    values = [value for _, value in rows]
    if any(value < 0 for value in values):
        return False
    sums = {0: 1}
    for value in (value for value in values if value != 0):
        before = dict(sums)
        for total, ways in before.items():
            sums[total + value] = sums.get(total + value, 0) + ways
    # Exactly one set of the rows makes this sum, and it is all of them.
    return read["theirs"] == sum(values) and sums[sum(values)] == 1


def lane(checked):
    """Whether a lane's total is more than was ever sent, and what was pushed.

    Stripe can have any of the rows that were attempted, or that say what it has: at most the positive ones of them.
    """
    there = [row for row in checked["rows"] if row[0] != "abandoned"]
    most = sum(value for _, value, attempts, origin in there if value > 0 and (attempts > 0 or origin == "adopted"))
    return [checked["total"] > most, sum(value for state, value, _, _ in there if state == "pushed")]


def named(row):
    """gl1- and 40 digits of SHA-256 over generation, tenant, meter, hour and revision."""
    moment = datetime.datetime.fromtimestamp(row["hour"], datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000000Z")
    parts = [row["generation"], row["tenant"], row["meter"], moment, str(row["revision"])]
    return "gl1-" + hashlib.sha256("\n".join(parts).encode()).hexdigest()[:40]


KINDS = {
    "course": course, "sealed": sealed, "frozen": frozen, "minute": minute, "adopted": adopted, "hour": hour,
    "lane": lane, "named": named,
}
for line in open(sys.argv[1]):
    kind, what = json.loads(line)
    print(json.dumps(KINDS[kind](what)))
