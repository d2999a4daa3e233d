#!/bin/sh
# Debian's chromium for the browser tests, where apt-get is there and we may use it. Elsewhere the tests skip and say why.
command -v chromium >/dev/null 2>&1 && exit 0
if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
  echo "Installing Debian's chromium for the browser tests …"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; } \
    >/dev/null 2>&1 || echo "chromium could not be installed: browser tests will be skipped"
else
  echo "chromium is not here and apt-get cannot be used: browser tests will be skipped"
fi
exit 0
