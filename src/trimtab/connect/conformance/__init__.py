"""Whether a connector keeps what it declares, found out offline: `check(connector)` gives a `Report`.

report = check(tides.connector)
assert report.passed, report.failures
"""
