"""A pytest plugin that writes what became of each test to HYGIENE_PEERS_RECORD.

A line each: outcome, a tab, the test's name as pytest takes it on its command line.
"""

import os


def _record(outcome, name):
    with open(os.environ["HYGIENE_PEERS_RECORD"], "a") as record:
        print(outcome, name, sep="\t", file=record)


def pytest_runtest_logreport(report):
    # A subtest's report bears the name of its test: a failed one fails it. A rerun
    # is no end. Setup and teardown count only if something is wrong there.
    if report.outcome in ("failed", "skipped") or (report.outcome, report.when) == ("passed", "call"):
        _record("expected" if hasattr(report, "wasxfail") else report.outcome, report.nodeid)


def pytest_collectreport(report):
    if report.failed:
        _record("failed", report.nodeid)
