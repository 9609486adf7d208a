"""What a project's client does: 2,000 tasks, and waiting for all of them.

Runs in the environment of the Celery under test, with the app on its path, and
prints what it sent and got as JSON.
"""

import json

from celery import chord, group
from celery_app import add, flaky, report, total

ADDS, RETRIES, REPORTS, CHORDS, CHORD_SIZE, GROUPS, GROUP_SIZE = 1200, 200, 100, 20, 20, 10, 8
DEADLINE_S = 120

singles = []
chords = []
groups = []
# Interleaved, so that chords are open while everything else goes on.
for n in range(CHORDS):
    chords.append(chord([add.s(i, n) for i in range(CHORD_SIZE)])(total.s()))
    singles += [add.delay(i, n) for i in range(ADDS // CHORDS)]
    singles += [flaky.delay(i) for i in range(RETRIES // CHORDS)]
    singles += [report.delay(3) for _ in range(REPORTS // CHORDS)]
    if n < GROUPS:
        groups.append(group(add.s(i, n) for i in range(GROUP_SIZE)).apply_async())
# A saved group is a key of its own kind, and none of the module's business.
groups[0].save()

for one in singles:
    one.get(timeout=DEADLINE_S)
wrong = []
for n, body in enumerate(chords):
    told = sum(range(CHORD_SIZE)) + n * CHORD_SIZE
    got = body.get(timeout=DEADLINE_S)
    if got != told:
        wrong.append(f"chord {n}: {got}, not {told}")
for n, one in enumerate(groups):
    got = one.get(timeout=DEADLINE_S)
    if got != [i + n for i in range(GROUP_SIZE)]:
        wrong.append(f"group {n}: {got}")

tasks = [one.id for one in singles + chords]
tasks += [child.id for body in chords for child in body.parent.children]
tasks += [child.id for one in groups for child in one.children]
print(json.dumps({"tasks": tasks, "chords": len(chords), "wrong": wrong, "group": groups[0].id}))
