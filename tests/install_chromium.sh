#!/usr/bin/env bash
# The browser that the report page is tested in: the one that is here, else Debian's, else
# Playwright's own.
set -euo pipefail
for name in chromium chromium-browser google-chrome; do
  if command -v "$name" > /dev/null; then exit 0; fi
done
if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
  # The list of packages may be older than the packages.
  apt-get install -y -qq chromium > /dev/null 2>&1 ||
    { apt-get update -qq && apt-get install -y -qq chromium > /dev/null; }
else
  "$1" install chromium
fi
