#!/bin/sh
# Arguments: dpkg passes "remove", "upgrade" or "deconfigure", rpm the number of versions that remain.
set -e
case $1 in
  remove | 0)
    if [ -d /run/systemd/system ]; then systemctl disable --now genplug.service; fi
    ;;
esac
# With rpm, the new version has been installed already when the old version of an upgrade is removed.
case $1 in
  remove | upgrade | deconfigure | 0) find /usr/lib/genplug -name __pycache__ -prune -exec rm -rf {} + ;;
esac
